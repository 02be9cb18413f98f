"""Labelled images as class folders or a table list them: a path, a class and a part each."""

from dataclasses import dataclass, replace

import numpy as np

from convnext.data import parts
from convnext.data.labelled import UNKNOWN, Dataset, Entries, replaced
from convnext.data.names import Names
from convnext.data.scan import left_out_line
from convnext.data.store import Store
from convnext.errors import DataError

PARTS = ("", *parts.PARTS)  # '' where the data has no parts
TEST = "images of the test part"


@dataclass(frozen=True)
class Listing:
    """Every labelled image of a source."""

    paths: Names
    labels: np.ndarray  # (N,) int32 into `classes`; of several labels an image (N, K) int8 marks
    part: np.ndarray  # (N,) int8 into PARTS
    classes: tuple[str, ...]  # also those whose folder is empty, and those of the test part alone
    store: Store
    left_out: dict[str, int]
    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently
    only_test: frozenset[str] = frozenset()  # classes that the test part alone has
    absent: int = UNKNOWN  # the mark of a class that these data do not know
    groups: np.ndarray | None = None  # (N,) int32: images of one number stay in one part, those of 0 go alone

    def in_part(self, *names: str) -> np.ndarray:
        """(N,) bool."""
        return np.isin(self.part, [PARTS.index(name) for name in names])

    def as_several(self) -> "Listing":
        """The same as several labels an image, of which each has one."""
        if self.labels.ndim == 2:
            return self
        marks = (self.labels[:, None] == np.arange(len(self.classes))).astype(np.int8)
        return replace(self, labels=marks, absent=0)

    def trained_on(self) -> "Listing":
        """As training takes it: without the test part and its own classes, or with that as val where there is none."""
        test = self.in_part("test")
        if not test.any():
            return self
        if not self.in_part("val").any():
            return replace(self, part=np.where(test, np.int8(PARTS.index("val")), self.part))
        classes = tuple(name for name in self.classes if name not in self.only_test)
        place = {name: number for number, name in enumerate(classes)}
        places = np.array([place.get(name, -1) for name in self.classes], np.int32)
        labels = replaced(self.labels[~test], places, len(classes))
        return replace(
            self, paths=self.paths.take(~test), labels=labels, part=self.part[~test], classes=classes,
            groups=None if self.groups is None else self.groups[~test],
            left_out=self.left_out | {TEST: int(test.sum())},
        )  # fmt: skip

    @property
    def said(self) -> tuple[str, ...]:
        """What was understood and what was left out, for a refusal."""
        return (*self.notes, left_out_line(self.left_out))

    def scored(self, part: str | None, name: str) -> tuple["Listing", np.ndarray]:
        """What is evaluated on: these images or those that can be, and (N,) bool, which of them.

        `part` None: val where there is one, else test; all where there are no parts. `name` is what messages call the
        source. Raises DataError where there is no such part.
        """
        held = [known for known in parts.PARTS if self.in_part(known).any()]
        wanted = part or ("val" if "val" in held or "test" not in held else "test")
        if held and wanted not in held:
            raise DataError(
                f"'{name}' has no images in its {wanted} part, only in {' and '.join(held)}. Name another part, or the "
                "folder that holds the class folders.",
                self.said,
            )
        known = self if wanted == "test" else self.trained_on()
        return known, known.in_part(wanted if held else "")

    def dataset(self, chosen: np.ndarray, classes: tuple[str, ...] | None = None) -> Dataset:
        """The images that `chosen`, a bool for each, names. Labels index `classes`, None: its own, of which all are known."""
        labels = self.labels[chosen]
        if classes is not None and classes != self.classes:
            place = {name: number for number, name in enumerate(classes)}
            places = np.array([place.get(name, -1) for name in self.classes], np.int32)
            labels = replaced(labels, places, len(classes), absent=self.absent)
        return Dataset(classes or self.classes, Entries(self.paths.take(chosen), labels), self.store)
