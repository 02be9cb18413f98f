"""What is known about images: their objects as a file of annotations has them, at full precision.

Axes: H W pixel rows and columns, M objects of an image, N images, T objects of all of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, overload

import msgspec
import numpy as np

from convnext.data.masks import Rle, Shape, compress, render
from convnext.data.names import Names
from convnext.errors import DataError

_LEAST = 6  # numbers of a polygon


@dataclass(frozen=True)
class Objects:
    """The objects of one image as their file has them, at full precision."""

    boxes: np.ndarray  # (M, 4) float64 x0 y0 x1 y1: pixels, or shares of the image's sides where `relative`
    labels: np.ndarray  # (M,) int64
    crowd: np.ndarray  # (M,) bool
    area: np.ndarray  # (M,) float64 pixels, NaN where the file does not say
    ids: np.ndarray  # (M,) int64, unique in the data set and never 0
    shapes: Sequence[Shape | None]  # None: the box is all that is known
    relative: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def outlined(self) -> np.ndarray:
        """(M,) bool: an outline is known."""
        if isinstance(self.shapes, Outlines):
            return self.shapes.known
        return np.array([shape is not None for shape in self.shapes], bool)

    def in_pixels(self, height: int, width: int) -> "Objects":
        """The same with boxes and outlines in pixels of an image of (height, width), and every area known."""
        boxes, shapes = self.boxes, self.shapes
        if self.relative:
            side = np.array([width, height], np.float64)
            boxes = boxes * np.tile(side, 2)
            shapes = tuple(
                shape if shape is None or isinstance(shape, Rle) else tuple(points * side for points in shape)
                for shape in shapes
            )
        areas = self.area.copy()
        for number in np.flatnonzero(np.isnan(areas)).tolist():
            shape = shapes[number]
            x0, y0, x1, y1 = boxes[number]
            areas[number] = (x1 - x0) * (y1 - y0) if shape is None else int(render(shape, height, width).sum())
        return replace(self, boxes=boxes, shapes=shapes, area=areas, relative=False)

    def scaled(self, height: float, width: float) -> "Objects":
        """The same for an image whose sides are so many times as long. Raises DataError for masks of one size alone."""
        if any(isinstance(shape, Rle) for shape in self.shapes):
            raise DataError("its masks are run lengths of more pixels than are read; make image and masks smaller")
        if self.relative:
            return self
        ratio = np.array([width, height], np.float64)
        shapes = tuple(
            shape if shape is None or isinstance(shape, Rle) else tuple(points * ratio for points in shape)
            for shape in self.shapes
        )
        return replace(self, boxes=self.boxes * np.tile(ratio, 2), shapes=shapes, area=self.area * height * width)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image of a data set: a path that its store can read (`printable` shows it), and what is known about it."""

    path: str
    image_id: int
    size: tuple[int, int] | None = None  # (H, W) as the annotations have it; None: they do not say
    objects: Objects | None = None
    semantic: str | None = None  # path of the label map, in the same store


class Row(NamedTuple):
    """One object while its file is read; an id of 0 stands for none."""

    box: tuple[float, float, float, float]
    label: int
    shape: Shape | None = None
    crowd: bool = False
    area: float = math.nan
    id: int = 0


def objects_of(rows: Sequence[Row], *, relative: bool = False) -> Objects:
    """Rows as one `Objects`."""
    return Objects(
        np.array([row.box for row in rows], np.float64).reshape(len(rows), 4),
        np.array([row.label for row in rows], np.int64),
        np.array([row.crowd for row in rows], bool),
        np.array([row.area for row in rows], np.float64),
        np.array([row.id for row in rows], np.int64),
        tuple(row.shape for row in rows),
        relative,
    )


class Outlines(Sequence[Shape | None]):
    """Outlines as the text that a COCO file has for them, checked and left so until one is needed."""

    def __init__(self, texts: tuple[bytes, bytes], first: np.ndarray, last: np.ndarray):
        self.texts, self.first, self.last = texts, first, last  # (M,) int64 places in both texts, one behind the other

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, place: int) -> Shape | None: ...
    @overload
    def __getitem__(self, place: slice) -> "Outlines": ...
    def __getitem__(self, place: int | slice) -> "Shape | Outlines | None":
        if isinstance(place, slice):
            return Outlines(self.texts, self.first[place], self.last[place])
        first, last = int(self.first[place]), int(self.last[place])
        if first == last:
            return None
        border = len(self.texts[0])
        text = self.texts[0][first:last] if first < border else self.texts[1][first - border : last - border]
        return _shape(msgspec.json.decode(text))

    @property
    def known(self) -> np.ndarray:
        """(M,) bool: there is an outline."""
        return self.last > self.first


