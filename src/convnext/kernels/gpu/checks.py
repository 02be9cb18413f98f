"""Every kernel beside its reference in float64, on random numbers: how far off, and how far it may be.

An error is |answer - reference| / |reference|, both as vectors; not-a-number never passes. The inputs are rounded to the
dtype first, so that what is measured is the kernel's own. Used by the tests and by the benchmark, at their sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convnext.kernels.block import BlockWeights, plain
from convnext.kernels.gpu import reference
from convnext.kernels.gpu.available import interpreted
from convnext.kernels.gpu.fp8 import block_fp8, prepare
from convnext.kernels.gpu.operators import block, depthwise_norm

EPS = 1e-6
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # float32 without tf32
FP8_BOUND = 0.12  # of what the block adds: 3 bits of mantissa, twice
Errors = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One size: N images of C channels, H rows, W columns, a KxK filter."""

    n: int
    c: int
    h: int
    w: int
    kernel: int = 7
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    keep: bool = True  # some samples' branches are dropped, others scaled
    affine: bool = True  # the norm has scale and shift, the block layer scale

    def random(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers that the dtype can hold, as float64."""
        return (scale * torch.randn(shape, device=self.device)).to(self.dtype).double()

    def map(self, channels: int | None = None) -> Tensor:
        """(N, H, W, channels)."""
        return self.random(self.n, self.h, self.w, channels or self.c)

    def factors(self) -> Tensor | None:
        """(N,) as stochastic depth draws them."""
        if not self.keep:
            return None
        return torch.tensor([0.0, 1.25, 0.75], device=self.device).repeat(self.n)[: self.n].double()

    def weights(self) -> BlockWeights:
        """Of a V1 block."""
        c, k, e = self.c, self.kernel, 4 * self.c
        return BlockWeights(
            spatial=self.random(c, 1, k, k, scale=1 / k),
            spatial_bias=self.random(c, scale=0.1),
            norm=1 + self.random(c, scale=0.25) if self.affine else None,
            norm_bias=self.random(c, scale=0.25) if self.affine else None,
            expand=self.random(e, c, scale=c**-0.5),
            expand_bias=self.random(e, scale=0.1),
            project=self.random(c, e, scale=e**-0.5),
            project_bias=self.random(c, scale=0.1),
            gamma=self.random(c) if self.affine else None,
            eps=EPS,
        )

    def low(self, x: Tensor | None) -> Any:
        """In the kernel's dtype."""
        return None if x is None else x.to(self.dtype)

    def __str__(self) -> str:
        return f"{self.n}x{self.h}x{self.w}x{self.c} K{self.kernel} {str(self.dtype).removeprefix('torch.')}"


def off(answer: Tensor | None, wanted: Tensor) -> float:
    """|answer - wanted| / |wanted|; infinite for anything that is no number."""
    if answer is None or answer.shape != wanted.shape:
        return float("inf")
    answer, wanted = answer.detach().double(), wanted.detach()
    error = float((answer - wanted).norm() / wanted.norm().clamp(min=1e-30))
    return error if error == error else float("inf")


def check_norm(case: Case) -> Errors:
    """Depthwise convolution and LayerNorm: answer, what is kept, all gradients."""
    x = case.map().permute(0, 3, 1, 2).requires_grad_()
    wide: list[Any] = list(case.weights()[:4])
    if not case.affine:
        wide[2], wide[3] = torch.ones_like(wide[1]), torch.zeros_like(wide[1])
    given: Any = [each.requires_grad_() for each in wide]
    wanted = _call(reference.depthwise_norm, x.permute(0, 2, 3, 1), *given, EPS)
    push = torch.randn_like(wanted).to(case.dtype)
    wanted.backward(push.double())
    low: Any = [each.detach().to(case.dtype).requires_grad_() for each in (x, *given)]
    answer = _call(depthwise_norm, *low, EPS)
    answer.backward(push)
    names = ("x", "weight", "bias", "scale", "shift")
    gradients = {
        f"d {name}": off(a.grad, b.grad)
        for name, a, b in zip(names, low, (x, *given), strict=True)
        if b.grad is not None
    }
    return {"answer": off(answer, wanted), **gradients}


def check_gelu(case: Case) -> Errors:
    """The product with GELU behind it: ours, and the library's."""
    from convnext.kernels.gpu import gemm, library

    x, weight, bias = case.map(), case.random(4 * case.c, case.c, scale=case.c**-0.5), case.random(4 * case.c)
    wanted = reference.linear_gelu(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    errors: Errors = {}
    for word, run in (("ours", gemm.linear_gelu), ("library", library.linear_gelu)):
        found = run(*(each.to(case.dtype) for each in (x, weight, bias)), keep=True)
        errors |= _named(("answer", "before"), word, found, wanted)
    return errors


def check_residual(case: Case) -> Errors:
    """The product with layer scale, stochastic depth and the residual behind it, ours and the library's; and both in one."""
    from convnext.kernels.gpu import gemm, library, mlp

    x, hidden, keep = case.map(), case.map(4 * case.c), case.factors()
    expand, expand_bias, project, bias, gamma = (case.low(each) for each in _layers(case))
    residual, factor = case.map(), None if keep is None else keep.float()
    given = (case.low(hidden), project, bias, gamma, factor, case.low(residual))
    wide: Any = [None if each is None else each.double() for each in (project, bias, gamma)]
    middle = reference.linear_gelu(x, expand.double(), expand_bias.double())
    wanted = _call(reference.linear_residual, hidden, *wide, keep, residual)
    errors = {
        "project, ours": off(gemm.linear_residual(*given), wanted),
        "project, library": off(library.linear_residual(*given), wanted),
    }
    if interpreted() or mlp.fits(case.c, mlp.KEPT_ON_CHIP, case.dtype):
        both = mlp.fused_mlp(case.low(x), (expand, expand_bias), (project, bias), gamma, factor, case.low(residual))
        errors["fused"] = off(both, _call(reference.linear_residual, middle, *wide, keep, residual))
    return errors


def check_gelu_backward(case: Case) -> Errors:
    """The gradient before GELU, with the hidden layer read and computed again; ours, and the library's."""
    from convnext.kernels.gpu import gemm, library

    normal, push, keep = case.map(), case.map(), case.factors()
    expand, expand_bias, project, *_ = _layers(case)
    wanted = reference.gelu_backward(normal, (expand, expand_bias), push, project, keep)
    low = [each.to(case.dtype) for each in (normal, expand, expand_bias, push, project)]
    before = torch.nn.functional.linear(normal, expand, expand_bias).to(case.dtype)
    factor = None if keep is None else keep.float()
    errors: Errors = {}
    for whose, run in (("ours", gemm.gelu_backward), ("library", library.gelu_backward)):
        for word, kept in (("again", None), ("kept", before)):
            found = run(low[0], (low[1], low[2]), kept, low[3], low[4], factor)
            errors |= _named(("gradient", "hidden", "sum"), f"{word}, {whose}", found, wanted)
    return errors


def check_mlp_backward(case: Case) -> Errors:
    """The gradients of both products: with the hidden layer in memory, and in two kernels that compute it again."""
    from convnext.kernels.gpu import mlp

    normal, push, keep = case.map(), case.map(), case.factors()
    expand, bias, project, *_ = _layers(case)
    inner, hidden, of_bias = reference.gelu_backward(normal, (expand, bias), push, project, keep)
    inner, hidden, rows = inner.flatten(0, 2), hidden.flatten(0, 2), normal.flatten(0, 2)
    wanted = inner @ expand, inner.t() @ rows, of_bias, push.flatten(0, 2).t() @ hidden
    low = [case.low(each) for each in (normal, expand, bias, push, project)]
    factor = None if keep is None else keep.float()
    layer = low[1], low[2]
    stored = mlp.stored_mlp_backward(low[0], layer, None, low[3], low[4], factor)
    errors = _named(mlp.MlpGradients._fields, "stored", stored, wanted)
    if interpreted() or mlp.fits(case.c, mlp.RECOMPUTED, case.dtype):
        fused = mlp.fused_mlp_backward(low[0], layer, low[3], low[4], factor)
        errors |= _named(mlp.MlpGradients._fields, "fused", fused, wanted)
    return errors


def check_block(case: Case) -> Errors:
    """The whole block: inference, training, and every gradient."""
    keep = case.factors()
    x, wide = case.map().permute(0, 3, 1, 2).requires_grad_(), case.weights().map(Tensor.requires_grad_)
    wanted = plain(x, wide, keep)
    push = torch.randn_like(wanted).to(case.dtype)
    wanted.backward(push.double())

    def lowered(each: Tensor) -> Tensor:
        return each.detach().to(case.dtype).requires_grad_()

    low_x, low = lowered(x), wide.map(lowered)
    factor = None if keep is None else keep.float()
    with torch.no_grad():
        alone = block(low_x, low, factor)
    answer = block(low_x, low, factor)
    answer.backward(push)
    errors = {"inference": off(alone, wanted), "training": off(answer, wanted), "d x": off(low_x.grad, _grad(x))}
    for name, a, b in zip(low._fields, low.tensors, wide.tensors, strict=False):
        if a is not None and b is not None:
            errors[f"d {name}"] = off(a.grad, _grad(b))
    return errors


def check_fp8(case: Case) -> Errors:
    """The block with float8 matmuls: the error of what it adds to x."""
    x, wide = case.map().permute(0, 3, 1, 2), case.weights()
    added = plain(x, wide) - x
    weights = prepare(wide.map(case.low))
    with torch.no_grad():
        answer = block_fp8(x.to(case.dtype), weights)
    return {"added": off(answer.double() - x, added)}


CHECKS: dict[str, Callable[[Case], Errors]] = {
    "norm": check_norm,
    "gelu": check_gelu,
    "residual": check_residual,
    "gelu_backward": check_gelu_backward,
    "mlp_backward": check_mlp_backward,
    "block": check_block,
    "fp8": check_fp8,
}


def bound(name: str, case: Case) -> float:
    """The largest error that check `name` may find."""
    return max(FP8_BOUND, BOUNDS[case.dtype]) if name == "fp8" else BOUNDS[case.dtype]


def _named(names: tuple[str, ...], word: str, found: Any, wanted: tuple[Tensor, ...]) -> Errors:
    return {f"{name}, {word}": off(a, b) for name, a, b in zip(names, found, wanted, strict=True)}


def _grad(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def _layers(case: Case) -> list[Any]:
    """expand's and project's weight and bias, and layer scale."""
    return list(case.weights()[4:9])


def _call(run: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return run(*arguments)  # of several lists, whose lengths a type checker cannot see
