"""Images in classes, in a fixed order: a path each, and a label, or of several labels a mark for each class.

Axes: N images, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from convnext.data.names import Names
from convnext.data.store import Store

UNKNOWN = -1  # a mark that says nothing: the image may have the class or not


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: a path that its dataset's store can read (`printable` shows it), and what is said of its classes."""

    path: str
    label: int  # -1 where unknown, and where there are marks
    marks: tuple[int, ...] | None = None  # of data with several labels an image, for each class: 1, 0 or UNKNOWN


class Entries(Sequence[Entry]):
    """Entries of very many images, each made when somebody asks for it."""

    def __init__(self, paths: Names, labels: np.ndarray):
        self.paths, self.labels = paths, labels  # (N,) integers, or (N, K) marks

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "Entries": ...
    def __getitem__(self, place: int | slice) -> "Entry | Entries":
        if isinstance(place, slice):
            return self.take(place)
        return _entry(self.paths[place], self.labels[place].tolist())

    def __iter__(self) -> Iterator[Entry]:
        return map(_entry, self.paths, self.labels.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entries):
            return NotImplemented
        return np.array_equal(self.labels, other.labels) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash((self.labels.tobytes(), self.paths))

    def take(self, places: np.ndarray | slice) -> "Entries":
        """Those at `places`: numbers, a bool for each, or a slice."""
        return Entries(self.paths.take(places), self.labels[places])

    def relabelled(self, places: np.ndarray, classes: int = 0) -> "Entries":
        """The same with `places[old]` in place of each label; marks are then those of so many `classes`."""
        return Entries(self.paths, replaced(self.labels, places, classes))


def _entry(path: str, said: int | list[int]) -> Entry:
    return Entry(path, -1, tuple(said)) if isinstance(said, list) else Entry(path, said)


@dataclass(frozen=True)
class Dataset:
    """Images in a fixed order, and the class names that their labels index."""

    classes: tuple[str, ...]
    entries: Sequence[Entry]
    store: Store

    @property
    def several(self) -> bool:
        """Whether an image may have several labels; without any image it has one."""
        if isinstance(self.entries, Entries):
            return self.entries.labels.ndim == 2
        return len(self.entries) > 0 and self.entries[0].marks is not None

    def labels(self, places: Sequence[int] | None = None) -> np.ndarray:
        """What is said of the images at `places`, None: all. (N,) int64; of several labels (N, K) int8 marks."""
        if isinstance(self.entries, Entries):
            held = self.entries.labels if places is None else self.entries.labels[np.array(places, np.int64)]
            return held if held.ndim == 2 else held.astype(np.int64)
        chosen = self.entries if places is None else [self.entries[place] for place in places]
        if self.several:
            return np.array([entry.marks for entry in chosen], np.int8).reshape(-1, len(self.classes))
        return np.array([entry.label for entry in chosen], np.int64)

    def relabelled(self, classes: tuple[str, ...], places: Sequence[int]) -> "Dataset":
        """The same images with labels that index `classes`: `places[old]` in place of each."""
        where = np.array(places, np.int32)
        if isinstance(self.entries, Entries):
            return Dataset(classes, self.entries.relabelled(where, len(classes)), self.store)
        labels = replaced(self.labels(), where, len(classes))
        made = (_entry(entry.path, said) for entry, said in zip(self.entries, labels.tolist(), strict=True))
        return Dataset(classes, tuple(made), self.store)


def replaced(labels: np.ndarray, places: np.ndarray, classes: int, *, absent: int = UNKNOWN) -> np.ndarray:
    """(N,) labels or (N, K) marks that index `classes` others: `places[old]` for each class, -1: it is none of them.

    `absent`: the mark of a class that is not among the old ones.
    """
    if labels.ndim == 1:
        return places[labels]
    out = np.full((len(labels), classes), absent, np.int8)
    out[:, places[places >= 0]] = labels[:, places >= 0]
    return out


def present(labels: np.ndarray) -> np.ndarray:
    """Numbers of the classes that an image has, in order; `labels` are (N,), or (N, K) marks."""
    return np.unique(labels) if labels.ndim == 1 else np.flatnonzero((labels == 1).any(0))


def rarest(marks: np.ndarray) -> np.ndarray:
    """(N, K) marks -> (N,) the rarest class of each image, K where it has none: parts with as many of each are alike."""
    has = marks == 1
    order = has.sum(0).argsort(kind="stable")  # the rarest class first
    return np.where(has.any(1), order[has[:, order].argmax(1)], marks.shape[1])


def counts_of(dataset: Dataset) -> np.ndarray:
    """(K,) images of each class."""
    labels, classes = dataset.labels(), len(dataset.classes)
    return (labels == 1).sum(0) if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=classes)


@dataclass(frozen=True)
class Splits:
    """The two parts of a data set, and the files that were found but left out, counted by ending."""

    train: Dataset
    val: Dataset
    left_out: dict[str, int] = field(default_factory=dict)
    val_share: float | None = None  # what was held out of data without a val part
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently
    given: Dataset | None = None  # `train` as it was before corrections, where there were any
    fold: tuple[int, int] | None = None  # of a cross-validation: which fold is held out, from 1, and of how many
    drawn: str = ""  # what was held out, as a checkpoint keeps it, where that does not follow from the paths
    units: np.ndarray | None = None  # of each train image: those of one number stay together, those of 0 go alone
    columns: Mapping[str, str] = field(default_factory=dict)  # of a table, those that a person named
