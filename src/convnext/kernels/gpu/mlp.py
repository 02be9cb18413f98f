"""expand, GELU, project and the residual, and their gradients: which of several ways to the same answer is taken.

Few channels: one kernel, in which the hidden activations never reach memory, or a kernel for each product. Many: our kernel
for each product, or the library's matmul with a pass of ours behind it. As with tile sizes, the first way is taken, or
inside `tuning.measured` the fastest.

Axes: M positions, C channels, E = 4C hidden channels; maps are (N, H, W, C). Weights come as (weight, bias).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.gpu import gemm, library
from convnext.kernels.gpu import triton_mlp as forward_kernels
from convnext.kernels.gpu import triton_mlp_backward as backward_kernels
from convnext.kernels.gpu.available import precision
from convnext.kernels.gpu.depthwise import processors, split
from convnext.kernels.gpu.tuning import Setting, faster, launch, size_class

Layer = tuple[Tensor, Tensor]  # weight (outputs, inputs), bias (outputs,)
KEPT_ON_CHIP = 256  # channels up to which the fused pair is a candidate: wider ones re-read their weights too often
RECOMPUTED = 128  # channels up to which the fused gradients are: two products more cost less than the memory
MOST = gemm.MOST
What = Literal[
    "mlp", "linear_gelu", "linear_residual", "gelu_backward", "mlp_backward"
]  # as benchmarks/gpu.py has them
WON: dict[
    tuple[What, int], int
] = {}  # at these channels: a later way that was the fastest on a GPU. None was timed yet
MLP_TILES = ((128, (64, 32, 4, 3)), (192, (128, 64, 8, 3)), (MOST, (128, 64, 8, 2)))  # block_m, block_h, warps, stages
FULL_MLP_TILES = (*MLP_TILES[:2], (MOST, (64, 64, 8, 2)))  # for a float32 residual, as gemm.FULL_RESIDUAL_TILES
OTHER_MLP_TILES = ((64, 64, 8, 2), (64, 32, 4, 2), (16, 64, 4, 3))
NARROW_MLP_TILES = ((128, 64, 4, 3),)  # up to RECOMPUTED: of 256 channels it would be 262,144 bytes of shared memory
# Not timed yet: the largest that keep their values in registers, compiled without a GPU, come first
INPUT_TILES = ((64, 32, 4, 3), (128, 32, 8, 3), (128, 64, 8, 2), (64, 64, 4, 2), (16, 32, 4, 2))
WEIGHT_TILES = ((32, 128, 8, 3), (32, 64, 4, 3), (64, 128, 8, 2), (16, 64, 4, 4), (16, 32, 4, 2))
FILLED = 2  # programs a multiprocessor that the gradients of the weights are cut into
SLICE = 64  # hidden channels of a program, for that count
STEP = 128  # positions: a stripe has a multiple of them, so that no tile is cut but the last


class MlpGradients(NamedTuple):
    """Of what `mlp` adds to the residual, without layer scale."""

    normal: Tensor  # (M, C) in the dtype of the map
    expand: Tensor  # (E, C) float32
    expand_bias: Tensor  # (E,) float32
    project: Tensor  # (C, E) float32


def mlp(
    x: Tensor, expand: Layer, project: Layer, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """residual + keep * gamma * project(gelu(expand(x))), in whichever way is faster."""

    def pair() -> Tensor:
        return project_residual(expand_gelu(x, expand)[0], project, gamma, keep, residual)

    def fused() -> Tensor:
        return fused_mlp(x, expand, project, gamma, keep, residual)

    channels = x.shape[-1]
    if not fits(channels, KEPT_ON_CHIP, x.dtype):
        return pair()
    try:
        return _taken("mlp", channels, x, (fused, pair), residual.dtype)
    except ConvNeXtError:  # a GPU with too little shared memory for any tile of the one kernel
        return pair()


def expand_gelu(x: Tensor, expand: Layer, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
    """gelu(expand(x)), and what stood before GELU where `keep`."""
    ways = [lambda: gemm.linear_gelu(x, *expand, keep=keep), lambda: library.linear_gelu(x, *expand, keep=keep)]
    return _taken("linear_gelu", x.shape[-1], x, _rivals(ways, x.shape[-1]), keep)


def project_residual(
    hidden: Tensor, project: Layer, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """residual + keep * gamma * project(hidden), in the dtype of `residual`."""
    given, channels = (hidden, *project, gamma, keep, residual), residual.shape[-1]
    ways = [lambda: gemm.linear_residual(*given), lambda: library.linear_residual(*given)]
    return _taken("linear_residual", channels, hidden, _rivals(ways, channels), residual.dtype)


def mlp_backward(
    normal: Tensor, expand: Layer, before: Tensor | None, gradient: Tensor, project: Tensor, keep: Tensor | None
) -> MlpGradients:
    """The gradients of `mlp` from that of its answer, in whichever way is faster.

    normal and gradient (N, H, W, C) of one dtype, project (C, E) with layer scale in it; `before`, what stood before GELU
    (N, H, W, E), is computed again where it is None.
    """
    channels, given = normal.shape[-1], (normal, expand, before, gradient, project, keep)

    def stored() -> MlpGradients:
        return stored_mlp_backward(*given)

    def fused() -> MlpGradients:
        return fused_mlp_backward(normal, expand, gradient, project, keep)

    if before is not None or not fits(channels, RECOMPUTED, normal.dtype):
        return stored()
    try:
        return _taken("mlp_backward", channels, normal, (stored, fused))
    except ConvNeXtError:
        return stored()


def stored_mlp_backward(
    normal: Tensor, expand: Layer, before: Tensor | None, gradient: Tensor, project: Tensor, keep: Tensor | None
) -> MlpGradients:
    """As `mlp_backward`, with the gradient before GELU and the hidden layer in memory, (M, E) each."""
    given = (normal, expand, before, gradient, project, keep)
    ways = [lambda: gemm.gelu_backward(*given), lambda: library.gelu_backward(*given)]
    inner, hidden, of_bias = _taken("gelu_backward", normal.shape[-1], normal, _rivals(ways, normal.shape[-1]))
    inner, hidden = inner.flatten(0, 2), hidden.flatten(0, 2)
    of_expand = torch.mm(inner.t(), normal.flatten(0, 2))
    of_project = torch.mm(gradient.flatten(0, 2).t(), hidden)
    return MlpGradients(torch.mm(inner, expand[0]), of_expand.float(), of_bias, of_project.float())


def fused_mlp(
    x: Tensor, expand: Layer, project: Layer, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """As `mlp`, in one kernel: the hidden activations never reach memory."""
    positions, channels, hidden = x.numel() // x.shape[-1], x.shape[-1], expand[0].shape[0]
    answer = torch.empty_like(residual)
    arguments = {
        "x": x, "expand": expand[0], "expand_bias": expand[1], "project": project[0], "project_bias": project[1],
        "gamma": gamma, "kept": keep, "residual": residual, "answer": answer, "scaled": gamma is not None,
        **_shared(x, hidden, keep),
    }  # fmt: skip
    key = (size_class(positions), channels, hidden, x.dtype, residual.dtype)
    others = (*(NARROW_MLP_TILES if channels <= RECOMPUTED else ()), *OTHER_MLP_TILES)
    recorded = MLP_TILES if residual.dtype == x.dtype else FULL_MLP_TILES
    settings = _settings(channels, hidden, (gemm.recorded_for(recorded, channels), *others))
    launch(forward_kernels.mlp, lambda s: -(-positions // s["block_m"]), settings, key, x, arguments)
    return answer


def fused_mlp_backward(
    normal: Tensor, expand: Layer, gradient: Tensor, project: Tensor, keep: Tensor | None
) -> MlpGradients:
    """As `mlp_backward`, in two kernels: nothing of the size (M, E) is made."""
    positions, channels, hidden = normal.numel() // normal.shape[-1], normal.shape[-1], project.shape[1]
    answer = torch.empty((positions, channels), dtype=normal.dtype, device=normal.device)
    shared = {
        "normal": normal, "expand": expand[0], "bias": expand[1], "gradient": gradient, "project": project,
        "kept": keep, **_shared(normal, hidden, keep),
    }  # fmt: skip
    key = (size_class(positions), channels, hidden, normal.dtype)
    settings = _settings(channels, hidden, INPUT_TILES)
    launch(backward_kernels.mlp_input_gradient, lambda s: -(-positions // s["block_m"]), settings, key, normal,
           {**shared, "answer": answer})  # fmt: skip
    wanted = max(2, FILLED * processors(normal.device) // -(-hidden // SLICE))
    stripe = STEP * -(-positions // (STEP * wanted))
    stripes = -(-positions // stripe)
    of_expand, of_project = torch.empty((2, stripes, hidden, channels), device=normal.device)
    sums = torch.empty((stripes, hidden), device=normal.device)
    launch(backward_kernels.mlp_weight_gradient, lambda s: stripes * -(-hidden // s["block_h"]),
           _settings(channels, hidden, WEIGHT_TILES), key, normal,
           {**shared, "of_expand": of_expand, "of_project": of_project, "sums": sums, "stripe": stripe})  # fmt: skip
    return MlpGradients(answer, of_expand.sum(0), sums.sum(0), of_project.sum(0).t().contiguous())


def fits(channels: int, most: int, dtype: torch.dtype) -> bool:
    """Whether a kernel that keeps a position's channels on the chip, `most` of them, has the room: float32 takes twice."""
    return channels <= most and dtype != torch.float32


