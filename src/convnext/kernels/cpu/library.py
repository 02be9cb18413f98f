"""The compiled library: how fast this machine multiplies with it, and what its functions take."""

import ctypes
import functools
import time

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.build import compiled
from convnext.kernels.dispatch import without_compiled


def threads() -> int:
    """As many as torch uses; 1 where the library could not be built with OpenMP."""
    return torch.get_num_threads() if compiled().parallel else 1


def origin() -> str:
    """Where the library is from, and for which instructions it was made."""
    library_or_refuse()
    return compiled().origin


def matmul_rate(seconds: float = 0.2) -> float:
    """GFLOP/s of this machine's fused multiply-adds out of the first cache, on torch's threads: what no matmul exceeds."""
    rate, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        rate = max(rate, _rate(2000, threads(), bf16=False))
    return rate


@functools.cache
def bf16_matmuls() -> bool:
    """Whether this processor multiplies bf16 values, and faster than float32 ones.

    To have the instruction is not enough: AMD's Zen 4 and 5 run it at twice float32's rate, Intel's Xeons since the fourth
    generation at half of it, but their AMX at fourteen times, where the system allows it. So both are timed once, in turn, a
    few milliseconds; a rate within a third of float32's is no gain.
    """
    if not library_or_refuse().cn_bf16():
        return False
    rates = {bf16: 0.0 for bf16 in (False, True)}
    for _ in range(40):  # of some 30 microseconds each: the best of many is undisturbed on a busy machine too
        for bf16 in rates:
            rates[bf16] = max(rates[bf16], _rate(20, 1, bf16=bf16))
    return rates[True] > 4 / 3 * rates[False]


def multiply_adds(rounds: int, count: int, *, bf16: bool) -> int:
    """Multiply and add out of the first cache on `count` threads, `rounds` times the same: the operations that this was."""
    library = library_or_refuse()
    library.cn_matmuls.restype = ctypes.c_long
    return int(library.cn_matmuls(*longs(rounds, bf16), count if compiled().parallel else 1))


def _rate(rounds: int, count: int, *, bf16: bool) -> float:
    start = time.perf_counter()
    work = multiply_adds(rounds, count, bf16=bf16)
    return work / (time.perf_counter() - start) / 1e9


def library_or_refuse() -> ctypes.CDLL:
    """The loaded library; raises ConvNeXtError with the reason where there is none."""
    reason, library = without_compiled(), compiled().library
    if reason or library is None:
        raise ConvNeXtError(f"the compiled CPU kernels are unavailable: {reason}. Use the plain path.")
    return library


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor's values start."""
    return ctypes.c_void_p(tensor.data_ptr())


def longs(*values: int) -> list[ctypes.c_long]:
    """C's longs."""
    return [ctypes.c_long(value) for value in values]
