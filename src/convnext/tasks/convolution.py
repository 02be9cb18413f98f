"""Norms of the heads by name, one rule for the groups of GroupNorm, and the heads' unit: 3x3 convolution, norm, ReLU."""

import math
from collections import OrderedDict

from torch import Tensor, nn

GROUPS = 32  # of GroupNorm, arXiv 1803.08494; fewer where the channels are no multiple


def convolution(width_in: int, width: int, norm: str = "none") -> nn.Sequential:
    """(N, width_in, H, W) -> (N, width, H, W).

    `norm` 'batch' has statistics of a process's own batch, 'sync' those of all processes (the same with one, and GPUs
    only with more), 'group' those of each sample; 'none' has a bias instead.
    """
    conv = nn.Conv2d(width_in, width, 3, padding=1, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm != "none":
        layers["norm"] = norm_layer(norm, width)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class GroupNorm(nn.GroupNorm):
    """torch's, whatever the memory format: with the channels last, its CPU kernel is ten times slower on small maps."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return super().forward(x.contiguous())


def norm_layer(name: str, width: int, *, least: int = 1) -> nn.Module:
    """'batch', 'sync' (of all processes; on GPUs), 'group' (of one image, so any batch will do) or 'none'.

    'group' has 32 groups, fewer where they do not divide the channels or would have less than `least` each.
    """
    if name == "group":
        return GroupNorm(math.gcd(GROUPS, max(1, width // least)), width)
    return {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm}[name](width) if name != "none" else nn.Identity()
