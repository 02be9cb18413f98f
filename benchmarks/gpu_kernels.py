"""The steps of gpu.py that look at one kernel at a time: is it right, and how near to the GPU's limits.

Axes: N images, H W rows and columns, C channels.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from convnext.kernels import block, gpu
from convnext.kernels.gpu import reference, tuning
from convnext.kernels.gpu.checks import CHECKS, Case, bound
from gpu_timing import (
    DEVICE,
    DRY,
    HALF,
    Row,
    attempt,
    device_milliseconds,
    failed,
    frozen,
    host_microseconds,
    limits,
)

WIDTHS = {"tiny": (96, 192, 384, 768), "base": (128, 256, 512, 1024), "xlarge": (256, 512, 1024, 2048)}
DTYPES = (torch.bfloat16, torch.float32)
BATCH = 128
Work = tuple[float, float, Callable[[], Any], Callable[[], Any] | None]


def checks(name: str, args: argparse.Namespace) -> Iterator[Row]:
    """One kernel against float64 at all stages of T and XL, 224 and 384 px, and at odd sizes."""
    sizes = [(c, px >> (2 + i)) for px in (224, 384) for row in ("tiny", "xlarge") for i, c in enumerate(WIDTHS[row])]
    cases = [Case(2, c, side, side, dtype=dtype, device=DEVICE) for c, side in sizes for dtype in DTYPES]
    cases += [Case(3, *size, dtype=dtype, device=DEVICE) for size in ((40, 13, 9), (100, 31, 17)) for dtype in DTYPES]
    if DRY:
        cases = [Case(2, 20, 3, 5, kernel=3)]
    for case in cases:
        if str(case) in args.without or (name == "fp8" and gpu.unavailable_fp8(torch.empty(1, 8, 2, 2, device=DEVICE))):
            continue
        errors = attempt(str(case), lambda case=case: CHECKS[name](case))
        if failed(errors):
            yield errors | {"check": name}
            if errors["fatal"]:
                return
            continue
        allowed = bound(name, case)
        yield {"kind": "check", "what": name, "case": str(case), "errors": errors, "bound": allowed,
               "ok": max(errors.values()) <= allowed}  # fmt: skip


def kernels(model: str, args: argparse.Namespace) -> Iterator[Row]:
    """Each kernel alone at every stage: time, plain torch's time, share of the matmul rate and of the bandwidth."""
    rate, bandwidth = limits()
    yield {"kind": "limits", "what": f"kernels {model}", "tflops": rate / 1e12, "gb_per_s": bandwidth / 1e9}
    n = 1 if DRY else BATCH
    for stage, c in enumerate((8,) if DRY else WIDTHS[model]):
        side = 3 if DRY else 56 >> stage
        for name, (flops, values, ours, plain) in workload(n, c, side).items():
            what = f"{name} {n}x{side}x{side}x{c}"
            if what in args.without:
                continue
            spent = attempt(what, lambda ours=ours: device_milliseconds(ours))
            if failed(spent):
                yield spent
                if spent["fatal"]:
                    return
                continue
            floor = 1e3 * max(flops / rate, 2 * values / bandwidth)
            beside = attempt(what, lambda plain=plain: device_milliseconds(plain)) if plain else None
            yield {
                "kind": "kernel", "what": what, "model": model, "ms": spent, "host_us": host_microseconds(ours),
                "of_matrix_rate": flops / spent * 1e3 / rate,
                "of_bandwidth": 2 * values / spent * 1e3 / bandwidth, "of_limit": floor / spent,
                "plain_ms": beside if isinstance(beside, float) else None,
            }  # fmt: skip
    yield {"kind": "settings", "what": f"kernels {model}", "chosen": {str(k): v for k, v in tuning.chosen().items()}}


