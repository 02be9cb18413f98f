"""Launches of the matrix products. Rows are positions: tensors (..., C) or (..., E = 4C), contiguous and of one dtype."""

from functools import cache

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.gpu import triton_gemm as kernels
from convnext.kernels.gpu import triton_mlp as wide_kernels
from convnext.kernels.gpu.available import precision
from convnext.kernels.gpu.depthwise import power, split
from convnext.kernels.gpu.tuning import Setting, faster, launch, size_class

Recorded = tuple[tuple[int, tuple[int, ...]], ...]  # (channels up to which, tile sizes)
KEPT_ON_CHIP = 256  # channels up to which the fused pair is a candidate: wider ones re-read their weights too often
RUN = 128  # hidden channels that share a float8 scale
GROUP = 8  # rows of tiles that are done before the next column
MOST = 2**31
# Fastest in a wide search on an H100 (benchmarks/gpu_search.py): by the channels that are summed over, up to a bound.
# block_m, block_n, block_k, warps, stages
GELU_TILES = ((96, (64, 128, 32, 4, 4)), (MOST, (128, 128, 64, 8, 3)))
RESIDUAL_TILES = ((384, (128, 128, 64, 4, 3)), (1024, (128, 64, 64, 4, 3)), (MOST, (64, 128, 64, 4, 3)))
BACKWARD_TILES = ((96, (64, 64, 32, 4, 4)), (512, (64, 64, 64, 4, 4)), (MOST, (64, 128, 64, 4, 4)))
MLP_TILES = ((128, (64, 32, 4, 3)), (192, (128, 64, 8, 3)), (MOST, (128, 64, 8, 2)))  # block_m, block_h, warps, stages
# What else a GPU may run or prefer, and what small shapes need
OTHER_TILES = ((128, 128, 64, 8, 3), (128, 128, 32, 4, 4), (128, 64, 64, 4, 3), (64, 64, 64, 4, 3), (16, 64, 128, 4, 4))
FULL_TILES = ((64, 64, 32, 4, 3), (128, 64, 32, 4, 3), (64, 128, 32, 8, 3), (32, 32, 32, 4, 3))  # float32
OTHER_MLP_TILES = ((128, 64, 4, 3), (64, 64, 8, 2), (64, 32, 4, 2), (16, 64, 4, 3))


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
    settings = _settings(x.dtype, wide, inner, RESIDUAL_TILES)
    launch(kernels.linear_residual, _tiles_of(positions, wide), settings, key, x, arguments)
    return answer


def mlp(
    x: Tensor,
    expand: tuple[Tensor, Tensor],
    project: tuple[Tensor, Tensor],
    gamma: Tensor | None,
    keep: Tensor | None,
    residual: Tensor,
) -> Tensor:
    """residual + keep * gamma * project(gelu(expand(x))), in whichever way is faster; weights as (weight, bias)."""

    def pair() -> Tensor:
        return linear_residual(linear_gelu(x, *expand)[0], *project, gamma, keep, residual)

    def fused() -> Tensor:
        return fused_mlp(x, expand, project, gamma, keep, residual)

    channels = x.shape[-1]
    if channels > KEPT_ON_CHIP or x.dtype == torch.float32:
        return pair()
    ways = (fused, pair)
    name = ("mlp", size_class(x.numel() // channels), channels, x.dtype, residual.dtype)
    try:
        return ways[faster(name, x, ways)]()
    except ConvNeXtError:  # a GPU with too little shared memory for any tile of the one kernel
        return pair()


def fused_mlp(
    x: Tensor,
    expand: tuple[Tensor, Tensor],
    project: tuple[Tensor, Tensor],
    gamma: Tensor | None,
    keep: Tensor | None,
    residual: Tensor,
) -> Tensor:
    """As `mlp`, in one kernel: the hidden activations never reach memory."""
    positions, channels, hidden = x.numel() // x.shape[-1], x.shape[-1], expand[0].shape[0]
    block, chunks = split(channels)
    answer = torch.empty_like(residual)
    arguments = {
        "x": x, "expand": expand[0], "expand_bias": expand[1], "project": project[0], "project_bias": project[1],
        "gamma": gamma, "kept": keep, "residual": residual, "answer": answer, "positions": positions,
        "channels": channels, "hidden": hidden, "area": positions // x.shape[0], "block": block, "chunks": chunks,
        "scaled": gamma is not None, "drops": keep is not None, "fast": x.dtype != torch.float32,
        "precision": precision(x.dtype),
    }  # fmt: skip
    key = (size_class(positions), channels, hidden, x.dtype, residual.dtype)
    launch(
        wide_kernels.mlp, lambda s: -(-positions // s["block_m"]), _mlp_settings(channels, hidden), key, x, arguments
    )
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
def _mlp_settings(channels: int, hidden: int) -> tuple[Setting, ...]:
    block, chunks = split(channels)
    return tuple(
        {"block_m": m, "block_h": h, "whole": int(channels == block * chunks and hidden % h == 0), "num_warps": warps,
         "num_stages": stages}
        for m, h, warps, stages in (_recorded(MLP_TILES, channels), *OTHER_MLP_TILES)
    )  # fmt: skip


@cache
def _settings(dtype: torch.dtype, wide: int, inner: int, recorded: Recorded) -> tuple[Setting, ...]:
    """Tile sizes for products along `inner`; those that would read past it by more than half are left out."""
    names = ("block_m", "block_n", "block_k", "num_warps", "num_stages")
    tiles = FULL_TILES if dtype == torch.float32 else (_recorded(recorded, inner), *OTHER_TILES)
    fitting = [each for each in tiles if each[2] <= max(16, power(inner))]
    if not fitting:
        fitting = [(*each[:2], max(16, power(inner)), *each[3:]) for each in tiles[-2:]]
    settings = [dict(zip(names, each, strict=True)) for each in fitting]
    return tuple(
        {**each, "whole": int(inner % each["block_k"] == 0), "even": int(wide % each["block_n"] == 0)}
        for each in settings
    )


def _recorded(tiles: Recorded, channels: int) -> tuple[int, ...]:
    return next(each for most, each in tiles if channels <= most)


def _tiles_of(positions: int, wide: int):  # type: ignore[no-untyped-def]
    return lambda s: -(-positions // s["block_m"]) * -(-wide // s["block_n"])
