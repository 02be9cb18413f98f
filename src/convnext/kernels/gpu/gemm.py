"""Launches of single matrix products: tensors (..., C) or (..., E = 4C), contiguous and of one dtype; rows are positions."""

from functools import cache

import torch
from torch import Tensor

from convnext.kernels.gpu import triton_gemm as kernels
from convnext.kernels.gpu import triton_mlp as wide_kernels
from convnext.kernels.gpu.available import precision
from convnext.kernels.gpu.depthwise import power
from convnext.kernels.gpu.tuning import Setting, launch, size_class

Recorded = tuple[tuple[int, tuple[int, ...]], ...]  # (channels up to which, tile sizes)
RUN = 128  # hidden channels that share a float8 scale
GROUP = 8  # rows of tiles that are done before the next column
MOST = 2**31
# Fastest in a wide search on an H100 (benchmarks/gpu_search.py): by the channels that are summed over, up to a bound.
# block_m, block_n, block_k, warps, stages
GELU_TILES = ((96, (64, 128, 32, 4, 4)), (MOST, (128, 128, 64, 8, 3)))
RESIDUAL_TILES = ((384, (128, 128, 64, 4, 3)), (1024, (128, 64, 64, 4, 3)), (MOST, (64, 128, 64, 4, 3)))
# For a float32 residual beside bf16 products, in training. Not timed yet: the fastest of the search that keeps it in registers
FULL_RESIDUAL_TILES = ((384, (128, 128, 64, 8, 4)), *RESIDUAL_TILES[1:])
BACKWARD_TILES = ((96, (64, 64, 32, 4, 4)), (512, (64, 64, 64, 4, 4)), (MOST, (64, 128, 64, 4, 4)))
# What else a GPU may run or prefer, and what small shapes need
OTHER_TILES = ((128, 128, 64, 8, 3), (128, 128, 32, 4, 4), (128, 64, 64, 4, 3), (64, 64, 64, 4, 3), (16, 64, 128, 4, 4))
FULL_TILES = ((64, 64, 32, 4, 3), (128, 64, 32, 4, 3), (64, 128, 32, 8, 3), (32, 32, 32, 4, 3))  # float32


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
    """gelu(x @ weight.T + bias), and what stood before GELU where `keep`. x (..., C), weight (E, C), bias (E,)."""
    (wide, inner), positions = weight.shape, x.numel() // x.shape[-1]
    answer = torch.empty((*x.shape[:-1], wide), dtype=x.dtype, device=x.device)
    before = torch.empty_like(answer) if keep else None
    arguments = {
        "x": x, "weight": weight, "bias": bias, "answer": answer, "before": before, "positions": positions,
        "wide": wide, "inner": inner, "group": GROUP, "keep": keep, "fast": x.dtype != torch.float32,
        "precision": precision(x.dtype),
    }  # fmt: skip
    key = (size_class(positions), wide, inner, keep, x.dtype, arguments["precision"])
    settings = _settings(x.dtype, wide, inner, GELU_TILES)
    launch(kernels.linear_gelu, _tiles_of(positions, wide), settings, key, x, arguments)
    return answer, before


