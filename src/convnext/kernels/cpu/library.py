"""The compiled library: how fast this machine multiplies with it, and what its functions take."""

import ctypes
import time

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.build import compiled
from convnext.kernels.dispatch import without_compiled


def threads() -> int:
    """As many as torch uses; 1 where the library could not be built with OpenMP."""
    return torch.get_num_threads() if compiled().parallel else 1


def matmul_rate(seconds: float = 0.2) -> float:
    """GFLOP/s of this machine's fused multiply-adds out of the first cache, on torch's threads: what no matmul exceeds."""
    library, rate, end = library_or_refuse(), 0.0, time.perf_counter() + seconds
    library.cn_matmuls.restype = ctypes.c_long
    while time.perf_counter() < end:
        start = time.perf_counter()
        work = library.cn_matmuls(ctypes.c_long(2000), threads())
        rate = max(rate, work / (time.perf_counter() - start) / 1e9)
    return rate


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
