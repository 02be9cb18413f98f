"""Global filter networks: Rao et al. 2021, arXiv 2107.00645.

Space is mixed by one circular convolution as large as the map, done as a product of spectra (section 3.2); the rest is
a transformer's. Axes: N images, C channels, H W feature rows and columns, F = W // 2 + 1 columns of a real image's
spectrum, K classes. Feature maps are (N, H, W, C) throughout.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import GFNetConfig
from convnext.models.convnext import EPS, DropPath
from convnext.models.network import Network

PUBLISHED_PX = 224  # side of the images that the published networks are made for


class GFNet(Network):
    """Patches with learnt positions, stages of blocks with downsampling layers between them, norm, mean, linear head.

    Takes (N, in_channels, H, W) and returns (N, K) logits; with classes = 0, (N, C) features. Images of another size
    than `config.size_px` are taken too: filters and positions then follow the map.
    """

    def __init__(self, config: GFNetConfig):
        super().__init__()
        self.config = config
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        ends = list(accumulate(config.depths, initial=0))
        rows = (config.size_px or PUBLISHED_PX) // config.patch
        self.stem = Stem(config, rows)
        before = (None, *config.widths[:-1])
        self.stages = nn.ModuleList(
            Stage(config, before[i], width, rows // 2**i, rates[ends[i] : ends[i + 1]])
            for i, width in enumerate(config.widths)
        )
        self.norm = nn.LayerNorm(config.widths[-1], eps=EPS)
        self.head = nn.Linear(config.widths[-1], config.classes) if config.classes else nn.Identity()
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        return self.head(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head sees: the last stage, normed and averaged over space."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.pooled(x)

    def pooled(self, x: Tensor) -> Tensor:  # (N, H, W, C) -> (N, C)
        """What `embed` makes of the last stage's maps."""
        return self.norm(x).mean((1, 2))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name: {'stage0': (N, C0, H / patch, W / patch), ...}."""
        x = self.stem(x)
        maps = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            maps[f"stage{i}"] = x.permute(0, 3, 1, 2)
        return maps


class Stem(nn.Module):
    """Turn patches into C0 channels and add what is learnt for each place."""

    def __init__(self, config: GFNetConfig, rows: int):
        super().__init__()
        self.conv = nn.Conv2d(config.in_channels, config.widths[0], config.patch, stride=config.patch)
        self.position = nn.Parameter(torch.empty(1, rows, rows, config.widths[0]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, H // patch, W // patch, C0)
        x = self.conv(x).permute(0, 2, 3, 1)
        position: Tensor = self.position
        if x.shape[1:3] != position.shape[1:3]:  # an image of another size
            grid = position.permute(0, 3, 1, 2)
            position = F.interpolate(grid, size=x.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
        return x + position


class Stage(nn.Module):
    """Downsample where the stage is not the first, then run its blocks: one for each of their drop path rates."""

    def __init__(self, config: GFNetConfig, width_before: int | None, width: int, rows: int, rates: Sequence[float]):
        super().__init__()
        self.downsample = nn.Conv2d(width_before, width, 2, stride=2) if width_before else None
        self.blocks = nn.Sequential(
            *(Block(width, rows, layer_scale=config.layer_scale, drop_path=rate) for rate in rates)
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, C_before) -> (N, H // 2, W // 2, C)
        if self.downsample is not None:
            x = self.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.blocks(x)


class Block(nn.Module):
    """Mix space by a global filter, then channels by two linears, around a single shortcut (section 3.3).

    y = x + drop_path(gamma * project(gelu(expand(norm(filter(norm(x)))))))   networks of one stage have no gamma
    """

    def __init__(self, width: int, rows: int, *, layer_scale: float | None, drop_path: float):
        super().__init__()
        self.spatial_norm = nn.LayerNorm(width, eps=EPS)
        self.spatial = GlobalFilter(width, rows)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        gamma = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        self.register_parameter("gamma", gamma)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, C) -> (N, H, W, C)
        y = self.norm(self.spatial(self.spatial_norm(x)))
        y = self.project(F.gelu(self.expand(y)))
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y)


class GlobalFilter(nn.Module):
    """Multiply every channel's spectrum by a learnt one: a circular convolution whose kernel is as large as the map."""

    def __init__(self, width: int, rows: int):
        super().__init__()
        self.rows = rows  # and columns, of the map that the filter is made for
        self.weight = nn.Parameter(0.02 * torch.randn(rows, rows // 2 + 1, width, 2))  # (H, F, C, real and imaginary)

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, C) -> (N, H, W, C)
        size = (x.shape[1], x.shape[2])
        spectrum = torch.fft.rfft2(x.float(), dim=(1, 2), norm="ortho")  # half precision has no transform of size 14
        y = torch.fft.irfft2(spectrum * self._filter(size), s=size, dim=(1, 2), norm="ortho")
        return y.to(x.dtype)

    def _filter(self, size: tuple[int, int]) -> Tensor:
        """(H, F, C) complex: the learnt spectrum; for another size, that of the same kernel cut or laid on zeros."""
        real, imaginary = self.weight.float().unbind(-1)  # a view as complex fails on channels-last weights
        weight = torch.complex(real, imaginary)
        if size == (self.rows, self.rows):
            return weight
        kernel = torch.fft.irfft2(weight, s=(self.rows, self.rows), dim=(0, 1))
        kernel = torch.fft.fftshift(kernel, dim=(0, 1))  # its centre from the corner to position rows // 2
        for axis, length in enumerate(size):
            first = length // 2 - self.rows // 2  # the centre moves to length // 2
            last = length - self.rows - first
            kernel = F.pad(kernel, (0, 0) * (2 - axis) + (first, last))  # a negative width cuts
        return torch.fft.rfft2(torch.fft.ifftshift(kernel, dim=(0, 1)), dim=(0, 1))


def _initialise(module: nn.Module) -> None:
    """Linears: normal of std 0.02, biases 0; convolutions and filters keep their own, as in the released code."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
