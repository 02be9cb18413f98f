"""Every launch that a block makes at one size, noted instead of run: what gpu_search.py and gpu_compile.py begin with."""

from typing import Any

import torch

from convnext.kernels.gpu import depthwise, gemm, library, mlp
from convnext.kernels.gpu.checks import Case
from convnext.kernels.gpu.fp8 import FP8, prepare
from convnext.kernels.gpu.operators import RECOMPUTED
from convnext.kernels.gpu.tuning import Launch, noted


def launches(case: Case) -> dict[str, Launch]:
    """By what is computed, the kernels of a block in `case`'s dtype: inference, then training under autocast.

    Training reads and writes the residual in float32, as autocast leaves it. `case.device` may be 'meta'.
    """
    w = case.weights().map(case.low)
    wide_map = (case.n, case.h, case.w, 4 * case.c)
    x, hidden = case.low(case.map()), torch.empty(wide_map, dtype=case.dtype, device=case.device)
    full, keep = x.float(), torch.ones(case.n, device=case.device)
    rstd = torch.ones(wide_map[:3], device=case.device)
    expand, project = (w.expand, w.expand_bias), (w.project, w.project_bias)
    found: dict[str, Launch] = {}

    def note(what: str, run: Any, *given: Any, **options: Any) -> None:
        with noted() as made:
            run(*given, **options)
        found.update(zip(what.split("; "), made, strict=True))

    fused = case.c <= mlp.KEPT_ON_CHIP and case.dtype != torch.float32
    note("norm", depthwise.convolve_norm, x, *w[:4], w.eps, dtype=case.dtype)
    note("gelu", gemm.linear_gelu, x, *expand)
    note("residual", gemm.linear_residual, hidden, *project, w.gamma, None, x)
    if fused:
        note("mlp", mlp.fused_mlp, x, expand, project, w.gamma, None, x)
    plain = (full, w.spatial, w.spatial_bias, None, None, w.eps)
    note("norm, training", depthwise.convolve_norm, *plain, dtype=case.dtype, keep_stats=True)
    if case.c > RECOMPUTED:
        note("gelu, training", gemm.linear_gelu, x, *expand, keep=True)
    note("residual, training", gemm.linear_residual, hidden, *project, w.gamma, keep, full)
    if fused:
        note("mlp, training", mlp.fused_mlp, x, expand, project, w.gamma, keep, full)
    before = None if case.c <= RECOMPUTED else hidden
    note("gelu, backward", gemm.gelu_backward, x, expand, before, x, w.project, keep)
    if case.c <= mlp.RECOMPUTED and case.dtype != torch.float32:
        both = "mlp input, backward; mlp weights, backward"
        note(both, mlp.fused_mlp_backward, x, expand, x, w.project, keep)
    if case.c > mlp.KEPT_ON_CHIP:
        note("gelu, library", library.linear_gelu, x, *expand)
        note("residual, library", library.linear_residual, hidden, *project, w.gamma, keep, full)
        note("gelu, backward, library", library.gelu_backward, x, expand, before, x, w.project, keep)
    note("norm, backward", depthwise.norm_backward, x, x, None, rstd, None, dtype=case.dtype, affine=False)
    note("input, backward", depthwise.convolve_add, x, w.spatial, full, dtype=torch.float32)
    note("filter, backward", depthwise.filter_gradient, full, x, case.kernel)
    return found


def fp8_launches(case: Case) -> dict[str, Launch]:
    """The kernels of `block_fp8`."""
    weights, x = prepare(case.weights().map(case.low)), case.low(case.map())
    rounded, scales = x.to(FP8), torch.ones(x.shape[:3], device=case.device)
    hidden = torch.empty((*x.shape[:3], 4 * case.c), dtype=FP8, device=case.device)
    pieces = torch.ones((*x.shape[:3], -(-4 * case.c // gemm.RUN)), device=case.device)
    with noted() as made:
        depthwise.convolve_norm(x, weights.spatial, weights.spatial_bias, None, None, weights.eps, dtype=FP8)
        gemm.scaled_gelu(rounded, scales, weights.expand, weights.expand_quanta, weights.expand_bias)
        gemm.scaled_residual(
            hidden, pieces, weights.project, weights.project_quanta, weights.project_bias, weights.gamma, x
        )
    return dict(zip(("norm, float8", "gelu, float8", "residual, float8"), made, strict=True))
