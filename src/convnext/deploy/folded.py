"""A ConvNeXt for inference alone, as `optimize` leaves it: plain torch operations, or the fused ones of `kernels`.

Those of the CPU answer eager calls without gradients in float32 and bfloat16; compiling, exporting, tracing and autocast see
plain torch. On a GPU Triton's answer, where they were asked for (see kernels/dispatch.py) when the network came there.
Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K classes. Maps are (N, C, H, W) in
channels-last memory throughout, so that the view with the channels at the end costs nothing.
"""

import contextlib
import ctypes
import sys
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig
from convnext.deploy.compiled import Compiled
from convnext.kernels import cpu, dispatch
from convnext.kernels.block import BlockWeights
from convnext.models.convnext import EPS
from convnext.models.network import Network


class Folded(Network):
    """Stem, stages, mean over space and head of one ConvNeXt, nothing of it trainable.

    Takes (N, in_channels, H, W), float or the uint8 that pixels come in, and returns what the network it was made of
    returns. `fused = False` keeps it to plain torch.
    """

    def __init__(
        self,
        config: ConvNeXtConfig,
        stem: nn.Module,
        stages: list[list[nn.Module]],
        norm: nn.LayerNorm,
        head: nn.Module,
    ):
        super().__init__()
        self.config = config
        self.stem = stem
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        self.norm = norm  # as in the source: `embed` answers with it
        self.head = head
        self.fused = True
        self._ends = list(
            accumulate(len(stage) for stage in stages)
        )  # places of the stages' last parts; the stem's is 0
        self._compiled: Compiled | None = None
        self._allowed = dispatch.allowed(norm.weight.device)  # again when the network is moved
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        if not isinstance(self.head, FoldedHead):
            return self.head(self.embed(x))
        (logits,) = self._answers(x, [self._ends[-1] + 1])
        return logits.flatten(1)

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head of the source sees: the last stage, averaged over space and normed."""
        (last,) = self._answers(x, self._ends[-1:])
        return self.norm(last.mean((2, 3)))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name: {'stage0': (N, C0, H/patch, W/patch), 'stage1': (N, C1, H/2patch, ...), ...}."""
        return {f"stage{i}": each for i, each in enumerate(self._answers(x, self._ends))}

    def release(self) -> bool:
        """Pack all parts for the compiled kernels, and let go also of weights that the packed ones round.

        Without it only matrices are let go of that can be made again, at the first answer: see `models.away`. Afterwards what
        needs the others raises a ConvNeXtError. False where no part is for those kernels; nothing has changed then.
        """
        dtype, device = self.norm.weight.dtype, self.norm.weight.device
        if device.type != "cpu" or not self._allowed.compiled or dtype not in dispatch.compiled_dtypes():
            return False
        self._pack(rounded=True)
        return self._compiled is not None and self._compiled.any

    def _pack(self, *, rounded: bool = False) -> Compiled:
        """For the compiled kernels. The first time the plain matrices go, afterwards somebody has asked for them."""
        first = self._compiled is None
        made = Compiled(self._parts(), [self, *self.stages], once=first, rounded=rounded)
        self._compiled = made
        if first:
            _give_back()
        return made

    def _answers(self, x: Tensor, wanted: list[int]) -> list[Tensor]:
        """What the parts at these rising places make of x."""
        if not x.is_floating_point():
            x = x.to(self.norm.weight.dtype)
        dtype, fused = self.norm.weight.dtype, self.fused
        if fused and dispatch.fits_folded(x, self.config.patch, dtype, self._allowed):
            compiled = self._compiled
            return (compiled if compiled is not None and compiled.current() else self._pack())(x, wanted)
        found = []
        for place, part in enumerate(self._parts()[: wanted[-1] + 1]):
            x = part.on_triton(x) if fused and self._takes_triton(part, x) else part(x)
            found += [x] * (place in wanted)
        return found

    def _takes_triton(self, part: nn.Module, x: Tensor) -> bool:
        """Whether Triton's kernels compute this part: V2's normalization wants the whole image's activations at once."""
        if not dispatch.on_gpu(x.device) or not isinstance(part, FoldedBlock) or part.grn is not None:
            return False
        return not (part._forward_hooks or part._forward_pre_hooks) and dispatch.fits_triton(part, x, self._allowed)

    def _apply(self, *given: Any, **named: Any) -> Any:
        list(self.parameters())  # one that cannot be made again refuses now, and not when half of the network has moved
        moved = super()._apply(*given, **named)
        self._allowed = dispatch.allowed(self.norm.weight.device)
        return moved

    def _parts(self) -> list[Any]:
        stages: Any = self.stages
        parts = [self.stem, *(part for stage in stages for part in stage)]
        return [*parts, self.head] if isinstance(self.head, FoldedHead) else parts

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": None}  # copies and files hold the tensors once

    def extra_repr(self) -> str:
        return f"fused={self.fused}"


