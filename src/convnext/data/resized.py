"""Bicubic resizing of which a part is kept: Pillow's, or where the compiled kernels are loaded theirs, with Pillow's bits.

Axes: H W pixel rows and columns, C channels.
"""

import functools
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from convnext.data.decode import from_pillow, to_pillow

Size = tuple[int, int]  # height, width
Part = tuple[int, int, int, int]  # top, left, height, width
Resize = Callable[[np.ndarray, Size, Part], np.ndarray]
Order = Callable[[Size, Size], bool]  # from one size to another: whether columns are resized before rows

_PROBES: tuple[tuple[Size, Size], ...] = (
    ((60, 17), (9, 13)),
    ((60, 25), (30, 11)),
    ((17, 60), (13, 9)),
    ((5, 7), (16, 24)),
)


def resized_part(pixels: np.ndarray, size: Size, part: Part) -> np.ndarray:
    """(H, W, 1 or 3) uint8, or (H, W, 1) float32 -> `part` of what a bicubic resize to `size` makes of it."""
    kernel = _kernel() if pixels.dtype == np.uint8 else None
    return (kernel or _by_pillow)(pixels, size, part)


def _by_pillow(pixels: np.ndarray, size: Size, part: Part) -> np.ndarray:
    top, left, height, width = part
    resized = to_pillow(pixels).resize(size[::-1], Image.Resampling.BICUBIC)
    return from_pillow(resized.crop((left, top, left + width, top + height)))


def _kernel() -> Resize | None:
    """The compiled one, where torch is and something has loaded the kernels; for this alone nothing is loaded or compiled."""
    if sys.modules.get("torch") is None:
        return None
    from convnext.kernels.dispatch import at_hand

    return _checked() if at_hand() else None


@functools.cache
def _checked() -> Resize | None:
    """The compiled one in the order of this Pillow; None where their bits differ on the probes: a Pillow that is not known."""
    from convnext.kernels import cpu

    def by(order: Order) -> Resize:
        def kernel(pixels: np.ndarray, size: Size, part: Part) -> np.ndarray:
            return cpu.resize(pixels, size, part, down_first=order((pixels.shape[0], pixels.shape[1]), size))

        return kernel

    def same(kernel: Resize, before: Size, after: Size) -> bool:
        noise = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
        return np.array_equal(kernel(noise, after, (0, 0, *after)), _by_pillow(noise, after, (0, 0, *after)))

    for order in (_of_pillow_13, _of_pillow_12):
        if all(same(by(order), *probe) for probe in _PROBES):
            return by(order)
    return None


def _of_pillow_13(before: Size, after: Size) -> bool:
    """Columns first where the height shrinks by more than twice what the width does: found by trying, no document says it."""
    return after[0] < before[0] and before[0] - after[0] > 2 * (before[1] - after[1])


def _of_pillow_12(before: Size, after: Size) -> bool:
    return False
