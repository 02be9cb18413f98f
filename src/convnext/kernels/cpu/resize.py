"""A part of a resized image by the compiled kernel. Axes: H W pixel rows and columns, C channels."""

import ctypes

import numpy as np

from convnext.kernels.cpu.library import library_or_refuse, longs


def resize(
    pixels: np.ndarray, size: tuple[int, int], part: tuple[int, int, int, int], *, down_first: bool
) -> np.ndarray:
    """(H, W, C) uint8, C 1 or 3 -> `part` of what a bicubic resize to `size` makes of it: (height, width, C).

    `size`: height and width. `part`: top, left, height and width within them. `down_first`: whether columns are resized before
    rows; it decides how values between the two are rounded. The bits are Pillow's. Raises ConvNeXtError where there are no
    compiled kernels, MemoryError.
    """
    library = library_or_refuse()
    pixels = np.ascontiguousarray(pixels)
    made = np.empty((*part[2:], pixels.shape[2]), np.uint8)
    short = library.cn_resize(
        ctypes.c_void_p(pixels.ctypes.data),
        *longs(*pixels.shape),
        (ctypes.c_long * 2)(*size),
        (ctypes.c_long * 4)(*part),
        ctypes.c_long(down_first),
        ctypes.c_void_p(made.ctypes.data),
    )
    if short:
        raise MemoryError(f"there is no memory to resize {pixels.shape[1]} x {pixels.shape[0]} pixels")
    return made
