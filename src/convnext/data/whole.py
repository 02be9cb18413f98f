"""All labelled images of a data set in one row, with the part of each: what is looked at as a whole."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.data.formats.folders import listed
from convnext.data.formats.listing import PARTS
from convnext.data.labelled import Dataset, present, rarest
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.errors import DataError


@dataclass(frozen=True)
class Whole:
    """Every labelled image of a source, whatever its part."""

    dataset: Dataset
    part: NDArray[np.int8]  # (N,) into PARTS
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently
    groups: NDArray[np.int32] | None = None  # (N,): images of one number stay together, those of 0 go alone

    def part_of(self, place: int) -> str:
        """'train', 'val', 'test', or '' where the data have no parts."""
        return PARTS[int(self.part[place])]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) into the classes; of images that may have several labels the rarest that each has, K where it has none."""
        said = self.dataset.labels()
        return said if said.ndim == 1 else rarest(said)

    def given(self, place: int) -> str:
        """What an image is labelled with, for people: 'cat', or of several labels 'cat, dog' or 'no label'."""
        entry, names = self.dataset.entries[place], self.dataset.classes
        if entry.marks is None:
            return names[entry.label]
        return ", ".join(name for name, mark in zip(names, entry.marks, strict=True) if mark == 1) or "no label"


def open_whole(source: Source) -> Whole:
    """Every labelled image of class folders, a table or texts. Raises DataError where there are not two classes of them."""
    listing = listed(source, only=True)
    several = listing.labels.ndim == 2
    shown = present(listing.labels)
    if several and not len(shown):
        raise DataError(f"No image of '{source.name}' has a label. Give some to those that have one.", listing.said)
    if not several and len(shown) < 2:
        raise DataError(
            f"'{source.name}' has images of one class only ('{printable(listing.classes[shown[0]])}'); two or more are "
            "needed. Add a second class folder.",
            listing.said,
        )
    return Whole(listing.dataset(np.ones(len(listing.labels), bool)), listing.part, listing.notes, listing.groups)
