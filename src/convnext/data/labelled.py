"""Images in classes: a path and a label each, in a fixed order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from convnext.data.names import Names
from convnext.data.store import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: a path that its dataset's store can read (`printable` shows it), and a label, -1 where unknown."""

    path: str
    label: int


class Entries(Sequence[Entry]):
    """Entries of very many images, each made when somebody asks for it."""

    def __init__(self, paths: Names, labels: np.ndarray):
        self.paths, self.labels = paths, labels  # (N,) integers

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "Entries": ...
    def __getitem__(self, place: int | slice) -> "Entry | Entries":
        if isinstance(place, slice):
            return self.take(place)
        return Entry(self.paths[place], int(self.labels[place]))

    def __iter__(self) -> Iterator[Entry]:
        return map(Entry, self.paths, self.labels.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entries):
            return NotImplemented
        return np.array_equal(self.labels, other.labels) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash((self.labels.tobytes(), self.paths))

    def take(self, places: np.ndarray | slice) -> "Entries":
        """Those at `places`: numbers, a bool for each, or a slice."""
        return Entries(self.paths.take(places), self.labels[places])

    def relabelled(self, places: np.ndarray) -> "Entries":
        """The same with `places[old]` in place of each label."""
        return Entries(self.paths, places[self.labels])


@dataclass(frozen=True)
class Dataset:
    """Images in a fixed order, and the class names that their labels index."""

    classes: tuple[str, ...]
    entries: Sequence[Entry]
    store: Store

    def relabelled(self, classes: tuple[str, ...], places: Sequence[int]) -> "Dataset":
        """The same images with labels that index `classes`: `places[old]` in place of each."""
        if isinstance(self.entries, Entries):
            return Dataset(classes, self.entries.relabelled(np.array(places, np.int32)), self.store)
        return Dataset(classes, tuple(Entry(entry.path, places[entry.label]) for entry in self.entries), self.store)


def labels_of(dataset: Dataset) -> np.ndarray:
    """(N,) integers, -1 where unknown."""
    if isinstance(dataset.entries, Entries):
        return dataset.entries.labels
    return np.fromiter((entry.label for entry in dataset.entries), np.int64, len(dataset.entries))


def counts_of(dataset: Dataset) -> np.ndarray:
    """(K,) images of each class."""
    return np.bincount(labels_of(dataset), minlength=len(dataset.classes))


@dataclass(frozen=True)
class Splits:
    """The two parts of a data set, and the files that were found but left out, counted by ending."""

    train: Dataset
    val: Dataset
    left_out: dict[str, int] = field(default_factory=dict)
    val_share: float | None = None  # what was held out of data without a val part
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently
