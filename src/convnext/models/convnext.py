"""ConvNeXt V1 (Liu et al. 2022, arXiv 2201.03545), V2 (Woo et al. 2023, arXiv 2301.00808) and isotropic, in one network.

Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K classes.
Feature maps are (N, C, H, W) at every boundary; inside a block the channels come last, because LayerNorm and Linear
want them there. In the channels-last memory format that change of view costs nothing.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from convnext.config import ConvNeXtConfig
from convnext.models.network import Network

EPS = 1e-6  # of the norms, where a config does not say otherwise, and of the global response normalization


class ConvNeXt(Network):
    """Stem, stages of blocks with downsampling layers between them, then mean over space, norm and a linear head (Fig. 4).

    Takes (N, in_channels, H, W) of any H, W >= patch and returns (N, K) logits; with classes = 0, (N, C) features.
    """

    def __init__(self, config: ConvNeXtConfig):
        super().__init__()
        self.config = config
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        ends = list(accumulate(config.depths, initial=0))
        self.stem = Stem(config)
        before = (None, *config.widths[:-1])
        self.stages = nn.ModuleList(
            Stage(config, before[i], width, rates[ends[i] : ends[i + 1]]) for i, width in enumerate(config.widths)
        )
        width, first = config.widths[-1], config.norm_first
        self.norm_maps = norm_of(config, width, maps=True) if first else nn.Identity()
        self.norm: Any = nn.Identity() if first else norm_of(config, width, maps=False)
        self.hidden = nn.Linear(width, config.head_width) if config.head_width else nn.Identity()
        self.head = nn.Linear(config.head_width or width, config.classes) if config.classes else nn.Identity()
        self.apply(initialise)
        if config.classes:
            for parameter in self.head.parameters():
                parameter.data.mul_(config.head_scale)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        return self.head(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head sees: the last stage, averaged over space and normed (or normed, then averaged)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.pooled(x)

    def pooled(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        """What `embed` makes of the last stage's maps."""
        x = self.norm(self.norm_maps(x).mean((2, 3)))
        return F.gelu(self.hidden(x)) if self.config.head_width else x

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name: {'stage0': (N, C0, H/patch, W/patch), 'stage1': (N, C1, H/2patch, ...), ...}."""
        x = self.stem(x)
        maps = {}
        for i, stage in enumerate(self.stages):
            maps[f"stage{i}"] = x = stage(x)
        return maps


class Block(nn.Module):
    """Mix space one channel at a time, then mix channels one pixel at a time (V1 Fig. 4, V2 Fig. 5).

    y = x + drop_path(gamma * project(grn(gelu(expand(norm(spatial(x)))))))   V1 has no grn, V2 has no gamma

    `kernels`: what answers in place of `plain`, with the same values; models.fused sets it.
    """

    def __init__(
        self,
        width: int,
        *,
        kernel: int,
        layer_scale: float | None,
        grn: bool,
        drop_path: float,
        norm: nn.Module | None = None,
    ):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm: Any = nn.LayerNorm(width, eps=EPS) if norm is None else norm
        self.expand = nn.Linear(width, 4 * width)
        self.grn = GlobalResponseNorm(4 * width) if grn else nn.Identity()
        self.project = nn.Linear(4 * width, width)
        gamma = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        self.register_parameter("gamma", gamma)  # (C,) near 0: each block is born an identity
        self.drop_path = DropPath(drop_path)
        self.kernels: Callable[[Block, Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return self.plain(x) if self.kernels is None else self.kernels(self, x)

    def plain(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """The block in torch's own operations."""
        y = self.spatial(x).permute(0, 2, 3, 1)  # (N, H, W, C)
        y = self.grn(F.gelu(self.expand(self.norm(y))))  # (N, H, W, E)
        y = self.project(y)  # (N, H, W, C)
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class Stage(nn.Module):
    """Downsample where the stage is not the first, then run its blocks: one for each of their drop path rates."""

    def __init__(self, config: ConvNeXtConfig, width_before: int | None, width: int, rates: Sequence[float]):
        super().__init__()
        self.checkpointing = config.checkpointing
        self.downsample: nn.Module = nn.Identity()
        if width_before is not None:
            norm = norm_of(config, width_before, maps=True)
            self.downsample = Downsample(width_before, width, norm=norm, antialias=config.antialias)
        self.blocks = nn.ModuleList(
            Block(
                width,
                kernel=config.kernel,
                layer_scale=config.layer_scale,
                grn=config.grn,
                drop_path=rate,
                norm=norm_of(config, width, maps=False),
            )
            for rate in rates
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C_before, H, W) -> (N, C, H // 2, W // 2)
        x = self.downsample(x)
        block: Any
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=block.drop_path.draws)
            else:
                x = block(x)
        return x


