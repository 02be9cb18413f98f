"""All labelled images of a data set in one row, with the part of each: what is looked at as a whole."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.data.formats.folders import listed
from convnext.data.formats.listing import PARTS
from convnext.data.labelled import Dataset
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.errors import DataError


@dataclass(frozen=True)
class Whole:
    """Every labelled image of a source, whatever its part."""

    dataset: Dataset
    part: NDArray[np.int8]  # (N,) into PARTS
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently

    def part_of(self, place: int) -> str:
        """'train', 'val', 'test', or '' where the data have no parts."""
        return PARTS[int(self.part[place])]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) into the classes."""
        entries = self.dataset.entries
        return np.fromiter((entry.label for entry in entries), np.int64, len(entries))


def open_whole(source: Source) -> Whole:
    """Every labelled image of class folders or a table. Raises DataError where there are not two classes of them."""
    listing = listed(source, only=True)
    if listing.labels.ndim == 2:
        raise DataError(
            f"'{source.name}' has several labels an image, and a look at all images is for one. Name data with one each.",
            listing.said,
        )
    shown = np.unique(listing.labels)
    if len(shown) < 2:
        raise DataError(
            f"'{source.name}' has images of one class only ('{printable(listing.classes[shown[0]])}'); two or more are "
            "needed. Add a second class folder.",
            listing.said,
        )
    return Whole(listing.dataset(np.ones(len(listing.labels), bool)), listing.part, listing.notes)
