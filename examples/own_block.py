"""A block of your own in the network: two thin strips in place of the 7x7 convolution, everything else as it was.

python examples/own_block.py
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import convnext


class Strips(nn.Module):
    """A column, then a row: depthwise, 11 positions long each."""

    def __init__(self, width: int):
        super().__init__()
        self.column = nn.Conv2d(width, width, (11, 1), padding=(5, 0), groups=width)
        self.row = nn.Conv2d(width, width, (1, 11), padding=(0, 5), groups=width)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return self.row(self.column(x))


torch.manual_seed(0)
model = convnext.create("atto", classes=2, depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), layer_scale=0.1)
before = sum(each.numel() for each in model.parameters())
for stage in model.stages:
    for block in stage.blocks:
        block.spatial = Strips(block.expand.in_features)  # with weights="...": what you replace starts fresh
print(f"parameters: {before:,} before, {sum(each.numel() for each in model.parameters()):,} with strips")

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(30):
    labels = torch.randint(2, (16,))
    images = torch.randn(16, 3, 64, 64)
    images[labels == 1] += torch.linspace(-2, 2, 64)  # the second class gets brighter to the right
    loss = cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss after 30 steps: {loss.item():.3f}")
