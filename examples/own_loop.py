"""A network of this package in a training loop of your own: it is a torch module like any other.

python examples/own_loop.py
"""

import torch
from torch.nn.functional import cross_entropy

import convnext

torch.manual_seed(0)
model = convnext.create("atto", classes=2, depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), drop_path=0.1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)

for _ in range(20):
    labels = torch.randint(2, (16,))
    images = torch.randn(16, 3, 64, 64) + labels[:, None, None, None]  # the second class is brighter
    loss = cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss after 20 steps: {loss.item():.3f}")

fast = convnext.optimize(model.eval())  # norms and layer scale folded, fused kernels where there are any
with torch.inference_mode():
    print(f"largest difference of the folded network: {(fast(images) - model(images)).abs().max().item():.1e}")
