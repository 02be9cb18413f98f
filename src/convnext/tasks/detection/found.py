"""What was found in one image, in its own pixels, and masks brought from their boxes to them. NumPy alone.

Axes: D detections, S rows and columns of a predicted mask, H W rows and columns of an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.formats.export import results
from convnext.data.masks import Rle, encode_inside

Size = tuple[int, int]  # (height, width) in pixels

_PASTED_AT_ONCE = 2**24  # pixels; more would only cost memory


@dataclass(frozen=True)
class Found:
    """What was found in one image, best score first, in pixels of the original."""

    path: str
    image_id: int
    size: Size  # (height, width) of the original image
    boxes: NDArray[np.float32]  # (D, 4) x0 y0 x1 y1
    scores: NDArray[np.float32]  # (D,) 0 to 1
    labels: NDArray[np.int64]  # (D,)
    masks: tuple[Rle, ...] | None  # of the whole image; None from a detector of boxes

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Found":
        """Only what has at least this score."""
        return self._take(np.flatnonzero(self.scores >= score))

    def first(self, count: int) -> "Found":
        """Only the `count` best."""
        return self._take(np.arange(min(count, len(self))))

    def _take(self, which: NDArray[np.int64]) -> "Found":
        masks = None if self.masks is None else tuple(self.masks[place] for place in which)
        kept = (self.boxes[which], self.scores[which], self.labels[which])
        return Found(self.path, self.image_id, self.size, *kept, masks)

    def rows(self, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The same as COCO's result file lists it; `category_ids` is COCO's number of each class."""
        return results(category_ids, self.image_id, self.boxes, self.labels, self.scores, self.masks)


def inside(boxes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """(D, 4) boxes cut at the borders of an image of (height, width) `size`."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def outlines(masks: NDArray[np.floating], boxes: NDArray[np.float32], size: Size) -> tuple[Rle, ...]:
    """The masks of a whole image that (D, S, S) probabilities inside (D, 4) boxes are."""
    pairs = zip(masks.astype(np.float64), boxes.astype(np.float64), strict=True)
    return tuple(outline(mask, box, size) for mask, box in pairs)


def outline(mask: NDArray[np.float64], box: NDArray[np.float64], size: Size) -> Rle:
    """The mask of (height, width) `size` that (S, S) probabilities inside one `box` (4,) are; drawn in that box alone.

    A mask is nowhere as likely as 0.5 outside of its box, so nothing is lost.
    """
    height, width = size
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if right <= left or bottom <= top:
        return encode_inside(np.zeros((0, 0), bool), 0, 0, height, width)
    moved = box - np.array([left, top, left, top])
    return encode_inside(paste(mask[None], moved[None], (bottom - top, right - left))[0], top, left, height, width)


def paste(
    masks: NDArray[np.floating], boxes: NDArray[np.floating], size: Size, threshold: float = 0.5
) -> NDArray[np.bool_]:
    """(D, H, W): (D, S, S) probabilities inside (D, 4) boxes, read bilinearly at every pixel centre of the image.

    Outside of the box, and beyond half a mask position, is 0. Memory is H * W bytes a detection: paste few at a time
    where they only are to be encoded.
    """
    height, width = size
    pasted = np.zeros((len(masks), height, width), np.bool_)
    step = max(1, _PASTED_AT_ONCE // max(1, height * width))
    for first in range(0, len(masks), step):
        part = slice(first, first + step)
        rows = _weights(boxes[part, 1], boxes[part, 3], height, masks.shape[-2])  # (d, H, S)
        columns = _weights(boxes[part, 0], boxes[part, 2], width, masks.shape[-1])  # (d, W, S)
        pasted[part] = rows @ masks[part] @ columns.transpose(0, 2, 1) >= threshold
    return pasted


def _weights(
    low: NDArray[np.floating], high: NDArray[np.floating], pixels: int, positions: int
) -> NDArray[np.floating]:
    """(D, pixels, positions): how much each position between `low` and `high` gives to each pixel centre, bilinearly."""
    centres = np.arange(pixels, dtype=low.dtype) + low.dtype.type(0.5)
    extent = np.maximum(high - low, 1e-6)[:, None]
    place = (centres - low[:, None]) / extent * positions - low.dtype.type(0.5)  # (D, pixels), in positions
    weights: NDArray[np.floating] = np.maximum(1 - np.abs(place[..., None] - np.arange(positions, dtype=low.dtype)), 0)
    return weights
