"""What the machine itself can do, measured beside the contenders: matmuls of the network's shapes, multiply-adds and copying.

Axes: N images, H W rows and columns of a stage's map, C its channels, E = 4C.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from convnext.config import ConvNeXtConfig
from convnext.kernels.cpu import bf16_matmuls
from convnext.kernels.cpu.library import multiply_adds
from convnext.kernels.dispatch import without_compiled
from convnext.studies.benchmark.jobs import Settings
from convnext.studies.benchmark.networks import Call

COPIED_MB = 256  # far beyond every cache
_FMA_ROUNDS = 2000  # of one call: about a millisecond
_BYTES = {"fp32": 4, "bf16": 2}


def stages(config: ConvNeXtConfig, size_px: int) -> Iterator[tuple[int, int, int]]:
    """(blocks, C, positions of the map of one image) of each stage."""
    side = size_px // config.patch
    for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        yield depth, width, max(1, side >> i) ** 2


def gemm_flops(settings: Settings, batch: int) -> float:
    """Multiplications and additions of one pass of `gemm`; three times as many in training."""
    forward = sum(
        2 * 8 * depth * batch * area * width**2 for depth, width, area in stages(settings.config, settings.size_px)
    )
    return float(forward)


def gemm(settings: Settings) -> Callable[[int], Call]:
    """batch -> both pointwise matmuls of every block, with nothing in between: (N H W, C) x (C, E) and back."""
    dtype = torch.float32 if settings.dtype == "fp32" else torch.bfloat16

    def of(batch: int) -> Call:
        work: list[Any] = []
        for depth, width, area in stages(settings.config, settings.size_px):
            shapes = ((batch * area, width), (batch * area, 4 * width), (width, 4 * width), (4 * width, width))
            work.append((depth, *(_noise(settings, dtype, *shape) for shape in shapes)))

        def call() -> None:
            with torch.inference_mode():
                for depth, narrow, wide, expand, project in work:
                    for _ in range(depth):
                        torch.mm(narrow, expand, out=wide)
                        torch.mm(wide, project, out=narrow)

        return call

    return of


def _noise(settings: Settings, dtype: torch.dtype, rows: int, columns: int) -> Tensor:
    """Normal, of a size that a matmul keeps: values that vanish or overflow could be slower."""
    return (torch.randn(rows, columns, device=settings.device) / max(1, rows) ** 0.5).to(dtype)


def counts_multiply_adds(settings: Settings) -> bool:
    """Whether the compiled kernels can say what the processor's multiply-adds come to in this precision."""
    return settings.device == "cpu" and not without_compiled() and (settings.dtype == "fp32" or bf16_matmuls())


def fma(settings: Settings) -> Callable[[int], Call]:
    """Multiply-adds out of the first cache, which no matmul exceeds, whatever the batch."""
    how: dict[str, Any] = {"count": settings.threads, "bf16": settings.dtype == "bf16"}
    return lambda batch: lambda: multiply_adds(_FMA_ROUNDS, **how)


def fma_flops(settings: Settings) -> float:
    """Multiplications and additions of one call of `fma`."""
    return float(_FMA_ROUNDS * multiply_adds(1, settings.threads, bf16=settings.dtype == "bf16"))


def copy(settings: Settings) -> Callable[[int], Call]:
    """One copy of COPIED_MB from memory to memory, whatever the batch."""
    source = torch.ones(COPIED_MB * 2**18, device=settings.device)
    target = torch.empty_like(source)
    return lambda batch: lambda: target.copy_(source)


def least_bytes(settings: Settings, batch: int) -> float:
    """What inference of one batch must move at least: weights, image, and each part's map, read once and written once."""
    config, item = settings.config, _BYTES[settings.dtype]
    maps, weights, before = 0, 0, (config.in_channels, settings.size_px**2)
    for depth, width, area in stages(config, settings.size_px):
        maps += before[0] * before[1] + width * area + 2 * depth * width * area
        weights += before[0] * before[1] // max(1, area) * width + depth * (8 * width**2 + config.kernel**2 * width)
        before = (width, area)
    return float(item * (batch * maps + weights + config.widths[-1] * config.classes))