def _give_back() -> None:
    """Let the system have what was freed between values that stay, where its allocator can: glibc keeps it otherwise."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _are(kinds: list[type], *layers: nn.Module) -> bool:
    """Whether the layers are of exactly these kinds: a subclass may compute something else."""
    return [type(layer) for layer in layers] == kinds


class FoldedBlock(nn.Module):
    """x + project(grn(gelu(expand(normalise(spatial(x)))))); `grn` is V2's, its bias inside `project`."""

    spatial: Any
    grn: nn.Parameter | None

    def __init__(self, spatial: nn.Conv2d, expand: nn.Linear, project: nn.Linear, eps: float, grn: nn.Parameter | None):
        super().__init__()
        self.spatial, self.expand, self.project, self.eps = spatial, expand, project, eps
        self.register_parameter("grn", grn)  # (E,) weights of the global response normalisation
        self.matmul_dtype: torch.dtype | None = None  # of the compiled kernels' matmuls, where faster; None: their own

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        y = self.spatial(x).permute(0, 2, 3, 1)  # (N, H, W, C)
        y = F.gelu(self.expand(F.layer_norm(y, y.shape[-1:], eps=self.eps)))  # (N, H, W, E)
        if self.grn is not None:
            energy = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)  # (N, 1, 1, E)
            y = y * (1 + self.grn * (energy / (energy.mean(-1, keepdim=True) + EPS)))
        return x + self.project(y).permute(0, 3, 1, 2)

    def on_triton(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        """`forward` by Triton's kernels, where they fit."""
        from convnext.kernels import gpu  # brings torch's compiler: only for those who asked

        return gpu.block(x, self.weights())

    def weights(self, matmuls: torch.dtype | None = None) -> BlockWeights:
        """Its parameters as the kernels take them; `matmuls`: the dtype of the two matrices, if another."""
        spatial, expand, project = self.spatial, self.expand, self.project
        matrices = [layer.weight if matmuls is None else layer.weight.to(matmuls) for layer in (expand, project)]
        parts = spatial.weight, spatial.bias, None, None, matrices[0], expand.bias, matrices[1], project.bias
        return BlockWeights(*parts, grn=self.grn, eps=self.eps)

    def matrices(self) -> dict[nn.Module, dict[str, str]]:
        """Of its layers the parameters that a packed part has too, and by which name."""
        return {self.expand: {"weight": "expand"}, self.project: {"weight": "project"}}

    def packed(self) -> cpu.PackedBlock | None:
        """For the compiled kernels; None where a layer is not the one that was built."""
        if not _are([nn.Conv2d, nn.Linear, nn.Linear], self.spatial, self.expand, self.project):
            return None
        lower = self.matmul_dtype is not None and cpu.bf16_matmuls()
        return cpu.PackedBlock(self.weights(self.matmul_dtype if lower else None))


class FoldedDownsample(nn.Module):
    """conv(normalise(x)): the downsampling layer between stages."""

    conv: Any

    def __init__(self, conv: nn.Conv2d, eps: float):
        super().__init__()
        self.conv, self.eps = conv, eps
        self.matmul_dtype: torch.dtype | None = None  # as of a block

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2C, H // 2, W // 2)
        short = (x.shape[-2] < 2, x.shape[-1] < 2)  # a map of one row or column cannot be halved: repeat it
        if any(short):
            x = F.pad(x, (0, int(short[1]), 0, int(short[0])), mode="replicate")
        y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=self.eps)
        return self.conv(y.permute(0, 3, 1, 2))

    def matrices(self) -> dict[nn.Module, dict[str, str]]:
        """As of a block."""
        return {self.conv: {"weight": "weight"}}

    def packed(self) -> cpu.PackedPatch | None:
        """For the compiled kernels; None where the convolution is not the one that was built, or sees more than patches."""
        if not _are([nn.Conv2d], self.conv) or any(self.conv.padding):
            return None
        lower = self.matmul_dtype is not None and cpu.bf16_matmuls()
        weight = self.conv.weight.to(self.matmul_dtype) if lower else self.conv.weight
        return cpu.PackedPatch(weight, self.conv.bias, True, self.eps)


