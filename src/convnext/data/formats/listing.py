"""Labelled images as class folders or a table list them: a path, a class and a part each."""

from dataclasses import dataclass

import numpy as np

from convnext.data import parts
from convnext.data.labelled import Dataset, Entries
from convnext.data.names import Names
from convnext.data.store import Store

PARTS = ("", *parts.PARTS)  # '' where the data has no parts
TEST = "images of the test part"


@dataclass(frozen=True)
class Listing:
    """Every labelled image of a source."""

    paths: Names
    labels: np.ndarray  # (N,) int32 into `classes`
    part: np.ndarray  # (N,) int8 into PARTS
    classes: tuple[str, ...]  # also those whose folder is empty
    store: Store
    left_out: dict[str, int]
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently

    def in_part(self, *names: str) -> np.ndarray:
        """(N,) bool."""
        return np.isin(self.part, [PARTS.index(name) for name in names])

    def dataset(self, chosen: np.ndarray, classes: tuple[str, ...] | None = None) -> Dataset:
        """The images that `chosen`, a bool for each, names. Labels index `classes`, None: its own, of which all are known."""
        labels = self.labels[chosen]
        if classes is not None and classes != self.classes:
            place = {name: number for number, name in enumerate(classes)}
            labels = np.array([place.get(name, -1) for name in self.classes], np.int32)[labels]
        return Dataset(classes or self.classes, Entries(self.paths.take(chosen), labels), self.store)
