"""Shapes that people draw, as outlines: rectangles and ellipses, turned or not, masks in a corner of the image, groups.

Axes: P points of an outline, (x, y) in pixels; H W pixel rows and columns.
"""

import math
from collections.abc import Sequence

import numpy as np

from convnext.data.masks import Rle, Shape, encode, encode_inside, render
from convnext.data.problems import EMPTY, MASK_SIZE, UNREADABLE, WrongError

_OFF_PX = 0.05  # how far the edges of a drawn ellipse may lie inside the true one
_LEAST = 16  # its points


def rectangle(x0: float, y0: float, x1: float, y1: float, turned: float = 0.0) -> np.ndarray:
    """(4, 2) float64: the corners, `turned` by radians about the middle, clockwise on the screen."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    return _turned(corners, (x0 + x1) / 2, (y0 + y1) / 2, turned)


def ellipse(x: float, y: float, across: float, down: float, turned: float = 0.0) -> np.ndarray:
    """(P, 2) float64: points of an ellipse by its centre and both radii, `turned` as `rectangle`.

    Raises WrongError for radii that are not above 0.
    """
    if min(across, down) <= 0:
        raise WrongError(EMPTY, f"an ellipse of radii {across:g} and {down:g}")
    count = max(_LEAST, math.ceil(math.pi * math.sqrt(max(across, down) / (2 * _OFF_PX))))
    angle = 2 * math.pi * np.arange(count) / count
    points = np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], axis=1)
    return _turned(points, x, y, turned)


def _turned(points: np.ndarray, x: float, y: float, angle: float) -> np.ndarray:
    if not angle:
        return points
    across, down = points[:, 0] - x, points[:, 1] - y
    sine, cosine = math.sin(angle), math.cos(angle)
    return np.stack([x + cosine * across - sine * down, y + sine * across + cosine * down], axis=1)


def require_room(height: int, width: int, size: tuple[int, int] | None) -> None:
    """Raise WrongError where a mask of (height, width), before it is unpacked, cannot be of an image of `size` (H, W)."""
    if size is None:
        raise WrongError(UNREADABLE, "a mask of an image whose height and width are not written")
    if height > size[0] + 1 or width > size[1] + 1:  # some tools count one pixel more
        raise WrongError(MASK_SIZE, f"a mask of {width} x {height} in an image of {size[1]} x {size[0]}")


def placed(mask: np.ndarray, top: int, left: int, size: tuple[int, int] | None) -> Rle:
    """The run lengths of a mask (h, w) whose first pixel lies at (top, left) of an image of `size` (H, W).

    What reaches beyond the image is cut. Raises WrongError where nothing is left, or the size is not known.
    """
    require_room(mask.shape[0], mask.shape[1], size)
    assert size is not None
    height, width = size
    rows, columns = slice(max(0, -top), max(0, height - top)), slice(max(0, -left), max(0, width - left))
    part = mask[rows, columns]
    if not part.any():
        raise WrongError(MASK_SIZE, f"a mask at {left} {top} without a pixel in {width} x {height}")
    return encode_inside(part, max(0, top), max(0, left), height, width)


def joined(shapes: Sequence[Shape], size: tuple[int, int] | None) -> Shape:
    """Several shapes of one object as one. Raises WrongError where that needs the image's size and it is not known."""
    if len(shapes) == 1:
        return shapes[0]
    polygons = tuple(points for shape in shapes if not isinstance(shape, Rle) for points in shape)
    if not any(isinstance(shape, Rle) for shape in shapes):
        return polygons
    if size is None:
        raise WrongError(UNREADABLE, "a mask of an image whose height and width are not written")
    whole = np.zeros(size, np.uint8)
    for shape in shapes:
        whole |= render(shape, *size)
    return encode(whole)
