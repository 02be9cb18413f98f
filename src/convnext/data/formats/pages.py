"""Annotated images as they come out of their files, one after the other, on the way to data sets.

What forms have in common that name an image and list what people drew on it: labelme, CVAT, VIA, Supervisely.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.dataset import DenseDataset
from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.json_kinds import flaw_of
from convnext.data.formats.shapes import joined, rectangle
from convnext.data.masks import Rle, Shape
from convnext.data.masks import box as box_of
from convnext.data.parts import part_of
from convnext.data.problems import (
    CUT,
    DAMAGED,
    DOUBLE,
    EMPTY,
    MISSING,
    UNANNOTATED,
    Box,
    Problem,
    WrongError,
    extent,
    fitting_box,
)
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.errors import DataError

Size = tuple[int, int]  # (H, W)


class Thing(NamedTuple):
    """Something drawn on an image. `shape` None: a box is all there is."""

    label: str
    shape: Shape | None
    box: Box | None = None  # None: that round the shape
    where: str = ""  # what messages call it
    group: object = None  # things of one label and one group are one object; None: it is one by itself


class Pages:
    """The images of a source, each added once. What cannot be used is named in `problems` and left out."""

    def __init__(self, source: Source):
        self.source = source
        self.finder = finder_of(source.images)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._filled = source.task == "segmentation"  # there a rectangle is an area
        self._labels: dict[str, int] = {}
        self._listed = False
        self._count, self._first, self._missing = 0, "", 0
        self._entries: dict[str, list[AnnotatedImage]] = {}
        self._used: set[str] = set()
        self._damaged: set[str] = set()

    def list_classes(self, names: Iterable[str]) -> None:
        """Classes that a file lists, in its order; without such a list they are sorted."""
        for name in names:
            self._labels.setdefault(name, len(self._labels))
            self._listed = True

    def find(self, name: str, *, part: str = "", beside: str = "", stem: str = "") -> str | None:
        """The image that a file in the folder `beside` calls `name`, else that of the path `stem` without ending."""
        here = beside if self.source.images is self.source.tree else ""
        found = self.finder.find(name, part, beside=here) if name else None
        return found or (self.finder.find_stem(stem, part) if stem else None)

    def miss(self, name: str) -> None:
        """An image that is not there."""
        self._missing += 1
        self._first = self._first or name
        self.problems.append(Problem(MISSING, printable(name)))

    def damage(self, file: str, why: str, image: str | None = None) -> None:
        """A file of annotations that cannot be read. `image`: the one that it is about, which is left out with it."""
        self.problems.append(Problem(DAMAGED, printable(file), why))
        self._damaged |= {image} if image is not None else set()

    def check_beside(self, file: str, data: bytes, image: str | None) -> None:
        """A JSON file of no known kind: if it lies beside an image and is cut off, it is named with the reason."""
        if image is not None and (why := flaw_of(data)):
            self.damage(file, why, image)

    def add(self, path: str, things: Sequence[Thing], size: Size | None, *, part: str = "", file: str = "") -> None:
        """An image and what is drawn on it. `part`: what its file says; '': its folders, and those of `file`, say it."""
        if path in self._used:
            self.problems.append(Problem(DOUBLE, printable(path), f"in {printable(file)}" if file else ""))
            return
        self._used.add(path)
        rows = []
        for thing in self._grouped(things, size):
            try:
                rows.append(self._row(thing, size))
            except WrongError as wrong:
                self.problems.append(Problem(wrong.kind, thing.where, wrong.what))
        part = part or part_of(file) or part_of(path) or "all"
        number = len(self._used)
        self._entries.setdefault(part, []).append(AnnotatedImage(path, number, size, objects_of(rows)))

    def name_others(self) -> None:
        """Images that no file is about, where each image has a file of its own."""
        others = (file for file in self.finder.images if file not in self._used | self._damaged)
        self.problems += [Problem(UNANNOTATED, printable(file)) for file in others]

    @property
    def is_begun(self) -> bool:
        """Whether an image was named, there or not."""
        return bool(self._used) or self._missing > 0

    @property
    def has_objects(self) -> bool:
        """Whether anything that was drawn can be used."""
        return self._count > 0

    def parts(self) -> dict[str, DenseDataset]:
        """The data sets by part. Raises DataError when there is none, or nothing is drawn anywhere."""
        name = self.source.name
        if not self._entries:
            raise DataError(
                f"none of the {self._missing} images of '{name}' is there; the first is '{printable(self._first)}'. "
                "Name their folder or zip with --images."
            )
        if not self._labels:
            why = f" The first of {len(self.problems)} findings: {_told(self.problems[0])}." if self.problems else ""
            raise DataError(f"'{name}' has no object that can be read in any of its files.{why}")
        order = list(self._labels) if self._listed else sorted(self._labels)
        moved = np.array([order.index(label) for label in self._labels], np.int64)
        blank = DenseDataset(
            "detection", tuple(order), (), self.source.store, category_ids=tuple(range(1, len(order) + 1)),
            problems=tuple(self.problems), notes=tuple(self.notes),
        )  # fmt: skip
        return {
            part: replace(blank, entries=tuple(_moved(entry, moved) for entry in entries))
            for part, entries in self._entries.items()
        }

    def _grouped(self, things: Sequence[Thing], size: Size | None) -> list[Thing]:
        """Things of one label and group as one, at the place of the first."""
        groups: dict[object, list[Thing]] = {}
        for place, thing in enumerate(things):
            groups.setdefault((thing.label, thing.group) if thing.group is not None else place, []).append(thing)
        return [self._one(group, size) if len(group) > 1 else group[0] for group in groups.values()]

    def _one(self, group: list[Thing], size: Size | None) -> Thing:
        boxes = [thing.box for thing in group if thing.box is not None]
        if all(thing.shape is None for thing in group):
            edges = np.array(boxes)
            low, high = edges[:, :2].min(axis=0).tolist(), edges[:, 2:].max(axis=0).tolist()
            return group[0]._replace(box=(low[0], low[1], high[0], high[1]))
        shapes = [_filled(thing) for thing in group]
        try:
            return group[0]._replace(shape=joined(shapes, size), box=None)
        except WrongError as wrong:
            self.problems.append(Problem(wrong.kind, group[0].where, wrong.what))
            return group[0]

    def _row(self, thing: Thing, size: Size | None) -> Row:
        box = thing.box or _around(thing.shape)
        shape = _filled(thing) if self._filled else thing.shape
        place, cut = fitting_box(box, size)
        if cut:
            self.problems.append(Problem(CUT, thing.where, " ".join(f"{edge:g}" for edge in box)))
        label = self._labels.setdefault(thing.label, len(self._labels))
        self._count += 1
        return Row(place, label, shape, id=self._count)


def _filled(thing: Thing) -> Shape:
    if thing.shape is not None:
        return thing.shape
    assert thing.box is not None
    return (rectangle(*thing.box),)


def _around(shape: Shape | None) -> Box:
    if shape is None:
        raise WrongError(EMPTY, "neither box nor outline")
    return box_of(shape) if isinstance(shape, Rle) else extent(shape)


def _moved(entry: AnnotatedImage, labels: np.ndarray) -> AnnotatedImage:
    assert entry.objects is not None
    return replace(entry, objects=replace(entry.objects, labels=labels[entry.objects.labels]))


def _told(problem: Problem) -> str:
    return f"{problem.where} ({problem.what or problem.kind})"
