"""What follows the network of a segmenter, in NumPy: logits at the size of an image, and the classes of its pixels.

As `inference` does with torch. Axes: K classes, h w rows and columns of logits, H W of the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.data.sample import IGNORE

_ROWS = 64  # of the image, that are in memory at a time
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """The answer for one image."""

    mask: NDArray[np.uint8]  # (H, W)
    scores: Floats  # (H, W) of those classes
    loss: float  # cross-entropy, summed over the pixels of the ground truth that count; 0 without one


def labelled(logits: Floats, size: tuple[int, int], ground_truth: NDArray[np.uint8] | None = None) -> Labelled:
    """From (K, h, w) logits to the classes of an image of `size`: bilinear, half-pixel centres; softmax; the likeliest."""
    mask, scores, loss = np.empty(size, np.uint8), np.empty(size, np.float32), 0.0
    rows, columns = _taps(logits.shape[1], size[0]), _taps(logits.shape[2], size[1])
    for top in range(0, size[0], _ROWS):
        part = slice(top, top + _ROWS)
        x = _blended(_blended(logits, tuple(each[part] for each in rows), 1), columns, 2)
        x -= x.max(0)
        log_p = x - np.log(np.exp(x).sum(0))
        mask[part], scores[part] = log_p.argmax(0), np.exp(log_p.max(0))
        if ground_truth is not None:
            labels = ground_truth[part]
            counted = labels != IGNORE
            picked = np.take_along_axis(log_p, np.where(counted, labels, 0)[None].astype(np.int64), 0)[0]
            loss -= float(picked[counted].sum(dtype=np.float64))
    return Labelled(mask, scores, loss)


def _taps(old: int, new: int) -> tuple[NDArray, ...]:
    """Of each of `new` pixels the two that it lies between, and the share of the second."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def _blended(x: Floats, taps: tuple[NDArray, ...], axis: int) -> Floats:
    first, second, share = taps
    if x.shape[axis] == len(first) and not share.any():
        return x.copy()
    wide = share if axis == 2 else share[:, None]
    found: Floats = x.take(first, axis) * (1 - wide) + x.take(second, axis) * wide
    return found
