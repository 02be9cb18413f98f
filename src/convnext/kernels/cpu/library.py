"""The compiled library: whether it is there, how fast this machine multiplies with it, and what its functions take."""

import ctypes
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.build import built
from convnext.kernels.dispatch import SWITCH


def unavailable() -> str | None:
    """Why the compiled CPU kernels are not used, in words for a person; None where they are. Compiles them if need be."""
    if os.environ.get(SWITCH) == "plain":
        return f"{SWITCH}=plain turns them off"
    return built().reason


def threads() -> int:
    """As many as torch uses; 1 where the library could not be built with OpenMP."""
    return torch.get_num_threads() if built().parallel else 1


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
    reason, library = unavailable(), built().library
    if reason or library is None:
        raise ConvNeXtError(f"the compiled CPU kernels are unavailable: {reason}. Use the plain path.")
    return library


def describe(tensors: Sequence[Tensor | None], eps: float, *sizes: int) -> "ctypes.Array[ctypes.c_char]":
    """The C struct of a layer: its pointers, its sizes, its epsilon. It holds no tensor: keep them as long as it."""
    places = (ctypes.c_void_p * len(tensors))(*(0 if tensor is None else tensor.data_ptr() for tensor in tensors))
    numbers = (ctypes.c_long * len(sizes))(*sizes)
    return ctypes.create_string_buffer(bytes(places) + bytes(numbers) + bytes(ctypes.c_float(eps)) + bytes(4))


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor's values start."""
    return ctypes.c_void_p(tensor.data_ptr())


def longs(*values: int) -> list[ctypes.c_long]:
    """C's longs."""
    return [ctypes.c_long(value) for value in values]
