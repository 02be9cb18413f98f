"""UperNet: Xiao et al. 2018, arXiv 1807.10221, as arXiv 2201.03545 uses it on ADE20K.

Axes: N images, C channels, H W feature rows and columns, D channels of the head, K classes. Stage s of the backbone
has (N, C_s, H / 4 / 2^s, W / 4 / 2^s). All resizing is bilinear with half-pixel centres (align_corners false).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import UperNetConfig
from convnext.errors import ConvNeXtError
from convnext.tasks.convolution import norm_layer

_LOGIT_STD = 0.01  # of the last convolution's first weights
_LEAST = 8  # channels of a group of GroupNorm: a map of one cell has as many values


class Logits(NamedTuple):
    """What the heads say, each at the resolution of the stage it ends on."""

    main: Tensor  # (N, K, H0, W0)
    aux: Tensor | None  # (N, K, H_aux, W_aux)


class UperNet(nn.Module):
    """A backbone, the UperNet head, and in training an auxiliary FCN head.

    `backbone` gives a list of maps, one for each stage, and says their channels in `widths`.
    Raises ConvNeXtError for an auxiliary head on a stage that there is not.
    """

    def __init__(self, backbone: nn.Module, config: UperNetConfig):
        super().__init__()
        self.config = config
        self.backbone = backbone
        widths: tuple[int, ...] = tuple(backbone.widths)  # type: ignore[arg-type]
        if config.aux_weight and config.aux_stage >= len(widths):
            raise ConvNeXtError(
                f"head.aux_stage = {config.aux_stage} is none of the backbone's {len(widths)} stages, 0 to "
                f"{len(widths) - 1}. Take one of them, or set head.aux_weight to 0."
            )
        self.decoder = Decoder(widths, config)
        aux = AuxiliaryHead(widths[config.aux_stage], config) if config.aux_weight else None
        self.auxiliary: AuxiliaryHead | None = aux

    def forward(self, x: Tensor) -> Tensor | Logits:  # (N, in_channels, H, W) -> (N, K, H, W)
        """In evaluation the logits of every pixel; in training what both heads say, each at its own resolution.

        One `forward` for both, because wrappers (torch.compile, DDP) see nothing else.
        """
        maps = self.backbone(x)
        main = self.decoder(maps)
        if not self.training:
            return resized(main, x.shape[-2:])
        return Logits(main, self.auxiliary(maps[self.config.aux_stage]) if self.auxiliary else None)


class Decoder(nn.Module):
    """Pyramid pooling on the last stage, top-down additions, then all levels side by side (Fig. 4 of UperNet)."""

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


class AuxiliaryHead(nn.Module):
    """One convolution and a classifier on an inner stage: a shorter way for the gradient, in training only."""

    def __init__(self, width_in: int, config: UperNetConfig):
        super().__init__()
        self.conv = ConvNorm(width_in, config.aux_width, 3, config.norm)
        self.classify = Classify(config.aux_width, config)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K, H, W)
        return self.classify(self.conv(x))


class Classify(nn.Module):
    """Drop whole channels, then one linear answer for each position."""

    def __init__(self, width: int, config: UperNetConfig):
        super().__init__()
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv = nn.Conv2d(width, config.classes, 1)
        nn.init.normal_(self.conv.weight, std=_LOGIT_STD)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # (N, D, H, W) -> (N, K, H, W)
        return self.conv(self.dropout(x))


class ConvNorm(nn.Module):
    """Convolution that keeps the size, norm, ReLU; without a norm, the convolution has a bias."""

    def __init__(self, width_in: int, width: int, kernel: int, norm: str):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, padding=kernel // 2, bias=norm == "none")
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = norm_layer(norm, width, least=_LEAST)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H, W)
        return self.activation(self.norm(self.conv(x)))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), bilinear; the same tensor where the size is right already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
