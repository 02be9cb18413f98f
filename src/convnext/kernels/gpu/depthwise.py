"""Launches of the depthwise kernels. Maps are (N, H, W, C) and contiguous; sums and statistics are float32."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from convnext.kernels.gpu import triton_depthwise as forward_kernels
from convnext.kernels.gpu import triton_depthwise_backward as backward_kernels
from convnext.kernels.gpu.tuning import Setting, launch, size_class

# Fastest in a wide search on an H100 (benchmarks/gpu_search.py): rows, columns, warps, by channels up to a bound
NORM_TILES = (  # T's widths are three chunks, B's one
    (96, (5, 8, 2)), (128, (7, 2, 1)), (192, (4, 2, 1)), (256, (7, 1, 1)), (384, (5, 1, 1)), (512, (7, 1, 2)),
    (768, (7, 1, 2)), (1024, (7, 1, 4)),
)  # fmt: skip
ADD_TILES = ((96, (8, 8, 2, 32)), (384, (7, 2, 1, 64)), (4096, (7, 2, 1, 128)))  # and channels a program
CANDIDATES = 4  # other settings, the most promising ones by `_effort`
REGISTERS = 112  # of 255 a thread, for sums
ACCUMULATORS = 49  # taps whose gradients one thread keeps
HOPPER = 132  # multiprocessors of an H100: what is compiled without a GPU is compiled for


class Normed(NamedTuple):
    """What `convolve_norm` wrote: the normed map, and what was asked for beside it."""

    answer: Tensor  # (N, H, W, C)
    raw: Tensor | None  # (N, H, W, C) before the norm
    mean: Tensor | None  # (N, H, W)
    rstd: Tensor | None  # (N, H, W)
    quanta: Tensor | None  # (N, H, W) float8 scales


def convolve_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    *,
    dtype: torch.dtype,
    keep_raw: bool = False,
    keep_stats: bool = False,
) -> Normed:
    """LayerNorm(depthwise convolution of x), in `dtype`; float8_e4m3fn brings one scale a position.

    x (N, H, W, C), weight (C, 1, K, K) with odd K, the rest (C,) or None.
    """
    n, h, w, c = x.shape
    block, chunks = split(c)
    quantise = dtype == torch.float8_e4m3fn
    made = Normed(
        torch.empty(x.shape, dtype=dtype, device=x.device),
        torch.empty(x.shape, dtype=x.dtype, device=x.device) if keep_raw else None,
        torch.empty(x.shape[:3], device=x.device) if keep_stats else None,
        torch.empty(x.shape[:3], device=x.device) if keep_stats else None,
        torch.empty(x.shape[:3], device=x.device) if quantise else None,
    )
    kernel = weight.shape[-1]
    arguments = {
        "source": x, "taps": taps_of(weight), "bias": bias, "scale": scale, "shift": shift, "answer": made.answer,
        "raw": made.raw, "means": made.mean, "rstds": made.rstd, "quanta": made.quanta, "eps": eps, "height": h,
        "width": w, "channels": c, "block": block, "chunks": chunks, "kernel": kernel, "biased": bias is not None,
        "scaled": scale is not None, "shifted": shift is not None, "keep_raw": keep_raw, "keep_stats": keep_stats,
        "quantise": quantise,
    }  # fmt: skip
    key = (size_class(n), h, w, c, kernel, x.dtype, dtype)
    settings = _norm_settings(h, w, block, chunks, kernel)
    launch(forward_kernels.convolve_norm, lambda s: n * s["strips"] * s["spans"], settings, key, x, arguments)
    return made


def convolve_add(x: Tensor, weight: Tensor, added: Tensor | None, *, dtype: torch.dtype) -> Tensor:
    """The gradient of a depthwise convolution's input, from that of its answer (N, H, W, C), plus `added`."""
    n, h, w, c = x.shape
    answer = torch.empty(x.shape, dtype=dtype, device=x.device)
    kernel = weight.shape[-1]
    arguments = {
        "source": x, "taps": taps_of(weight), "added": added, "answer": answer, "height": h, "width": w,
        "channels": c, "kernel": kernel, "adds": added is not None,
    }  # fmt: skip
    key = (size_class(n), h, w, c, kernel, x.dtype, dtype)

    def programs(s: Setting) -> int:
        return n * s["strips"] * s["spans"] * s["groups"]

    launch(forward_kernels.convolve_add, programs, _add_settings(h, w, c, kernel), key, x, arguments)
    return answer


