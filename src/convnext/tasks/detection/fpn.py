"""Feature pyramid (arXiv 1612.03144): every level gets what the coarser ones know.

Axes: N images, C channels, H W rows and columns of a level.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from convnext.tasks.convolution import Convolution


class FPN(nn.Module):
    """Maps of the backbone, brought to one width, summed from coarse to fine and smoothed; one coarser level more."""

    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(Convolution(channels, channels) for _ in widths)
        for convolution in (*self.lateral, *self.smooth):
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:  # L of (N, C_i, H_i, W_i) -> L + 1 of (N, C, H_i, W_i)
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        for fine in reversed(range(len(levels) - 1)):
            coarse = F.interpolate(levels[fine + 1], size=levels[fine].shape[-2:], mode="nearest")
            levels[fine] = levels[fine] + coarse
        pyramid = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], 1, stride=2)]  # the last one only proposes regions
