"""Masks that show each class by a colour: colours as numbers, and from the colours of pixels to their places in a list.

Axes: H W pixel rows and columns. A colour is one whole number, red * 65536 + green * 256 + blue.
"""

from collections.abc import Sequence

import numpy as np

from convnext.data.sample import IGNORE


def packed(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 RGB -> (...) int32 colours."""
    wide = pixels.astype(np.int32)
    found: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return found


def places_of(pixels: np.ndarray, colours: Sequence[int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) uint8: the place of each pixel's colour in `colours`, IGNORE where it is not there.

    `colours` are at most 255.
    """
    known = np.array(colours, np.int32)
    order = np.argsort(known, kind="stable")
    shown = packed(pixels)
    nearest = order[np.searchsorted(known, shown, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[nearest] == shown, nearest, IGNORE).astype(np.uint8)


def colour_text(colour: int) -> str:
    """'255,0,0', as files of colours have it."""
    return f"{colour >> 16},{colour >> 8 & 255},{colour & 255}"
