"""From a network to the graph of another runtime: traced once by torch for every form.

Axes: N images, C channels, H W rows and columns, E = 4C expanded channels, K classes.
"""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from convnext.deploy.folded import Folded, FoldedBlock, FoldedDownsample, FoldedStem
from convnext.deploy.forms.table import LOGITS
from convnext.deploy.optimize import foldable, optimize
from convnext.errors import ConvNeXtError
from convnext.models.convnext import EPS, ChannelNorm, ConvNeXt

BATCH = Dim("batch", min=1, max=2**16)


def prepared(model: nn.Module, *, convolutions: bool) -> nn.Module:
    """A copy of `model` to trace: folded where it is a ConvNeXt, on the CPU, in float32.

    `convolutions`: pointwise layers as 1x1 convolutions and norms over flat maps, which OpenVINO runs faster: all maps
    keep one layout, LayerNorm stays one operation, and int8 stays int8 from one layer to the next.
    """
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    if not isinstance(network, ConvNeXt) or not foldable(network):
        return _in_order(network)
    folded = optimize(network, info=lambda _: None)
    assert isinstance(folded, Folded)
    folded.fused = False
    if convolutions:
        stages: Any = folded.stages
        folded.stages = nn.ModuleList(nn.ModuleList(_as_convolutions(part) for part in stage) for stage in stages)
        stem: Any = folded.stem
        folded.stem = _Stem(stem)
    return _in_order(folded)


def trace(
    network: nn.Module, x: Tensor, *, free: Mapping[int, Any], size: Tensor | None = None, half: bool = False
) -> ExportedProgram:
    """The graph of `network` for inputs like `x`, whose axes `free` may have other lengths; `size`: its second input.

    `half`: the weights are kept in 16 bits and widened on their way into the computation. Raises ConvNeXtError where
    torch cannot trace it.
    """
    named = _Named(network, half) if size is None else _Sized(network, half)
    inputs, shapes = ((x,), (free,)) if size is None else ((x, size), (free, {}))
    try:
        with torch.no_grad():
            return torch.export.export(named, inputs, dynamic_shapes=tuple(map(dict, shapes)))
    except Exception as error:  # noqa: BLE001 - what torch raises for a network that it cannot trace is of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConvNeXtError(
            f"torch cannot trace this network: {reason} It may decide by the values of an image."
        ) from None


def inputs_of(program: ExportedProgram) -> list[str]:
    """The names of its inputs, in order."""
    return [name for name in program.graph_signature.user_inputs if isinstance(name, str)]


def outputs_of(program: ExportedProgram) -> list[str]:
    """The names of its outputs, in order: the keys of what the traced network gives, or logits alone."""
    spec: Any = program.call_spec.out_spec
    return list(spec.context) if spec.type is dict else [LOGITS]


def normalised(x: Tensor, norm: nn.LayerNorm | None = None, eps: float = EPS) -> Tensor:
    """(N, C, H, W) with every position normed over its channels, as one operation on (N, H W, C)."""
    height, width = x.shape[2:]
    y = x.permute(0, 2, 3, 1).flatten(1, 2)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    y = F.layer_norm(y, y.shape[-1:], weight, bias, eps if norm is None else norm.eps)
    return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class _Named(nn.Module):
    """Gives the input its name; with `half`, holds matrices and kernels in 16 bits."""

    def __init__(self, network: nn.Module, half: bool):
        super().__init__()
        self.network, self.half_weights = network, half
        if half:
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.data = parameter.data.half()

    def forward(self, images: Tensor) -> Any:  # what the network takes -> what it gives
        return self._answered(images)

    def _answered(self, *inputs: Tensor) -> Any:
        if not self.half_weights:
            return self.network(*inputs)
        named = chain(self.network.named_parameters(), self.network.named_buffers())
        wide = {name: tensor.float() if tensor.dtype is torch.float16 else tensor for name, tensor in named}
        return torch.func.functional_call(self.network, wide, inputs)


class _Sized(_Named):
    """The same with a second input."""

    def forward(self, images: Tensor, size: Tensor) -> Any:  # type: ignore[override]
        return self._answered(images, size)


class _Block(nn.Module):
    """FoldedBlock with 1x1 convolutions for its linear layers."""

    grn: Tensor | None

    def __init__(self, block: FoldedBlock):
        super().__init__()
        self.spatial, self.eps = block.spatial, block.eps
        self.expand, self.project = _pointwise(block.expand), _pointwise(block.project)
        grn: Any = block.grn
        self.register_buffer("grn", None if grn is None else grn.detach()[:, None, None])  # (E, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        y = F.gelu(self.expand(normalised(self.spatial(x), eps=self.eps)))  # (N, E, H, W)
        if self.grn is not None:
            energy = y.square().sum((2, 3), keepdim=True).sqrt()  # (N, E, 1, 1)
            y = y * (1 + self.grn * (energy / (energy.mean(1, keepdim=True) + EPS)))
        return x + self.project(y)


class _Downsample(nn.Module):
    """FoldedDownsample with its norm as one operation."""

    def __init__(self, downsample: FoldedDownsample):
        super().__init__()
        self.conv, self.eps = downsample.conv, downsample.eps

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2C, H // 2, W // 2)
        short = (x.shape[-2] < 2, x.shape[-1] < 2)  # decided by the size that is traced
        if any(short):
            x = F.pad(x, (0, int(short[1]), 0, int(short[0])), mode="replicate")
        return self.conv(normalised(x, eps=self.eps))


class _Stem(nn.Module):
    """FoldedStem with its norms as one operation each."""

    def __init__(self, stem: FoldedStem):
        super().__init__()
        self.parts = nn.ModuleList([*stem.layers, stem.norm])

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C0, H / patch, ...)
        for part in self.parts:
            x = normalised(x, part) if isinstance(part, ChannelNorm) else part(x)
        return x


def _in_order(network: nn.Module) -> nn.Module:
    """`network` with plain memory for its weights, which files are written from."""
    for parameter in network.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return network


def _as_convolutions(part: nn.Module) -> nn.Module:
    return _Block(part) if isinstance(part, FoldedBlock) else _Downsample(part)  # type: ignore[arg-type]


def _pointwise(linear: nn.Linear) -> nn.Conv2d:
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv
