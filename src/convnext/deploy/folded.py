"""A ConvNeXt for inference alone, as `optimize` leaves it: plain torch operations, or the fused ones of `kernels`.

Those of the CPU answer eager float32 calls without gradients; compiling, exporting, tracing and autocast see plain torch.
On a GPU Triton's answer, where they were asked for (see kernels/choice.py) when the network was made there.
Axes: N images, C channels, H W feature rows and columns, E = 4C expanded channels, K classes. Maps are (N, C, H, W) in
channels-last memory throughout, so that the view with the channels at the end costs nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig
from convnext.kernels import choice, cpu
from convnext.models.convnext import EPS
from convnext.models.fused import fits_card

Kernels = Literal["", "cpu", "card"]


class Folded(nn.Module):
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
        self.folded_head = isinstance(
            head, nn.Linear
        )  # it brings the affine part of `norm`; a head of one's own does not
        self.fused = True
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        pooled = self._pooled(x)
        if self.folded_head:
            return self.head(F.layer_norm(pooled, self.norm.normalized_shape, eps=self.norm.eps))
        return self.head(self.norm(pooled))

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head of the source sees: the last stage, averaged over space and normed."""
        return self.norm(self._pooled(x))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name: {'stage0': (N, C0, H/patch, W/patch), 'stage1': (N, C1, H/2patch, ...), ...}."""
        return {f"stage{i}": each for i, each in enumerate(self._stages(x))}

    def _pooled(self, x: Tensor) -> Tensor:
        for last in self._stages(x):
            x = last
        return x.mean((2, 3))

    def _stages(self, x: Tensor) -> Iterator[Tensor]:
        if not x.is_floating_point():
            x = x.to(self.norm.weight.dtype)
        fused = path(x) if self.fused else ""
        x = self.stem(x, fused)
        for stage in self.stages:
            for part in stage:  # type: ignore[attr-defined]
                x = part(x, fused)
            yield x

    def extra_repr(self) -> str:
        return f"fused={self.fused}"


def path(x: Tensor) -> Kernels:
    """Whose kernels may answer `x`: those of the CPU, those of a GPU for the blocks that were made for one, or nobody's."""
    return "card" if choice.on_card(x.device) else "cpu" if fits(x) else ""


def fits(x: Tensor) -> bool:
    """Whether the CPU kernels may answer `x`: plain float32 in this machine's memory, and nobody records what happens."""
    return (
        type(x) is Tensor
        and x.dtype is torch.float32
        and x.device.type == "cpu"
        and not (torch.compiler.is_compiling() or torch._C._get_tracing_state() or torch.is_autocast_enabled("cpu"))
        and not (x.requires_grad and torch.is_grad_enabled())
        and not cpu.unavailable()
    )


