"""Annotations of photos that lie on the disk in another way than people see them: EXIF's orientation, 1 to 8.

Axes: H W pixel rows and columns, M objects. 'Stored' is before the turn, 'upright' after it.
"""

from dataclasses import replace

import numpy as np

from convnext.data.annotated import Objects
from convnext.data.decode import Opened
from convnext.data.masks import encode, render
from convnext.data.upright import MIRRORED_X, MIRRORED_Y, SWAPPED, turned_pixels
from convnext.errors import DataError

Size = tuple[int, int]  # (H, W)


def made_before_turn(size: Size | None, upright: Size, orientation: int) -> bool:
    """Whether annotations of `size` belong to the stored image; None: they do not say, and belong to the upright one.

    Raises DataError where they belong to neither.
    """
    if size is None or size == upright:
        return False
    if size == upright[::-1] and orientation in SWAPPED:
        return True
    swapped = ": its sides are swapped, and its EXIF does not turn it" if size == upright[::-1] else ""
    raise DataError(
        f"it has {upright[1]} x {upright[0]} pixels, and its annotations are for {size[1]} x {size[0]}{swapped}"
    )


def is_doubtful(size: Size | None, upright: Size, orientation: int) -> bool:
    """Whether a photo is turned and the size of its annotations does not say if they were made before that."""
    return orientation != 1 and (size is None or upright[0] == upright[1] or orientation not in SWAPPED)


def turned_boxes(boxes: np.ndarray, stored: Size, orientation: int) -> np.ndarray:
    """(M, 4) boxes x0 y0 x1 y1 in pixels of the stored image of size `stored` -> of the upright one."""
    height, width = stored
    x0, y0, x1, y1 = boxes.T
    if orientation in SWAPPED:
        x0, y0, x1, y1, height, width = y0, x0, y1, x1, width, height
    if orientation in MIRRORED_X:
        x0, x1 = width - x1, width - x0
    if orientation in MIRRORED_Y:
        y0, y1 = height - y1, height - y0
    return np.stack([x0, y0, x1, y1], axis=1)


def upright_objects(objects: Objects, size: Size | None, upright: Size, photo: bytes) -> Objects:
    """`objects`, whose annotations have `size`, in pixels of the upright image; `photo`: the bytes of its file.

    Outlines that turn become run lengths, pixel for pixel those of the stored image. Raises DataError for a size that
    is not the image's.
    """
    if size in (None, upright):
        return objects.in_pixels(*upright)
    orientation = Opened(photo).orientation
    made_before_turn(size, upright, orientation)
    stored = upright[::-1]
    objects = objects.in_pixels(*stored)
    shapes = (
        None if shape is None else encode(turned_pixels(render(shape, *stored), orientation))
        for shape in objects.shapes
    )
    return replace(objects, boxes=turned_boxes(objects.boxes, stored, orientation), shapes=tuple(shapes))
