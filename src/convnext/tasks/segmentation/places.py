"""Where a segmenter looks: the image at the size of evaluation, and the windows that slide over it. No torch here."""

import math
from collections.abc import Iterator
from dataclasses import replace

from convnext.config import AnnotatedInput
from convnext.data.annotated_policy import eval_dense
from convnext.data.sample import Sample

Place = tuple[slice, slice]  # rows and columns


def seen(config: AnnotatedInput, sample: Sample) -> Sample:
    """The image as evaluation sees it, with its map as it was: answers are brought to the map, not the reverse."""
    return replace(eval_dense(replace(sample, semantic=None), config), semantic=sample.semantic)


def windows(height: int, width: int, window: int, stride: int) -> Iterator[Place]:
    """Places of a square window that cover everything; the last of a row or column is moved back inside."""
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            yield slice(top, min(height, top + window)), slice(left, min(width, left + window))


def _starts(side: int, window: int, stride: int) -> list[int]:
    steps = max(0, math.ceil((side - window) / stride))
    return [min(i * stride, max(0, side - window)) for i in range(steps + 1)]