def linear_residual(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """residual + keep * gamma * (x @ weight.T + bias), in the dtype of `residual` (N, H, W, C).

    x (N, H, W, E), weight (C, E), bias and gamma (C,), keep (N,) float32: one factor a sample.
    """
    (wide, inner), positions = weight.shape, x.numel() // x.shape[-1]
    answer = torch.empty_like(residual)
    arguments = {
        "x": x, "weight": weight, "bias": bias, "gamma": gamma, "kept": keep, "residual": residual, "answer": answer,
        "positions": positions, "wide": wide, "inner": inner, "area": positions // x.shape[0], "group": GROUP,
        "scaled": gamma is not None, "drops": keep is not None, "precision": precision(x.dtype),
    }  # fmt: skip
    key = (size_class(positions), wide, inner, x.dtype, residual.dtype, arguments["precision"])
    recorded = RESIDUAL_TILES if residual.dtype == x.dtype else FULL_RESIDUAL_TILES
    settings = _settings(x.dtype, wide, inner, recorded)
    launch(kernels.linear_residual, _tiles_of(positions, wide), settings, key, x, arguments)
    return answer


def gelu_backward(
    normal: Tensor,
    expand: tuple[Tensor, Tensor],
    before: Tensor | None,
    gradient: Tensor,
    project: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient before GELU, keep * gelu(before), the first one's sum over positions as (E,) float32).

    normal and gradient (N, H, W, C), expand as ((E, C), (E,)), project (C, E) with layer scale in it; `before` is
    computed again where it is None.
    """
    inner, wide = project.shape
    positions = gradient.numel() // inner
    answer = torch.empty((*gradient.shape[:-1], wide), dtype=gradient.dtype, device=gradient.device)
    hidden = torch.empty_like(answer)
    settings = _settings(gradient.dtype, wide, inner, BACKWARD_TILES)
    least = min(each["block_m"] for each in settings)
    sums = torch.empty((-(-positions // least), wide), device=gradient.device)
    arguments = {
        "normal": normal, "expand": expand[0], "bias": expand[1], "before": before, "gradient": gradient,
        "project": project, "kept": keep, "answer": answer, "hidden": hidden, "sums": sums, "positions": positions,
        "wide": wide, "inner": inner, "area": positions // gradient.shape[0], "group": GROUP, "again": before is None,
        "drops": keep is not None, "fast": gradient.dtype != torch.float32, "precision": precision(gradient.dtype),
    }  # fmt: skip
    key = (size_class(positions), wide, inner, before is None, gradient.dtype, arguments["precision"])
    taken = launch(kernels.gelu_backward, _tiles_of(positions, wide), settings, key, gradient, arguments)
    return answer, hidden, sums[: -(-positions // taken["block_m"])].sum(0)


def scaled_gelu(
    x: Tensor, quanta: Tensor, weight: Tensor, weight_quanta: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """float8 gelu(x @ weight.T + bias) and its scales (..., E / RUN). x (..., C) with scales (...), weight (E, C), (E,)."""
    wide = weight.shape[0]
    answer = torch.empty((*x.shape[:-1], wide), dtype=x.dtype, device=x.device)
    answer_quanta = torch.empty((*x.shape[:-1], -(-wide // RUN)), device=x.device)
    _scaled(x, quanta, weight, weight_quanta, bias, None, None, answer, answer_quanta)
    return answer, answer_quanta


def scaled_residual(
    x: Tensor,
    quanta: Tensor,
    weight: Tensor,
    weight_quanta: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    residual: Tensor,
) -> Tensor:
    """residual + gamma * (x @ weight.T + bias) from float8 x (..., E) with scales (..., E / RUN), weight (C, E), (C,)."""
    answer = torch.empty_like(residual)
    _scaled(x, quanta, weight, weight_quanta, bias, gamma, residual, answer, None)
    return answer


def _scaled(
    x: Tensor,
    quanta: Tensor,
    weight: Tensor,
    weight_quanta: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    residual: Tensor | None,
    answer: Tensor,
    answer_quanta: Tensor | None,
) -> None:
    (wide, inner), positions = weight.shape, x.numel() // x.shape[-1]
    hidden = residual is None
    arguments = {
        "x": x, "quanta": quanta, "weight": weight, "weight_quanta": weight_quanta, "bias": bias, "gamma": gamma,
        "residual": residual, "answer": answer, "answer_quanta": answer_quanta, "positions": positions, "wide": wide,
        "inner": inner, "pieces": -(-inner // RUN), "block_k": RUN, "group": GROUP, "whole": inner % RUN == 0,
        "one_scale": hidden, "hidden": hidden, "scaled": gamma is not None,
    }  # fmt: skip
    tiles = [(128, RUN, 8, 3), (64, RUN, 4, 3), (128, RUN, 4, 3), (32, RUN, 4, 3)]
    if not hidden:
        tiles += [(128, 64, 4, 3), (64, 64, 4, 3)]
    names = ("block_m", "block_n", "num_warps", "num_stages")
    settings = [dict(zip(names, each, strict=True)) for each in tiles]
    key = (size_class(positions), wide, inner, answer.dtype)
    launch(wide_kernels.scaled_product, _tiles_of(positions, wide), settings, key, x, arguments)


@cache
def _settings(dtype: torch.dtype, wide: int, inner: int, recorded: Recorded) -> tuple[Setting, ...]:
    """Tile sizes for products along `inner`; those that would read past it by more than half are left out."""
    names = ("block_m", "block_n", "block_k", "num_warps", "num_stages")
    tiles = FULL_TILES if dtype == torch.float32 else (recorded_for(recorded, inner), *OTHER_TILES)
    fitting = [each for each in tiles if each[2] <= max(16, power(inner))]
    if not fitting:
        fitting = [(*each[:2], max(16, power(inner)), *each[3:]) for each in tiles[-2:]]
    settings = [dict(zip(names, each, strict=True)) for each in fitting]
    return tuple(
        {**each, "whole": int(inner % each["block_k"] == 0), "even": int(wide % each["block_n"] == 0)}
        for each in settings
    )


def recorded_for(tiles: Recorded, channels: int) -> tuple[int, ...]:
    """The tile of the first bound that `channels` is not above."""
    return next(each for most, each in tiles if channels <= most)


def _tiles_of(positions: int, wide: int):  # type: ignore[no-untyped-def]
    return lambda s: -(-positions // s["block_m"]) * -(-wide // s["block_n"])
