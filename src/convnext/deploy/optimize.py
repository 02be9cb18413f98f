"""The same network with less to do: whatever is constant in inference is multiplied out beforehand.

Folded, exactly: the affine part of each block's LayerNorm into `expand`, of a downsampling layer's into its convolution, of the
last one into the head; layer scale and the bias of V2's global response normalisation into `project`; mean and standard
deviation of the input into the stem. Dropped: identities and stochastic depth. The stem's own LayerNorm stays whole,
because the first block's residual needs its answer. Products are taken in float64 and rounded once.

Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K classes.
"""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import GFNetConfig, RoadmapConfig, TimmConfig
from convnext.deploy.folded import Folded, FoldedBlock, FoldedDownsample, FoldedHead, FoldedStem
from convnext.errors import ConvNeXtError
from convnext.models.convnext import (
    Block,
    ChannelNorm,
    ConvNeXt,
    Downsample,
    DropPath,
    GlobalResponseNorm,
    Stage,
    Stem,
)
from convnext.models.fused import FusedBlock

_KNOWN = {ConvNeXt, FusedBlock, Stem, Stage, Block, Downsample, ChannelNorm, GlobalResponseNorm, DropPath}
_KNOWN |= {nn.Conv2d, nn.Linear, nn.LayerNorm, nn.GELU, nn.Identity, nn.Sequential, nn.ModuleList}


def _print(message: str) -> None:
    print(message, file=sys.stderr)  # standard output belongs to the caller's results


def optimize(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    matmul_dtype: torch.dtype | None = None,
    info: Callable[[str], None] = _print,
) -> nn.Module:
    """A new network that answers as `model` in evaluation mode does, in fewer operations; `model` stays as it is.

    With `mean` and `std`, one value per channel, it takes images that are not yet normalised, in the scale of these
    values: 0.485 is for values from 0 to 1, 123.7 for 0 to 255, of uint8 too. `matmul_dtype`: torch.bfloat16 lets the two
    matmuls of every V1 block take bf16 values where the compiled kernels have them, nearly twice as fast; maps, norms
    and sums stay as they are, and so does all that runs elsewhere. The result keeps dtype, device, `features` and `embed`;
    compile, export or quantize it like any other network. Our other networks come back as a copy in evaluation mode and
    channels-last memory, and `info` says so. Raises ConvNeXtError for any other module.
    """
    if not isinstance(model, ConvNeXt):
        return _unfolded(model, mean is not None or std is not None, info)
    _refuse_changes(model)
    shift, scale = _scaling(mean, std, model.config.in_channels)
    norm = copy.deepcopy(model.norm)
    head: nn.Module = copy.deepcopy(model.head)
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(head, nn.Linear):
            _fill(head, *_after_norm(head, norm))
            head = FoldedHead(head, norm.eps)
        given: Any = model.stages
        stages: list[list[nn.Module]] = [
            [
                *(_downsample(stage.downsample) for _ in range(i > 0)),
                *(_block(block, matmul_dtype) for block in stage.blocks),
            ]
            for i, stage in enumerate(given)
        ]
        return Folded(model.config, _stem(model.stem, shift, scale), stages, norm, head)


def _unfolded(model: nn.Module, scaled: bool, info: Callable[[str], None]) -> nn.Module:
    if isinstance(model, Folded) and not scaled:
        return copy.deepcopy(model)
    config = getattr(model, "config", None)
    if not isinstance(config, TimmConfig | RoadmapConfig | GFNetConfig):
        raise ConvNeXtError(
            f"optimize() folds a ConvNeXt of this package, and a {type(model).__name__} was given. Make one with "
            "convnext.create() or convnext.load(...).model, and optimize before torch.compile wraps it."
        )
    if scaled:
        raise ConvNeXtError(
            f"mean and std fold into the stem of a ConvNeXt alone, not into '{config.name}'. Normalise its images."
        )
    info(f"'{config.name}' is no ConvNeXt: nothing is folded; this is its copy in evaluation mode, channels-last.")
    plain: nn.Module = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    return plain


def _refuse_changes(model: ConvNeXt) -> None:
    """Folding reads the parts as this package builds them; another part in their place would be lost in silence."""
    for name, part in model.named_modules():
        if type(part) not in _KNOWN and not name.startswith("head"):
            raise ConvNeXtError(
                f"optimize() does not know the {type(part).__name__} at '{name or 'the top'}' of this network. "
                "Merge or remove what was put in its layers first."
            )


def _scaling(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> tuple[Tensor | None, Tensor]:
    """What is subtracted from and what divides each channel, (channels,) float64."""
    given = {"mean": mean, "std": std}
    for name, values in given.items():
        if values is not None and len(values) != channels:
            raise ConvNeXtError(
                f"{name} has {len(values)} values and the network {channels} channels. Give one for each."
            )
        if values is not None and not all(math.isfinite(v) and (v > 0 or name == "mean") for v in values):
            raise ConvNeXtError(f"{name} = {tuple(values)} cannot normalise images: give finite values, std above 0.")
    shift = None if mean is None else torch.tensor(list(mean), dtype=torch.float64)
    return shift, torch.tensor([1.0] * channels if std is None else list(std), dtype=torch.float64)


def _stem(stem: Any, shift: Tensor | None, scale: Tensor) -> FoldedStem:
    layers, norm = copy.deepcopy(stem.layers), copy.deepcopy(stem.norm)
    first = layers[0]
    weight = first.weight.double() / scale.to(first.weight.device)[:, None, None]
    bias = first.bias.double()
    left = None
    if shift is not None and any(first.padding):  # zeros stand for the mean there: it must be taken off before
        left = shift[:, None, None].to(first.weight)
    elif shift is not None:
        bias = bias - (weight * shift.to(weight.device)[:, None, None]).sum((1, 2, 3))
    _fill(first, weight, bias)
    return FoldedStem(layers, norm, left)


def _downsample(downsample: Any) -> FoldedDownsample:
    conv = copy.deepcopy(downsample.conv)
    _fill(conv, *_after_norm(conv, downsample.norm))
    return FoldedDownsample(conv, downsample.norm.eps)


def _block(block: Any, matmul_dtype: torch.dtype | None) -> FoldedBlock:
    spatial, expand, project = (copy.deepcopy(part) for part in (block.spatial, block.expand, block.project))
    _fill(expand, *_after_norm(expand, block.norm))
    weight, bias = project.weight.double(), project.bias.double()
    grn = None
    if isinstance(block.grn, GlobalResponseNorm):
        grn = nn.Parameter(block.grn.weight.detach().clone())
        bias = bias + weight @ block.grn.bias.double()
    if block.gamma is not None:
        gamma = block.gamma.double()
        weight, bias = gamma[:, None] * weight, gamma * bias
    _fill(project, weight, bias)
    folded = FoldedBlock(spatial, expand, project, block.norm.eps, grn)
    folded.matmul_dtype = matmul_dtype
    return folded


def _after_norm(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, with which `layer` gives the same behind `norm` without its affine part."""
    weight = layer.weight.double()  # (out, in, ...)
    over = (slice(None), *[None] * (weight.ndim - 2))
    bias = (weight * norm.bias.double()[over]).flatten(1).sum(1)
    return weight * norm.weight.double()[over], bias if layer.bias is None else bias + layer.bias.double()


def _fill(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Set both, rounded to what `layer` holds."""
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
