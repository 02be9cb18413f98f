"""A network cut at the maps of one of its stages: what leads to them, and what it makes of them.

Axes: N images, C channels, h w positions of a map, H W pixel rows and columns, K classes, M of them that are asked about.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig, GFNetConfig, RoadmapConfig, TimmConfig
from convnext.errors import ConvNeXtError
from convnext.models.convnext import Block, ScaleNorm

_AXES = 4  # of maps: images, channels, rows, columns


@dataclass(frozen=True)
class Cut:
    """The two halves of a network: after(before(images)) are its logits."""

    stage: int  # whose maps they are, from 0
    last: int  # number of the last stage
    before: Callable[[Tensor], Tensor]  # (N, in_channels, H, W) -> (N, C, h, w)
    after: Callable[[Tensor], Tensor]  # (N, C, h, w) -> (N, K), in torch's own operations
    stride_px: float | None  # pixels from one position to the next; None: the positions share the image evenly
    first_px: float  # centre of the first position, from the image's edge


def cut_at(network: Any, stage: int | None = None) -> Cut:
    """`network` in evaluation mode, cut at the maps of `stage`, by default the last.

    Raises ConvNeXtError for a stage that it does not have, and for a network without maps of positions, such as a ViT.
    """
    config = network.config
    if isinstance(config, TimmConfig):
        if stage not in (None, 0):
            raise ConvNeXtError(
                f"stage = {stage} is refused: timm's '{config.name}' gives its last maps alone. Leave it out."
            )
        channels_last = getattr(network.network, "output_fmt", "NCHW") == "NHWC"  # of Swin and its kin
        halves = (
            partial(_timm_maps, network.network, channels_last),
            partial(_timm_head, network.network, channels_last),
        )
        return Cut(0, 0, *halves, None, 0)
    last = len(network.stages) - 1
    chosen = last if stage is None else stage
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen <= last:
        has = f"stages 0 to {last}" if last else "stage 0 alone"
        raise ConvNeXtError(f"stage = {chosen!r} is refused: '{config.name}' has {has}.")
    before, after = partial(_before, network, chosen), partial(_after, network, chosen)
    return Cut(chosen, last, before, after, *_places(config, chosen))


def inexact(network: Any) -> str:
    """Why the logits of a network are no sums over the positions of its last maps; '' where they are (see `shares`)."""
    config = network.config
    if isinstance(config, TimmConfig):
        return "its head is timm's"
    if getattr(config, "head_width", None):
        return "its head has a hidden layer, which mixes the positions"
    if type(network.head) is not nn.Linear:
        return f"its head is a {type(network.head).__name__}"
    known = (nn.Identity, nn.LayerNorm, ScaleNorm, nn.BatchNorm2d)
    return "" if isinstance(network.norm, known) else f"its last norm is a {type(network.norm).__name__}"


def shares(network: Any, maps: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What each position of the last maps (N, C, h, w) adds to the logits of `classes`: (N, M, h, w) float64, on the CPU.

    And the (M,) that is added whatever the image: the sum over the positions and this make the logit. The mean over space
    and the linear head are sums; the norm between them divides by one number an image, which is taken as it is, and
    subtracts the mean over the channels, which every position can do for itself. (Class activation maps: Zhou et al. 2015,
    arXiv 1512.04150, there for a head without a norm.) For a network that is not `inexact`.
    """
    config, norm = network.config, network.norm
    if isinstance(config, GFNetConfig):  # it norms each position, and then takes the mean
        maps, norm = norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Identity()
    elif isinstance(config, ConvNeXtConfig):
        maps = network.norm_maps(maps)
    maps = maps.cpu().double()
    centred, scale, shift = _held(norm, maps.mean((2, 3)))
    if centred:
        maps = maps - maps.mean(1, keepdim=True)
    rows, bias = (value.detach().cpu().double()[list(classes)] for value in (network.head.weight, network.head.bias))
    positions = maps.shape[2] * maps.shape[3]
    return torch.einsum("nchw,nc,mc->nmhw", maps, scale, rows) / positions, bias + rows @ shift


def _held(norm: Any, pooled: Tensor) -> tuple[bool, Tensor, Tensor]:
    """The norm of (N, C) float64 vectors, its statistics held: less their mean or not, times (N, C), plus (C,)."""
    ones, zeros = torch.ones_like(pooled), torch.zeros_like(pooled[0])
    if isinstance(norm, nn.Identity):
        return False, ones, zeros
    weight = norm.weight.detach().cpu().double()
    if isinstance(norm, nn.BatchNorm2d):
        mean, spread = norm.running_mean, norm.running_var
        assert mean is not None and spread is not None
        scale = weight / torch.sqrt(spread.cpu().double() + norm.eps)
        return False, ones * scale, norm.bias.detach().cpu().double() - mean.cpu().double() * scale
    if isinstance(norm, ScaleNorm):
        spread = pooled.var(1, keepdim=True) if norm.variance else pooled.square().mean(1, keepdim=True)
        return False, weight * torch.rsqrt(spread + norm.eps), zeros
    spread = pooled.var(1, keepdim=True, correction=0)
    return True, weight * torch.rsqrt(spread + norm.eps), norm.bias.detach().cpu().double()


def _before(network: Any, stage: int, x: Tensor) -> Tensor:
    x = network.stem(x)
    for each in network.stages[: stage + 1]:
        x = each(x)
    return x.permute(0, 3, 1, 2) if isinstance(network.config, GFNetConfig) else x


def _after(network: Any, stage: int, maps: Tensor) -> Tensor:
    x = maps.permute(0, 2, 3, 1) if isinstance(network.config, GFNetConfig) else maps
    for each in network.stages[stage + 1 :]:
        x = _plain(each, x) if isinstance(network.config, ConvNeXtConfig) else each(x)
    return network.head(network.pooled(x))


def _plain(stage: Any, x: Tensor) -> Tensor:
    """A stage without the kernels that its blocks may run on: gradients are those of torch's own operations."""
    x = stage.downsample(x)
    for block in stage.blocks:
        x = block.plain(x) if isinstance(block, Block) else block(x)
    return x


def _places(config: Any, stage: int) -> tuple[float | None, float]:
    """Where the positions of a stage lie, in pixels: the distance of two and the centre of the first."""
    if isinstance(config, RoadmapConfig):
        return None, 0
    stride = config.patch * 2**stage
    if getattr(config, "stem", "patch") == "patch":
        return stride, stride / 2
    return stride, (stride - config.patch + 1) / 2  # padded convolutions of stride 2 begin at the centre of a pixel


def _timm_maps(network: Any, channels_last: bool, x: Tensor) -> Tensor:
    """(N, C, h, w) of any network of timm. Raises ConvNeXtError for one of tokens."""
    maps: Any = network.forward_features(x)
    if not isinstance(maps, Tensor) or maps.ndim != _AXES:
        raise ConvNeXtError(
            f"timm's {type(network).__name__} gives tokens and no maps of positions, so there is none to draw. Take a ConvNeXt."
        )
    return maps.permute(0, 3, 1, 2) if channels_last else maps


def _timm_head(network: Any, channels_last: bool, maps: Tensor) -> Tensor:
    logits: Tensor = network.forward_head(maps.permute(0, 2, 3, 1) if channels_last else maps)
    return logits