class Stem(nn.Module):
    """Turn the image into C0 channels, one position for every patch x patch pixels.

    'patch': one convolution of kernel and stride `patch` (section 2.3). 'overlap': 3x3 convolutions of stride 2, with
    norm and GELU between them, which learn faster from few images (after arXiv 2106.14881). 'pair': two of them with at
    most a GELU between them (timm's overlapping stems).
    """

    def __init__(self, config: ConvNeXtConfig):
        super().__init__()
        width = config.widths[0]
        if config.stem == "patch":
            self.layers = nn.Sequential(nn.Conv2d(config.in_channels, width, config.patch, stride=config.patch))
        elif config.stem == "pair":
            middle = config.stem_width or width
            first = nn.Conv2d(config.in_channels, middle, 3, stride=2, padding=1)
            second = nn.Conv2d(middle, width, 3, stride=2, padding=1)
            self.layers = nn.Sequential(first, *[nn.GELU()] * config.stem_activation, second)
        else:
            convolutions = config.patch.bit_length() - 1
            widths = [config.in_channels, *(width // 2**i for i in reversed(range(convolutions)))]
            layers: list[nn.Module] = []
            for i in range(convolutions):
                between = [norm_of(config, widths[i], maps=True), nn.GELU()] if i else []
                layers += [*between, nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1)]
            self.layers = nn.Sequential(*layers)
        self.norm = norm_of(config, width, maps=True) if config.stem_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C0, H // patch, W // patch)
        return self.norm(self.layers(x))


class Downsample(nn.Module):
    """Norm, then a 2x2 convolution of stride 2: the downsampling layer between stages (section 2.6).

    `antialias`: the map is blurred by [1 2 1] each way before it is halved (Zhang 2019, arXiv 1904.11486). Blur and
    convolution are one 4x4 convolution of stride 2 whose border positions are repeated; the parameters stay the 2x2 ones.
    """

    def __init__(
        self,
        width_before: int,
        width: int,
        *,
        norm: nn.Module | None = None,
        bias: bool = True,
        antialias: bool = False,
    ):
        super().__init__()
        self.norm = ChannelNorm(width_before) if norm is None else norm
        self.conv = nn.Conv2d(width_before, width, 2, stride=2, bias=bias)
        self.antialias = antialias

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2C, H // 2, W // 2)
        x = self.norm(x)
        short = (x.shape[-2] < 2, x.shape[-1] < 2)  # a map of one row or column cannot be halved: repeat it
        if any(short):
            x = F.pad(x, (0, int(short[1]), 0, int(short[0])), mode="replicate")
        if not self.antialias:
            return self.conv(x)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, blurred(self.conv.weight), self.conv.bias, stride=2)


def blurred(weight: Tensor) -> Tensor:  # (C_out, C_in, H, W) -> (C_out, C_in, H + 2, W + 2)
    """The kernel that does what `weight` does to a map blurred by [1 2 1] / 4 each way."""
    rows = F.pad(weight, (0, 0, 2, 2))
    rows = (rows[..., :-2, :] + 2 * rows[..., 1:-1, :] + rows[..., 2:, :]) / 4
    columns = F.pad(rows, (2, 2))
    return (columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:]) / 4


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of a (N, C, H, W) map."""

    def __init__(self, width: int, eps: float = EPS):
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ScaleNorm(nn.Module):
    """weight * x / sqrt(spread + eps) over the channels, without a shift; `maps`: they are axis 1, else the last one.

    The spread is the mean of squares (RMSNorm, arXiv 1910.07467) or, with `variance`, the variance with C - 1 below the
    sum, the mean left in (timm's SimpleNorm).
    """

    def __init__(self, width: int, eps: float, *, variance: bool, maps: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.variance, self.axis = eps, variance, 1 if maps else -1

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C), or (N, C, H, W) -> (N, C, H, W)
        axis = self.axis
        spread = x.var(axis, keepdim=True) if self.variance else x.square().mean(axis, keepdim=True)
        weight = self.weight if axis == -1 else self.weight[:, None, None]
        return x * torch.rsqrt(spread + self.eps) * weight

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}, variance={self.variance}"


def norm_of(config: ConvNeXtConfig, width: int, *, maps: bool) -> nn.Module:
    """The norm over `width` channels that `config` asks for: of (N, C, H, W) maps, or of tensors with the channels last."""
    if config.norm != "layer":
        return ScaleNorm(width, config.eps, variance=config.norm == "simple", maps=maps)
    return ChannelNorm(width, config.eps) if maps else nn.LayerNorm(width, eps=config.eps)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation (V2, section 3.2): channels compete by their energy over the whole image.

    G = ||x||_2 over H, W;  N = G / (mean over channels of G + eps);  y = weight * (x * N) + bias + x
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, E) -> (N, H, W, E)
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # (N, 1, 1, E)
        share = energy / (energy.mean(-1, keepdim=True) + EPS)
        return x + torch.addcmul(self.bias, self.weight, x * share)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drop a sample's whole branch at `rate`, scale the kept ones by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.chances = int(rate > 0)  # see `engine.chances`
        self.drawn: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # (N, ...) -> (N, ...)
        if not self.training or self.rate == 0:
            return x
        drawn = torch.rand(x.shape[0], device=x.device) if self.drawn is None else self.drawn
        keep = drawn.view(-1, *[1] * (x.ndim - 1)) >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))

    @property
    def draws(self) -> bool:
        """Whether the next forward pass in training asks torch's generator."""
        return self.rate > 0 and self.drawn is None

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def initialise(module: nn.Module) -> None:
    """Convolutions and linears: normal of std 0.02, biases 0 (Table 5 prints 0.2; the released code uses 0.02)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