def _shape(content: list | dict) -> Shape:
    """An outline that was found good: polygons of fewer than three points are passed over."""
    if isinstance(content, dict):
        counts, (height, width) = content["counts"], content["size"]
        text = (
            compress(np.array(counts, np.int64))
            if isinstance(counts, list)
            else str(counts).encode("utf-8", "surrogatepass")
        )
        return Rle(int(height), int(width), text)
    polygons = content if isinstance(content[0], list) else [content]
    return tuple(np.array(flat, np.float64).reshape(-1, 2) for flat in polygons if len(flat) >= _LEAST)


@dataclass(frozen=True)
class Pool:
    """The objects of all images in an array for each column, as `Objects` has them for one image."""

    boxes: np.ndarray  # (T, 4) float64
    labels: np.ndarray  # (T,) int64
    crowd: np.ndarray  # (T,) bool
    area: np.ndarray  # (T,) float64
    ids: np.ndarray  # (T,) int64
    outlines: Outlines

    def objects(self, part: slice) -> Objects:
        """Those of one image."""
        return Objects(
            self.boxes[part], self.labels[part], self.crowd[part], self.area[part], self.ids[part], self.outlines[part]
        )


class AnnotatedImages(Sequence[AnnotatedImage]):
    """Very many annotated images, each made when somebody asks for it."""

    def __init__(self, paths: Names, ids: np.ndarray, sizes: np.ndarray, borders: np.ndarray, pool: Pool):
        self.paths, self.ids = paths, ids  # (N,) integers
        self.sizes, self.borders = sizes, borders  # (N, 2) int64 H W, zeros where unknown; (N, 2) int64 into the pool
        self.pool = pool

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, place: slice) -> "AnnotatedImages": ...
    def __getitem__(self, place: int | slice) -> "AnnotatedImage | AnnotatedImages":
        if isinstance(place, slice):
            return self.take(place)
        return self._image(self.paths[place], int(self.ids[place]), self.sizes[place], self.borders[place])

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return map(self._image, self.paths, self.ids.tolist(), self.sizes, self.borders)

    def _image(self, path: str, number: int, size: np.ndarray, border: np.ndarray) -> AnnotatedImage:
        height, width = size.tolist()
        return AnnotatedImage(
            path, number, (height, width) if height else None, self.pool.objects(slice(*border.tolist()))
        )

    def take(self, places: np.ndarray | slice) -> "AnnotatedImages":
        """Those at `places`: numbers, a bool for each, or a slice. The objects are shared."""
        paths, borders = self.paths.take(places), self.borders[places]
        return AnnotatedImages(paths, self.ids[places], self.sizes[places], borders, self.pool)

    def relabelled(self, labels: np.ndarray) -> "AnnotatedImages":
        """The same with `labels[old]` in place of each label."""
        pool = replace(self.pool, labels=labels[self.pool.labels])
        return AnnotatedImages(self.paths, self.ids, self.sizes, self.borders, pool)


def files_of(image: AnnotatedImage) -> list[str]:
    """What is read of an image: its own file and that of its mask, where it has one."""
    return [image.path] if image.semantic is None else [image.path, image.semantic]


def select(images: Sequence[AnnotatedImage], chosen: np.ndarray) -> Sequence[AnnotatedImage]:
    """Those that `chosen`, a bool for each, names."""
    if isinstance(images, AnnotatedImages):
        return images.take(chosen)
    return tuple(image for image, kept in zip(images, chosen.tolist(), strict=True) if kept)


def relabelled(images: Sequence[AnnotatedImage], labels: np.ndarray) -> Sequence[AnnotatedImage]:
    """The same images with `labels[old]` in place of each label."""
    if isinstance(images, AnnotatedImages):
        return images.relabelled(labels)
    return tuple(
        replace(image, objects=replace(image.objects, labels=labels[image.objects.labels]))
        if image.objects is not None
        else image
        for image in images
    )
