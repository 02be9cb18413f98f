"""Which numbers a device multiplies fast: 16 bits, and of float32 all bits or, in TF32, 10 after the point."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from convnext.kernels.instructions import multiplies_tiles

_AMPERE, _VOLTA = (8, 0), (7, 0)  # compute capability: the first with matmul units for bf16 and TF32; for fp16


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of a GPU of CUDA; None for any other device."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def fast_format(device: torch.device) -> Literal["bf16", "fp16"] | None:
    """The 16 bits that `device` multiplies several times as fast as float32; None where there are none.

    bf16 on GPUs of CUDA from Ampere on and on Xeons with AMX, whose matmuls in it run at fourteen times float32's rate; fp16
    on Volta and Turing. Elsewhere bf16 gains little or loses (docs/log.md, 'bf16 matmuls in training').
    """
    capability = capability_of(device)
    if capability is None:
        return "bf16" if device.type == "cpu" and multiplies_tiles() else None
    if capability >= _AMPERE:
        return "bf16"
    return "fp16" if capability >= _VOLTA else None


@contextmanager
def float32_of(precision: str, capability: tuple[int, int] | None) -> Iterator[None]:
    """Inside, what a run in 16 bits leaves in float32 is multiplied in TF32 by a GPU that can; fp32 is what torch has it.

    Convolutions in float32 torch takes in TF32 by itself. `fp32_precision` alone would leave torch's older flags behind, and
    its compiler and its profiler, which ask for those, refuse to go on (torch 2.9 to 2.14 at least).
    """
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if precision == "fp32" or capability is None or capability < _AMPERE or before == "tf32":
        yield
        return
    cpu: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    of_cpu, older = cpu.fp32_precision, torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        cpu.fp32_precision = of_cpu
        yield
    finally:
        torch.set_float32_matmul_precision(older)
        matmul.fp32_precision, cpu.fp32_precision = before, of_cpu


def float32_here(device: torch.device) -> str:
    """How matmuls in float32 are done on `device` now: 'TF32' or 'float32'."""
    tf32 = device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "TF32" if tf32 else "float32"
