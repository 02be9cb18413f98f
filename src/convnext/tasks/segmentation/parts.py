"""What the heads of segmentation are made of: what they return, their units, and how a map is resized.

Axes: N images, C channels, H W feature rows and columns, D channels of the head, K classes. All resizing is bilinear
with half-pixel centres (align_corners false).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import SegmentationHeadConfig
from convnext.tasks.convolution import Convolution, convolved, norm_layer

_LOGIT_STD = 0.01  # of the last convolution's first weights
_LEAST = 8  # channels of a group of GroupNorm: a map of one cell has as many values


class Logits(NamedTuple):
    """What the heads say, each at the resolution of the stage it ends on."""

    main: Tensor  # (N, K, H0, W0)
    aux: Tensor | None  # (N, K, H_aux, W_aux)


class AuxiliaryHead(nn.Module):
    """One convolution and a classifier on an inner stage: a shorter way for the gradient, in training only."""

    def __init__(self, width_in: int, config: SegmentationHeadConfig):
        super().__init__()
        self.conv = ConvNorm(width_in, config.aux_width, 3, config.norm)
        self.classify = Classify(config.aux_width, config)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K, H, W)
        return self.classify(self.conv(x))


class Classify(nn.Module):
    """Drop whole channels, then one linear answer for each position."""

    def __init__(self, width: int, config: SegmentationHeadConfig):
        super().__init__()
        self.dropout = DropChannels(config.dropout, width)
        self.conv = nn.Conv2d(width, config.classes, 1)
        nn.init.normal_(self.conv.weight, std=_LOGIT_STD)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # (N, D, H, W) -> (N, K, H, W)
        return self.conv(self.dropout(x))


class DropChannels(nn.Module):
    """Dropout of whole channels of an image's map (arXiv 1411.4280), at `rate`; kept ones are scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float, width: int):
        super().__init__()
        self.rate = rate
        self.chances = width if rate > 0 else 0  # see `engine.chances`
        self.drawn: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if not self.training or self.rate == 0:
            return x
        drawn = torch.rand(x.shape[:2], device=x.device) if self.drawn is None else self.drawn
        keep = drawn[:, :, None, None] >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))


class ConvNorm(nn.Module):
    """Convolution that keeps the size, norm, ReLU; without a norm, the convolution has a bias."""

    def __init__(self, width_in: int, width: int, kernel: int, norm: str):
        super().__init__()
        bias = norm == "none"
        self.conv = Convolution(width_in, width, bias=bias) if kernel == 3 else nn.Conv2d(width_in, width, 1, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = norm_layer(norm, width, least=_LEAST)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H, W)
        return convolved(x, self.conv, self.norm, self.activation)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), bilinear; the same tensor where the size is right already, but in a graph of any size."""
    if not torch.compiler.is_exporting() and tuple(x.shape[-2:]) == tuple(size):
        return x
    y = F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    if y.requires_grad and not torch.compiler.is_compiling() and y.is_contiguous(memory_format=torch.channels_last):
        # Of a concatenation each map gets a view of the whole gradient, which torch resizes several times as slowly.
        y.register_hook(_packed)
    return y


def _packed(gradient: Tensor) -> Tensor:
    """The same values with the channels of a position side by side and nothing between positions."""
    return gradient.contiguous(memory_format=torch.channels_last)
