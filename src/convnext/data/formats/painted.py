"""Semantic segmentation from outlines: the objects of an image painted as one mask, in the order of their file.

What no outline covers is background. A box without an outline says nothing about its pixels: there they do not count.

Axes: H W pixel rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convnext.data.annotated import AnnotatedImage
from convnext.data.dataset import DenseDataset
from convnext.data.decode import read_size
from convnext.data.formats.mask_colours import NOT_COUNTED
from convnext.data.masks import render
from convnext.data.sample import IGNORE
from convnext.data.store import Store, printable
from convnext.errors import DataError, number_of

_BACKGROUND = ("background", "_background_")
_PREFIX = "outlines of "


def painted(parts: dict[str, DenseDataset], name: str) -> dict[str, DenseDataset]:
    """The same images with masks to segment by, in place of objects; `parts` share their classes.

    Raises DataError where no object has an outline, or there are more classes than a mask can hold.
    """
    classes = next(iter(parts.values())).classes
    if not any(part.has_masks for part in parts.values()):
        raise DataError(
            f"'{name}' has boxes and no outlines: they do not say which pixels are of an object. Name data with masks or "
            "outlines, or say --task detection."
        )
    ground = next((known for known in classes if known.lower() in _BACKGROUND), _BACKGROUND[0])
    counted = tuple(known for known in classes if known != ground and known.lower() not in NOT_COUNTED)
    if len(counted) >= IGNORE:
        raise DataError(
            f"'{name}' has {len(counted)} classes, more than the {IGNORE - 1} that a mask of 8 bits can hold."
        )
    shown = {known: place for place, known in enumerate((ground, *counted))}
    values = tuple(shown.get(known, IGNORE) for known in classes)
    boxed = sum(
        int((~entry.objects.outlined).sum()) for part in parts.values() for entry in part.entries if entry.objects
    )
    notes = [f"Outlines are painted as masks in the order of their file; what none covers is '{printable(ground)}'."]
    if boxed:
        notes.append(f"{number_of(boxed, 'object')} without an outline: the pixels in the box do not count.")
    return {part: _part(data, tuple(shown), values, tuple(notes)) for part, data in parts.items()}


def _part(
    data: DenseDataset, classes: tuple[str, ...], values: tuple[int, ...], notes: tuple[str, ...]
) -> DenseDataset:
    entries = tuple(
        AnnotatedImage(entry.path, entry.image_id, entry.size, semantic=f"{_PREFIX}{entry.path} {place}")
        for place, entry in enumerate(data.entries)
    )
    return replace(
        data,
        task="segmentation",
        classes=classes,
        entries=entries,
        store=_Painter(data.store, data.entries, values),
        category_ids=(),
        values=(*range(len(classes)), *[IGNORE] * (256 - len(classes))),
        ignored=frozenset({IGNORE}),
        notes=(*data.notes, *notes),
    )


@dataclass(frozen=True)
class _Painter:
    """The images of a store, and masks that are painted when one is asked for."""

    images: Store
    entries: Sequence[AnnotatedImage]
    values: tuple[int, ...]  # of the mask, for each label

    def read(self, path: str) -> bytes:
        """The bytes of an image, or those of a mask: grey, as PGM, which costs nothing to pack."""
        if not path.startswith(_PREFIX):
            return self.images.read(path)
        mask = self._mask(self.entries[int(path.rpartition(" ")[2])])
        height, width = mask.shape
        return b"P5 %d %d 255\n" % (width, height) + mask.tobytes()

    def _mask(self, entry: AnnotatedImage) -> np.ndarray:
        """(H, W) uint8."""
        height, width = entry.size or read_size(self.images.read(entry.path))
        mask = np.zeros((height, width), np.uint8)
        if entry.objects is None:
            return mask
        known = np.zeros(len(entry.objects))  # areas, which would be counted where they are not
        objects = replace(entry.objects, area=known).in_pixels(height, width)
        for box in objects.boxes[~objects.outlined]:
            x0, y0, x1, y1 = np.clip(box, 0, (width, height, width, height))
            mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = IGNORE
        for label, shape in zip(objects.labels.tolist(), objects.shapes, strict=True):
            if shape is not None:
                mask[render(shape, height, width) > 0] = self.values[label]
        return mask