def filter_gradient(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """The gradient (C, 1, K, K), float32, of a depthwise filter; x and the answer's gradient are (N, H, W, C)."""
    n, h, w, c = x.shape
    programs = max(1, min(4 * processors(x.device) * 32 // c, n * -(-w // 8)))
    sums = torch.empty((programs, kernel * kernel, c), device=x.device)
    depth = max(1, min(kernel, ACCUMULATORS // kernel))
    bands = -(-kernel // depth)
    arguments = {
        "source": x, "gradient": gradient, "sums": sums, "images": n, "height": h, "width": w, "channels": c,
        "bands": bands, "programs": programs, "kernel": kernel, "depth": depth,
    }  # fmt: skip
    settings = _filter_settings(w, c)
    key = (size_class(n), h, w, c, kernel, x.dtype, gradient.dtype)
    launch(backward_kernels.filter_gradient, lambda s: programs * bands * s["groups"], settings, key, x, arguments)
    return sums.sum(0).t().contiguous().view(c, 1, kernel, kernel)  # Inductor relies on the strides it was promised


class NormGradients(NamedTuple):
    """Of a LayerNorm: before it, that one's sum over positions, and those of its scale and shift."""

    before: Tensor  # like the gradient
    total: Tensor  # (C,) float32
    scale: Tensor | None  # (C,) float32
    shift: Tensor | None  # (C,) float32


def norm_backward(
    gradient: Tensor,
    source: Tensor,
    mean: Tensor | None,
    rstd: Tensor,
    scale: Tensor | None,
    *,
    dtype: torch.dtype,
    affine: bool,
) -> NormGradients:
    """Through LayerNorm. `source` (..., C) is what was normed, or where `mean` is None its normal form.

    `affine` asks for the gradients of scale and shift.
    """
    c = source.shape[-1]
    positions = source.numel() // c
    block = power(c)
    lines = max(1, min(16, 4096 // block))
    programs = min(-(-positions // lines), 4 * processors(source.device))
    answer = torch.empty(source.shape, dtype=dtype, device=source.device)
    sums = torch.empty((3 if affine else 1, programs, c), device=source.device)
    arguments = {
        "gradient": gradient, "source": source, "means": mean, "rstds": rstd, "scale": scale, "answer": answer,
        "scale_sums": sums[1] if affine else None, "shift_sums": sums[2] if affine else None, "answer_sums": sums[0],
        "positions": positions, "channels": c, "stripe": -(-positions // programs), "block": block,
        "normal": mean is None, "scaled": scale is not None, "affine_sums": affine,
    }  # fmt: skip
    half = max(1, lines // 2)
    settings = [{"lines": lines, "num_warps": 4}, {"lines": half, "num_warps": 4}, {"lines": lines, "num_warps": 8}]
    key = (size_class(positions), c, source.dtype, gradient.dtype)
    launch(backward_kernels.norm_backward, lambda s: programs, settings, key, source, arguments)
    total, *others = [each.sum(0) for each in sums]  # apart: an operator's answers may not share memory
    return NormGradients(answer, total, *(others if affine else (None, None)))


def taps_of(weight: Tensor) -> Tensor:
    """(C, 1, K, K) as (K * K, C), so that neighbouring threads read neighbouring numbers."""
    return weight.reshape(weight.shape[0], -1).t().contiguous()


def split(channels: int) -> tuple[int, int]:
    """(block, chunks) that cover the channels with the fewest idle lanes: one power of two, or three of a smaller one."""
    one = max(16, power(channels))
    third = max(16, power(-(-channels // 3)))
    return (third, 3) if 3 * third < one else (one, 1)


def tiles(height: int, width: int, block: int, chunks: int, kernel: int) -> list[Setting]:
    """Tile sizes worth a try, the one with the least estimated work first."""
    found: list[tuple[float, int, Setting]] = []
    for rows in (1, 2, 3, 4, 6, 7, 8):
        for columns in (1, 2, 4, 8, 16, 32):
            for warps in (1, 2, 4, 8):
                each = columns * block // (32 * warps)  # values a thread holds of a row and chunk
                if 4 <= each <= 16 and rows * chunks * each <= REGISTERS and rows < 2 * height:
                    setting = {"rows": rows, "columns": columns, "num_warps": warps}
                    found.append((_effort(height, width, kernel, rows, columns, each), len(found), setting))
    if not found:  # few channels, or very many
        return [{"rows": 1, "columns": 8 if block <= 64 else 1, "num_warps": 1 if block <= 64 else 8}]
    return [setting for _, _, setting in sorted(found, key=lambda each: each[:2])[:CANDIDATES]]


def _effort(height: int, width: int, kernel: int, rows: int, columns: int, each: int) -> float:
    """Instructions a wanted value costs, roughly: products, loads of values and of taps, and what L2 must bring."""
    down, across = -(-height // rows) * rows / height, -(-width // columns) * columns / width
    halo = (rows + kernel - 1) / rows
    work = kernel * kernel + 1.5 * halo * kernel + kernel * kernel * 8 / (rows * each)
    return down * across * (work + 4 * halo * (columns + kernel - 1) / columns)


def _over(height: int, width: int, setting: Setting) -> Setting:
    return {**setting, "strips": -(-height // setting["rows"]), "spans": -(-width // setting["columns"])}


def power(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << max(0, number - 1).bit_length()


@cache
def _norm_settings(height: int, width: int, block: int, chunks: int, kernel: int) -> tuple[Setting, ...]:
    found = tiles(height, width, block, chunks, kernel)
    for rows, columns, warps in [each for most, each in NORM_TILES if block * chunks <= most][:1]:
        found.insert(0, {"rows": min(rows, height), "columns": columns, "num_warps": warps})
    return tuple(_over(height, width, each) for each in found)


@cache
def _add_settings(height: int, width: int, channels: int, kernel: int) -> tuple[Setting, ...]:
    rows, columns, warps, block = next(each for most, each in ADD_TILES if channels <= most)
    recorded = {"rows": min(rows, height), "columns": columns, "num_warps": warps}
    settings = [{**_over(height, width, recorded), "block": block, "groups": -(-channels // block)}]
    for block in sorted({min(part, power(channels)) for part in (32, 64, 128)}, reverse=True):
        found = tiles(height, width, block, 1, kernel)[: CANDIDATES // 2]
        settings += [{**_over(height, width, each), "block": block, "groups": -(-channels // block)} for each in found]
    return tuple(settings)


@cache
def _filter_settings(width: int, channels: int) -> tuple[Setting, ...]:
    settings = []
    first = 8 if width <= 8 else 4
    for columns, block, warps in ((first, 32, 4), (8, 32, 4), (4, 64, 4), (4, 32, 2)):
        if columns < 2 * power(width) and block < 2 * power(channels):
            spans, groups = -(-width // columns), -(-channels // block)
            shape = {"columns": columns, "block": block, "spans": spans, "groups": groups}
            settings.append({**shape, "num_warps": warps})
    if not settings:  # a map of one or two columns
        return ({"columns": power(width), "block": 16, "spans": 1, "groups": -(-channels // 16), "num_warps": 1},)
    return tuple(settings)


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; one in the interpreter, so that every way of sharing work is taken."""
    if device.type != "cuda":
        return HOPPER if device.type == "meta" else 1
    return torch.cuda.get_device_properties(device).multi_processor_count