def _taken(what: What, channels: int, where: Tensor, ways: Any, *key: Any) -> Any:
    """The answer of the way that won, or of the fastest where it is measured."""
    name = (what, size_class(where.numel() // where.shape[-1]), channels, where.dtype, *key)
    return ways[faster(name, where, ways, WON.get((what, channels), 0))]()


def _rivals(ways: list[Callable[[], Any]], channels: int) -> list[Callable[[], Any]]:
    """Narrow products wait for memory, where the library's pass over the answer can only lose."""
    return ways if channels > KEPT_ON_CHIP else ways[:1]


def _shared(x: Tensor, hidden: int, keep: Tensor | None) -> dict[str, Any]:
    """What all kernels of the pair of products are told."""
    channels = x.shape[-1]
    positions, (block, chunks) = x.numel() // channels, split(channels)
    return {
        "positions": positions, "channels": channels, "hidden": hidden, "area": positions // x.shape[0], "block": block,
        "chunks": chunks, "drops": keep is not None, "fast": x.dtype != torch.float32, "precision": precision(x.dtype),
    }  # fmt: skip


@cache
def _settings(channels: int, hidden: int, tiles: tuple[tuple[int, ...], ...]) -> tuple[Setting, ...]:
    block, chunks = split(channels)
    return tuple(
        {"block_m": m, "block_h": h, "whole": int(channels == block * chunks and hidden % h == 0), "num_warps": warps,
         "num_stages": stages}
        for m, h, warps, stages in tiles
    )  # fmt: skip