def workload(n: int, c: int, side: int) -> dict[str, Work]:
    """By kernel: operations in matmuls, 16-bit values moved at least, the kernel, plain torch.

    Inputs are several sets taken in turn, more than the GPU's cache holds.
    """
    from convnext.kernels.gpu import depthwise, gemm

    m, e = n * side * side, 4 * c
    sets = 1 if DRY else max(1, min(16, 2**28 // (2 * m * c)))
    case = Case(n, c, side, side, dtype=HALF, device=DEVICE)
    weights = case.weights().map(case.low)
    spatial, bias, norm, shift, expand, expand_bias, project, project_bias, gamma, *_, eps = weights
    narrow = [torch.randn(n, side, side, c, device=DEVICE, dtype=HALF) for _ in range(sets)]
    wide = torch.randn(n, side, side, e, device=DEVICE, dtype=HALF)
    rstd = torch.rand(n, side, side, device=DEVICE)
    turn = iter(range(10**12))

    def x() -> Tensor:
        return narrow[next(turn) % sets]

    def image() -> Tensor:
        return x().permute(0, 3, 1, 2)

    both = ((expand, expand_bias), (project, project_bias))
    rounded = gpu.prepare(weights)
    matrix = 2.0 * m * c * e
    found: dict[str, Work] = {
        "convolve_norm": (0, 2 * m * c, lambda: depthwise.convolve_norm(x(), spatial, bias, norm, shift, eps, dtype=HALF),
                          lambda: reference.depthwise_norm(x(), spatial, bias, norm, shift, eps)),
        "convolve_add": (0, 3 * m * c, lambda: depthwise.convolve_add(x(), spatial, x(), dtype=HALF),
                         lambda: reference.turned_convolve(x(), spatial, x())),
        "filter_gradient": (0, 2 * m * c, lambda: depthwise.filter_gradient(x(), x(), 7),
                            lambda: torch.ops.aten.convolution_backward(
                                image(), image(), spatial, [c], [1, 1], [3, 3], [1, 1], False, [0, 0], c,
                                [False, True, True])),
        "norm_backward": (0, 3 * m * c, lambda: depthwise.norm_backward(x(), x(), None, rstd, None, dtype=HALF, affine=False),
                          None),
        "linear_gelu": (matrix, m * (c + e), lambda: gemm.linear_gelu(x(), expand, expand_bias),
                        lambda: reference.linear_gelu(x(), expand, expand_bias)),
        "linear_residual": (matrix, m * (e + 2 * c),
                            lambda: gemm.linear_residual(wide, project, project_bias, gamma, None, x()),
                            lambda: reference.linear_residual(wide, project, project_bias, gamma, None, x())),
        "gelu_backward": (2 * matrix, m * (2 * c + 2 * e),
                          lambda: gemm.gelu_backward(x(), both[0], None, x(), project, None), None),
        "block": (2 * matrix, 2 * m * c, lambda: frozen(lambda: gpu.block(image(), weights)),
                  lambda: frozen(lambda: block.plain(image(), weights))),
    }  # fmt: skip
    found |= ways(c, m, x, wide, both, gamma)
    if gpu.unavailable_fp8(image()) is None:
        found["block_fp8"] = (2 * matrix, 2 * m * c, lambda: frozen(lambda: gpu.block_fp8(image(), rounded)), None)
    return found


def ways(
    c: int, m: int, x: Callable[[], Tensor], wide: Tensor, both: tuple[Any, Any], gamma: Tensor
) -> dict[str, Work]:
    """The other ways to what a kernel above computes, one of which `kernels.gpu.mlp.WON` may name once it is the faster."""
    from convnext.kernels.gpu import library, mlp

    e, (expand, project) = 4 * c, both
    matrix = 2.0 * m * c * e
    found: dict[str, Work] = {}
    if mlp.fits(c, mlp.KEPT_ON_CHIP, HALF):
        found["fused_mlp"] = (2 * matrix, 3 * m * c, lambda: mlp.fused_mlp(x(), *both, gamma, None, x()), None)
    else:
        found["linear_gelu, library"] = (matrix, m * (c + 3 * e), lambda: library.linear_gelu(x(), *expand), None)
        found["linear_residual, library"] = (
            matrix, m * (e + 4 * c), lambda: library.linear_residual(wide, *project, gamma, None, x()), None,
        )  # fmt: skip
        found["gelu_backward, library"] = (
            2 * matrix, m * (2 * c + 6 * e), lambda: library.gelu_backward(x(), expand, None, x(), project[0], None), None,
        )  # fmt: skip
    found["mlp_backward, stored"] = (
        5 * matrix, m * (5 * c + 5 * e), lambda: mlp.stored_mlp_backward(x(), expand, None, x(), project[0], None), None,
    )  # fmt: skip
    if DRY or mlp.fits(c, mlp.RECOMPUTED, HALF):
        found["mlp_backward, fused"] = (
            7 * matrix, 5 * m * c, lambda: mlp.fused_mlp_backward(x(), expand, x(), project[0], None), None,
        )  # fmt: skip
    return found
