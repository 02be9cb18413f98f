"""The same network with less to do: whatever is constant in inference is multiplied out beforehand.

Folded, exactly: the affine part of each block's LayerNorm into `expand`, of a downsampling layer's into its convolution, of the
last one into the head; layer scale and the bias of V2's global response normalisation into `project`; mean and standard
deviation of the input into the stem. Dropped: identities and stochastic depth. The stem's own LayerNorm stays whole,
because the first block's residual needs its answer. Products are taken in float64 and rounded once.

Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K classes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig, GFNetConfig, RoadmapConfig, TimmConfig
from convnext.deploy.folded import Folded, FoldedBlock, FoldedDownsample, FoldedHead, FoldedStem
from convnext.errors import ConvNeXtError
from convnext.kernels.block import fold_affine, folded
from convnext.models.convnext import (
    Block,
    ChannelNorm,
    ConvNeXt,
    Downsample,
    DropPath,
    GlobalResponseNorm,
    Stage,
    Stem,
    blurred,
)
from convnext.models.fused import weights_of
from convnext.models.network import Network
from convnext.streams import tell

_KNOWN = {ConvNeXt, Stem, Stage, Block, Downsample, ChannelNorm, GlobalResponseNorm, DropPath}
_KNOWN |= {nn.Conv2d, nn.Linear, nn.LayerNorm, nn.GELU, nn.Identity, nn.Sequential, nn.ModuleList}


def optimize(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    matmul_dtype: torch.dtype | None = None,
    info: Callable[[str], None] = tell,
) -> Network:
    """A new network that answers as `model` in evaluation mode does, in fewer operations; `model` stays as it is.

    With `mean` and `std`, one value per channel, it takes images that are not yet normalised, in the scale of these
    values: 0.485 is for values from 0 to 1, 123.7 for 0 to 255, of uint8 too. `matmul_dtype`: torch.bfloat16 lets the
    matmuls of blocks and downsampling layers take bf16 values in the compiled kernels, where this processor multiplies them
    faster; maps, norms and sums stay as they are, and so does all that runs elsewhere. The result keeps dtype, device,
    `features` and `embed`; compile, export or quantize it like any other network. Our other networks come back as a copy in
    evaluation mode and channels-last memory, and `info` says so. Raises ConvNeXtError for any other module.
    """
    if not isinstance(model, ConvNeXt) or not foldable(model):
        return _unfolded(model, mean is not None or std is not None, matmul_dtype, info)
    _refuse_changes(model)
    shift, scale = _scaling(mean, std, model.config.in_channels)
    norm = copy.deepcopy(model.norm)
    head: nn.Module = copy.deepcopy(model.head)
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(head, nn.Linear):
            _fold_into(head, head.weight, norm.weight, norm.bias)
            head = FoldedHead(head, norm.eps)
        given: Any = model.stages
        stages: list[list[nn.Module]] = [
            [
                *(_downsample(stage.downsample, matmul_dtype) for _ in range(i > 0)),
                *(_block(block, matmul_dtype) for block in stage.blocks),
            ]
            for i, stage in enumerate(given)
        ]
        return Folded(model.config, _stem(model.stem, shift, scale), stages, norm, head)


def foldable(model: ConvNeXt) -> bool:
    """Whether `optimize` folds this network: one of LayerNorms, with the last one behind the mean over space."""
    config = model.config
    return config.norm == "layer" and not config.norm_first and not config.head_width


def _unfolded(model: nn.Module, scaled: bool, matmul_dtype: torch.dtype | None, info: Callable[[str], None]) -> Network:
    if isinstance(model, Folded):
        if scaled or matmul_dtype is not None:
            raise ConvNeXtError(
                "This network is folded already: mean, std and matmul_dtype go into the first call of optimize(). "
                "Give it the network that this one was made of."
            )
        return copy.deepcopy(model)
    config = getattr(model, "config", None)
    if not isinstance(config, ConvNeXtConfig | TimmConfig | RoadmapConfig | GFNetConfig):
        raise ConvNeXtError(
            f"optimize() folds a ConvNeXt of this package, and a {type(model).__name__} was given. Make one with "
            "convnext.create() or convnext.load(...).model, and optimize before torch.compile wraps it."
        )
    if scaled:
        raise ConvNeXtError(
            f"mean and std fold into the stem of a ConvNeXt alone, not into '{config.name}'. Normalise its images."
        )
    what = "has norms or a head that are not folded" if isinstance(config, ConvNeXtConfig) else "is no ConvNeXt"
    info(f"'{config.name}' {what}: nothing is folded; this is its copy in evaluation mode, channels-last.")
    plain: Any = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    return plain


def _refuse_changes(model: ConvNeXt) -> None:
    """Folding reads the parts as this package builds them; another part in their place would be lost in silence."""
    for name, part in model.named_modules():
        if type(part) not in _KNOWN and not name.startswith("head"):
            raise ConvNeXtError(
                f"optimize() does not know the {type(part).__name__} at '{name or 'the top'}' of this network. "
                "Merge or remove what was put in its layers first."
            )


def _scaling(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[Tensor | None, Tensor | None]:
    """What is subtracted from and what divides each channel, (channels,) float64."""
    given = {"mean": mean, "std": std}
    for name, values in given.items():
        if values is not None and len(values) != channels:
            raise ConvNeXtError(
                f"{name} has {len(values)} values and the network {channels} channels. Give one for each."
            )
        if values is not None and not all(math.isfinite(v) and (v > 0 or name == "mean") for v in values):
            raise ConvNeXtError(f"{name} = {tuple(values)} cannot normalise images: give finite values, std above 0.")
    shift, scale = (None if each is None else torch.tensor(list(each), dtype=torch.float64) for each in (mean, std))
    return shift, scale


def _stem(stem: Any, shift: Tensor | None, scale: Tensor | None) -> FoldedStem:
    layers, norm = copy.deepcopy(stem.layers), copy.deepcopy(stem.norm)
    first, left = layers[0], None
    if shift is not None and any(first.padding):  # zeros stand for the mean there: it must be taken off before
        left, shift = shift[:, None, None].to(first.weight), None
    scale, shift = (None if each is None else each.to(first.weight.device) for each in (scale, shift))
    weight = first.weight if scale is None else first.weight.double() / scale[:, None, None]
    _fold_into(first, weight, None, None if shift is None else -shift)
    return FoldedStem(layers, norm, left)


def _downsample(downsample: Any, matmul_dtype: torch.dtype | None) -> FoldedDownsample:
    conv, weight = copy.deepcopy(downsample.conv), downsample.conv.weight
    if downsample.antialias:
        wide = nn.Conv2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, padding_mode="replicate")
        wide = wide.to(weight.device, weight.dtype)
        weight = wide.weight if weight.is_meta else blurred(weight.double())
        wide.bias, conv = conv.bias, wide
    _fold_into(conv, weight, downsample.norm.weight, downsample.norm.bias)
    made = FoldedDownsample(conv, downsample.norm.eps)
    made.matmul_dtype = matmul_dtype
    return made


def _block(block: Any, matmul_dtype: torch.dtype | None) -> FoldedBlock:
    spatial, expand, project = (copy.deepcopy(part) for part in (block.spatial, block.expand, block.project))
    weights = folded(weights_of(block))
    _fill(expand, weights.expand, weights.expand_bias)
    _fill(project, weights.project, weights.project_bias)
    grn = None if weights.grn is None else nn.Parameter(weights.grn.detach().clone())
    made = FoldedBlock(spatial, expand, project, weights.eps, grn)
    made.matmul_dtype = matmul_dtype
    return made


def _fold_into(layer: Any, weight: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
    """Let `layer`, with that weight, answer x as it answered scale * x + shift."""
    _fill(layer, *fold_affine(weight, layer.bias, scale, shift, torch.float64))


def _fill(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Set both, rounded to what `layer` holds, in memory of their own."""
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.detach().to(dtype, copy=True), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().to(dtype, copy=True), requires_grad=False)
