"""What a GPU multiplies float32 as: in TF32, with 10 bits after the point, or exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_HAS_TF32 = (8, 0)  # compute capability


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of a GPU of CUDA; None for any other device."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


@contextmanager
def float32_of(precision: str, capability: tuple[int, int] | None) -> Iterator[None]:
    """Inside, what a run in 16 bits leaves in float32 is multiplied in TF32 by a GPU that can; fp32 is what torch has it."""
    if precision == "fp32" or capability is None or capability < _HAS_TF32:
        yield
        return
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "tf32"
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value


def float32_here(device: torch.device) -> str:
    """How matmuls in float32 are done on `device` now: 'TF32' or 'float32'."""
    tf32 = device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "TF32" if tf32 else "float32"
