"""Norms of the heads by name, one rule for the groups of GroupNorm, and the heads' unit: 3x3 convolution, norm, ReLU.

Axes: N images, I inputs, O outputs, H W rows and columns of a map.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from convnext.kernels import cpu, dispatch

GROUPS = 32  # of GroupNorm, arXiv 1803.08494; fewer where the channels are no multiple


LARGEST = 2**20  # pairs of channels whose matrices are packed: 151 MB of them


class Convolution(nn.Conv2d):
    """A 3x3 convolution that keeps the size; on the compiled kernels of the CPU where `accelerate` has allowed it."""

    def __init__(self, width_in: int, width: int, *, bias: bool = True):
        super().__init__(width_in, width, 3, padding=1, bias=bias)
        self.allowed: dispatch.Allowed | None = None  # None: never
        self._packed: tuple[Any, cpu.PackedConvolution] | None = None  # and what it was packed of

    def forward(self, x: Tensor) -> Tensor:  # (N, I, H, W) -> (N, O, H, W)
        if self.fits(x):
            return self.packed(None, relu=False)(x)
        if self._packed is not None and torch.is_grad_enabled():
            self._packed = None  # it may learn from this, and fused optimizers change weights without counting it
        return super().forward(x)

    def fits(self, x: Tensor) -> bool:
        """Whether the kernels convolve this map.

        They do where their tiles have fewer multiplications than the plain sum, whatever the number of images, so that an
        image's answer does not depend on those beside it. The widest convolutions stay with torch: they look at the
        smallest maps (pyramid pooling), and four times their weights would be most of the memory.
        """
        return (
            self.allowed is not None
            and dispatch.fits_convolution(x, self.weight, self.allowed)
            and cpu.fewer_multiplications(x.shape[-2], x.shape[-1])
            and self.in_channels * self.out_channels <= LARGEST
        )

    def packed(self, norm: Any, *, relu: bool) -> cpu.PackedConvolution:
        """For the kernels, with a batch norm's fixed statistics folded in; anew where anything of it has changed."""
        tensors = [*self.parameters(), *(() if norm is None else (*norm.parameters(), *norm.buffers()))]
        state = [relu, *((id(each), each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors)]
        if self._packed is None or self._packed[0] != state:
            with torch.no_grad():
                self._packed = state, cpu.PackedConvolution(*self._folded(norm), relu=relu)
        return self._packed[1]

    def _folded(self, norm: Any) -> tuple[Tensor, Tensor | None]:
        if norm is None:
            return self.weight, self.bias
        scale = (norm.running_var.double() + norm.eps).rsqrt() * norm.weight.double()
        bias = 0 if self.bias is None else self.bias.double()
        shift = norm.bias.double() + scale * (bias - norm.running_mean.double())
        return self.weight.double() * scale[:, None, None, None], shift

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # copies and files hold the weights once


class Unit(nn.Sequential):
    """3x3 convolution, norm or none, ReLU, under the names 'conv', 'norm' and 'relu'."""

    def forward(self, x: Tensor) -> Tensor:  # (N, I, H, W) -> (N, O, H, W)
        conv, *rest = self
        return convolved(x, conv, rest[0] if len(rest) > 1 else None, rest[-1])


def convolved(x: Tensor, conv: nn.Module, norm: nn.Module | None, relu: nn.Module) -> Tensor:
    """relu(norm(conv(x))), (N, I, H, W) -> (N, O, H, W): on the kernels in one pass, where they take it all."""
    fixed = norm is None or isinstance(norm, nn.Identity) or _fixed(norm)
    if fixed and isinstance(conv, Convolution) and conv.fits(x) and not _hooked(conv, norm, relu):
        return conv.packed(norm if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) else None, relu=True)(x)
    x = conv(x)
    answer: Tensor = relu(x if norm is None else norm(x))
    return answer


def accelerate(model: nn.Module) -> int:
    """Let the 3x3 convolutions of a model's heads answer on the compiled kernels from now on; returns how many.

    It holds without gradients, in float32, on the CPU; elsewhere, and where there are no kernels, they answer as always.
    Names and state dict stay what they are.
    """
    found = [module for module in model.modules() if isinstance(module, Convolution)]
    for each in found:
        each.allowed = dispatch.allowed(each.weight.device)
    return len(found)


def _fixed(norm: nn.Module) -> bool:
    """Whether it is a batch norm that answers by its statistics."""
    known = isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) and norm.running_mean is not None and norm.affine
    return known and not norm.training


def _hooked(*modules: nn.Module | None) -> bool:
    return any(each is not None and (each._forward_hooks or each._forward_pre_hooks) for each in modules)


def convolution(width_in: int, width: int, norm: str = "none") -> Unit:
    """(N, width_in, H, W) -> (N, width, H, W).

    `norm` 'batch' has statistics of a process's own batch, 'sync' those of all processes (the same with one, and GPUs
    only with more), 'group' those of each sample; 'none' has a bias instead.
    """
    conv = Convolution(width_in, width, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm != "none":
        layers["norm"] = norm_layer(norm, width)
    layers["relu"] = nn.ReLU()
    return Unit(layers)


class GroupNorm(nn.GroupNorm):
    """torch's, whatever the memory format: with the channels last, its CPU kernel is ten times slower on small maps."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return super().forward(x.contiguous())


def norm_layer(name: str, width: int, *, least: int = 1) -> nn.Module:
    """'batch', 'sync' (of all processes; on GPUs), 'group' (of one image, so any batch will do) or 'none'.

    'group' has 32 groups, fewer where they do not divide the channels or would have less than `least` each.
    """
    if name == "group":
        return GroupNorm(math.gcd(GROUPS, max(1, width // least)), width)
    return {"batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm}[name](width) if name != "none" else nn.Identity()