class _Packing(nn.Module):
    """A part with a fused form, which is made of its tensors at the first call and again when they have changed."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: tuple[tuple[int, ...], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # copies and files hold the tensors once

    def _pack(self, make: Callable[[], Any], *parts: nn.Module | nn.Parameter | None) -> Any | None:
        """The fused form, or None where a layer or its numbers are no longer the plain float32 ones."""
        key: list[int] = []
        for part in parts:
            if isinstance(part, nn.Module) and type(part) not in (nn.Conv2d, nn.Linear):
                return None
            weight = part.weight if isinstance(part, nn.Module) else part
            if weight is None:
                continue
            if type(weight) is not nn.Parameter:
                return None
            key += [weight.data_ptr(), 0 if weight.is_inference() else weight._version, weight.dtype is torch.float32]
        if not all(key[2::3]):
            return None
        if self._packed is None or self._packed[0] != tuple(key):
            self._packed = tuple(key), make()
        return self._packed[1]


class FoldedBlock(_Packing):
    """x + project(response(gelu(expand(normalise(spatial(x)))))); `response` is V2's, its bias inside `project`."""

    spatial: Any
    response: nn.Parameter | None

    def __init__(
        self, spatial: nn.Conv2d, expand: nn.Linear, project: nn.Linear, eps: float, response: nn.Parameter | None
    ):
        super().__init__()
        self.spatial, self.expand, self.project, self.eps = spatial, expand, project, eps
        self.register_parameter("response", response)  # (E,) weights of the response normalisation
        # asked for, and there; V2's normalisation wants the whole picture's activations at once
        self.triton = response is None and choice.without_triton(spatial.weight.device) is None

    def forward(self, x: Tensor, fused: Kernels = "") -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if fused == "card" and self.triton and fits_card(self, x):
            from convnext.kernels import gpu

            layers = (self.expand.weight, self.expand.bias, self.project.weight, self.project.bias)
            return gpu.block(x, self.spatial.weight, self.spatial.bias, None, None, self.eps, *layers)
        parts = (self.spatial, self.expand, self.project, self.response)
        packed = self._pack(self._fused, *parts) if fused == "cpu" else None
        if packed is not None:
            return packed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.spatial(x).permute(0, 2, 3, 1)  # (N, H, W, C)
        y = F.gelu(self.expand(F.layer_norm(y, y.shape[-1:], eps=self.eps)))  # (N, H, W, E)
        if self.response is not None:
            energy = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)  # (N, 1, 1, E)
            y = y * (1 + self.response * (energy / (energy.mean(-1, keepdim=True) + EPS)))
        return x + self.project(y).permute(0, 3, 1, 2)

    def _fused(self) -> Any:
        spatial, expand, project = self.spatial, self.expand, self.project
        tensors = (spatial.weight[:, 0], spatial.bias, expand.weight, expand.bias, project.weight, project.bias)
        return cpu.PackedBlock(*tensors, self.eps, self.response)


class FoldedHalving(_Packing):
    """conv(normalise(x)): the halving layer between stages."""

    conv: Any

    def __init__(self, conv: nn.Conv2d, eps: float):
        super().__init__()
        self.conv, self.eps = conv, eps

    def forward(self, x: Tensor, fused: Kernels = "") -> Tensor:  # (N, C, H, W) -> (N, 2C, H // 2, W // 2)
        packed = self._pack(self._fused, self.conv) if fused == "cpu" else None
        if packed is not None:
            return packed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        short = (x.shape[-2] < 2, x.shape[-1] < 2)  # a map of one row or column cannot be halved: repeat it
        if any(short):
            x = F.pad(x, (0, int(short[1]), 0, int(short[0])), mode="replicate")
        y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=self.eps)
        return self.conv(y.permute(0, 3, 1, 2))

    def _fused(self) -> Any:
        return cpu.PackedPatch(self.conv.weight, self.conv.bias, True, self.eps)


class FoldedStem(_Packing):
    """The layers of a stem and its norm; where a padded convolution comes first, minus the mean before its zeros."""

    layers: Any
    norm: Any
    shift: Tensor | None

    def __init__(self, layers: nn.Sequential, norm: nn.Module, shift: Tensor | None):
        super().__init__()
        self.layers, self.norm = layers, norm
        self.register_buffer("shift", shift)  # (in_channels, 1, 1)

    def forward(self, x: Tensor, fused: Kernels = "") -> Tensor:  # (N, in_channels, H, W) -> (N, C0, H / patch, ...)
        packed = self._pack(self._fused, self.layers[0]) if fused == "cpu" and not any(self.layers[0].padding) else None
        if packed is not None and min(x.shape[2:]) >= packed.patch:
            return packed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.norm(self.layers(x if self.shift is None else x - self.shift))

    def _fused(self) -> Any:
        conv, norm = self.layers[0], self.norm
        if isinstance(norm, nn.Identity):
            return cpu.PackedPatch(conv.weight, conv.bias)
        return cpu.PackedPatch(conv.weight, conv.bias, False, norm.eps, (norm.weight, norm.bias))
