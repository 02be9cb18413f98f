"""An affine move of a small image by the compiled kernel. Axes: H W pixel rows and columns, C channels."""

import ctypes
from collections.abc import Sequence

import numpy as np

from convnext.kernels.cpu.library import library_or_refuse, longs


def affine(pixels: np.ndarray, matrix: Sequence[float], *, cubic: bool, fill: Sequence[int]) -> np.ndarray:
    """(H, W, C) uint8, C 1 or 3 -> the same shape: pixel (x, y) is what lies at `matrix` (x, y, 1) in `pixels`.

    `matrix`: six values, the rows of x and of y. Between pixels a cubic or a line, beyond the edges `fill`, C values.
    The bits are Pillow's. Raises ConvNeXtError where there are no compiled kernels.
    """
    library = library_or_refuse()
    pixels = np.ascontiguousarray(pixels)
    moved = np.empty_like(pixels)
    library.cn_affine(
        ctypes.c_void_p(pixels.ctypes.data),
        ctypes.c_void_p(moved.ctypes.data),
        *longs(*pixels.shape),
        (ctypes.c_double * 6)(*matrix),
        ctypes.c_long(cubic),
        (ctypes.c_uint8 * 4)(*fill),
    )
    return moved
