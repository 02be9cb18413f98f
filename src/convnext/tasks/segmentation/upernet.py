"""The head of UperNet: Xiao et al. 2018, arXiv 1807.10221, as arXiv 2201.03545 uses it on ADE20K.

Axes: N images, C channels, H W feature rows and columns, D channels of the head, K classes. Stage s of the backbone
has (N, C_s, H / 4 / 2^s, W / 4 / 2^s).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnext.config import UperNetConfig
from convnext.tasks.segmentation.parts import Classify, ConvNorm, resized


class UperNetHead(nn.Module):
    """Pyramid pooling on the last stage, top-down additions, then all levels side by side (Fig. 4 of UperNet)."""

    stages = None  # it reads all

    def __init__(self, widths: Sequence[int], config: UperNetConfig):
        super().__init__()
        width = config.width
        self.pyramid = PyramidPooling(widths[-1], config)
        self.laterals = nn.ModuleList(ConvNorm(each, width, 1, config.norm) for each in widths[:-1])
        self.smooths = nn.ModuleList(ConvNorm(width, width, 3, config.norm) for _ in widths[:-1])
        self.fuse = ConvNorm(len(widths) * width, width, 3, config.norm)
        self.classify = Classify(width, config)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # stages, large to small -> (N, K, H0, W0)
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps[:-1], strict=True)] + [self.pyramid(maps[-1])]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resized(levels[i], levels[i - 1].shape[-2:])
        levels = [smooth(x) for smooth, x in zip(self.smooths, levels[:-1], strict=True)] + levels[-1:]
        together = torch.cat([resized(x, levels[0].shape[-2:]) for x in levels], 1)  # (N, 4D, H0, W0)
        return self.classify(self.fuse(together))


class PyramidPooling(nn.Module):
    """What the image is about, at several coarse scales, beside each position (PSPNet, arXiv 1612.01105, Fig. 3)."""

    def __init__(self, width_in: int, config: UperNetConfig):
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(scale) for scale in config.pool_scales)
        self.branches = nn.ModuleList(ConvNorm(width_in, config.width, 1, config.norm) for _ in config.pool_scales)
        self.fuse = ConvNorm(width_in + len(config.pool_scales) * config.width, config.width, 3, config.norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H, W)
        pairs = zip(self.pools, self.branches, strict=True)
        coarse = [resized(branch(pool(x)), x.shape[-2:]) for pool, branch in pairs]
        return self.fuse(torch.cat([x, *coarse], 1))