class FoldedStem(nn.Module):
    """The layers of a stem and its norm; where a padded convolution comes first, minus the mean before its zeros."""

    layers: Any
    norm: Any
    shift: Tensor | None

    def __init__(self, layers: nn.Sequential, norm: nn.Module, shift: Tensor | None):
        super().__init__()
        self.layers, self.norm = layers, norm
        self.register_buffer("shift", shift)  # (in_channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C0, H / patch, ...)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.norm(self.layers(x if self.shift is None else x - self.shift))

    def matrices(self) -> dict[nn.Module, dict[str, str]]:
        """None: they are small, and a stem of several layers mixes them with its shift."""
        return {}

    def packed(self) -> cpu.PackedPatch | cpu.PackedStem | None:
        """For the compiled kernels; None where it is more than convolutions, norms and GELUs as they were built."""
        conv, norm = self.layers[0], self.norm
        if any(conv.padding):
            return self._packed_overlapping()
        if not _are([nn.Conv2d], *self.layers):
            return None
        if isinstance(norm, nn.Identity):
            return cpu.PackedPatch(conv.weight, conv.bias)
        return cpu.PackedPatch(conv.weight, conv.bias, False, norm.eps, (norm.weight, norm.bias))

    def _packed_overlapping(self) -> cpu.PackedStem | None:
        """Each convolution with the norm and the GELU behind it, where there are such."""
        waiting: list[Any] = [*self.layers, self.norm]
        found: list[cpu.StemLayer] = []
        while waiting:
            conv = waiting.pop(0)
            if isinstance(conv, nn.Identity) and found:
                continue
            if not _are([nn.Conv2d], conv) or conv.padding_mode != "zeros" or conv.groups > 1 or not all(conv.padding):
                return None
            norm = waiting.pop(0) if waiting and isinstance(waiting[0], nn.LayerNorm) else None
            gelu = bool(waiting) and type(waiting[0]) is nn.GELU and waiting[0].approximate == "none"
            del waiting[: int(gelu)]
            after = None if norm is None else (norm.weight, norm.bias)
            found.append(
                cpu.StemLayer(
                    conv.weight,
                    conv.bias,
                    stride=conv.stride[0],
                    padding=conv.padding[0],
                    norm=after,
                    eps=0.0 if norm is None else norm.eps,
                    gelu=gelu,
                    shift=None if found else self.shift,
                )
            )
        return cpu.PackedStem(found)


class FoldedHead(nn.Module):
    """linear(normalise(mean over space)), the affine part of the norm inside `linear`."""

    def __init__(self, linear: nn.Linear, eps: float):
        super().__init__()
        self.linear, self.eps = linear, eps

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        pooled = x.mean((2, 3))
        return self.linear(F.layer_norm(pooled, pooled.shape[-1:], eps=self.eps))

    def matrices(self) -> dict[nn.Module, dict[str, str]]:
        """As of a block."""
        return {self.linear: {"weight": "weight"}}

    def packed(self) -> cpu.PackedHead | None:
        """For the compiled kernels; None where the layer is not the one that was built."""
        if not _are([nn.Linear], self.linear):
            return None
        return cpu.PackedHead(self.linear.weight, self.linear.bias, self.eps)
