"""COCO JSON: polygons, run lengths both ways, crowds, empty images; read with every mistake named and left out.

The format's boxes are x y width height; here and everywhere else in this package they are x0 y0 x1 y1.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convnext.data.dataset import AnnotatedImage, DenseDataset, Row, objects_of
from convnext.data.formats.files import ImageFinder, open_tree, part_of_name
from convnext.data.masks import Rle, Shape, box, compress, decompress
from convnext.data.problems import (
    CUT,
    DOUBLE,
    FEW_POINTS,
    MASK_SIZE,
    MISSING,
    STRAY,
    UNKNOWN,
    UNREADABLE,
    Problem,
    WrongError,
    extent,
    fitting_box,
    numbers,
    polygons_of,
    whole,
)
from convnext.data.store import Tree, is_zip, printable, require, tree_of
from convnext.errors import DataError

_MOST_AREA = 1e12  # in pixels; more, and NaN, is as good as none
_KEYS = (b'"images"', b'"annotations"', b'"categories"')


def open_coco(path: str | Path, images: str | Path | None = None) -> dict[str, DenseDataset]:
    """The data sets of a COCO JSON file, or of all such files in a folder or zip, by part: 'train', 'val', 'test', 'all'.

    `images`: the folder or zip of the images; None: they are looked for beside the annotations, however deep.
    A single file is 'all'. Raises DataError when nothing can be read.
    """
    path = Path(path)
    require(path)
    if path.is_file() and not is_zip(path):
        found = {"all": (path.read_bytes(), printable(str(path)))}
        beside = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
        tree = open_tree(images, what="the images") if images is not None else tree_of(beside)
    else:
        own = open_tree(path, what="COCO annotations")
        found = {
            part: (own.store.read(file), f"{printable(str(path))}/{printable(file)}")
            for part, file in coco_files(own).items()
        }
        if not found:
            raise DataError(f"'{printable(str(path))}' has no COCO annotations: a JSON file of images and annotations.")
        tree = open_tree(images, what="the images") if images is not None else own
    finder = ImageFinder(tree.files)
    return {part: _Reader(data, name, part, finder).dataset(tree) for part, (data, name) in found.items()}


def coco_files(tree: Tree) -> dict[str, str]:
    """The JSON files of a tree that hold objects in COCO's form, by the part that their name says."""
    files = [file for file in tree.files if file.lower().endswith(".json")]
    named = [file for file in files if "instances" in file.rsplit("/", 1)[-1].lower()]
    found: dict[str, str] = {}
    for file in named or files:
        data = tree.store.read(file)
        if all(key in data for key in _KEYS):
            found.setdefault(part_of_name(file) or "all", file)
    return found


class _Reader:
    """One annotation file on its way to a data set. What cannot be used is named in `problems` and left out."""

    def __init__(self, data: bytes, name: str, part: str, finder: ImageFinder):
        self.name, self.part, self.finder = name, part, finder
        self.content = _loaded(data, name)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.category_ids, self.classes = self._categories()
        self.labels = {number: label for label, number in enumerate(self.category_ids)}
        given = (item.get("id") for item in self.content["annotations"] if isinstance(item, dict))
        self.numbering = Numbering(given)

    def dataset(self, tree: Tree) -> DenseDataset:
        images = [item for item in self.content["images"] if isinstance(item, dict)]
        others = [item for item in self.content["images"] if not isinstance(item, dict)]
        self.problems += [Problem(UNREADABLE, f"image {_shown(item)}") for item in others]
        by_image: dict[Any, list[Any]] = {item["id"]: [] for item in images if _is_key(item.get("id"))}
        for item in self.content["annotations"]:
            owner = item.get("image_id") if isinstance(item, dict) else None
            if _is_key(owner) and owner in by_image:
                by_image[owner].append(item)
            else:
                kind = STRAY if isinstance(item, dict) else UNREADABLE
                self.problems.append(Problem(kind, f"annotation {_shown(item)}", f"image_id {owner!r}"))
        if not images:
            raise DataError(f"'{self.name}' lists no images. Is it the right file?")
        entries = self._entries(images, by_image)
        if not entries:
            first = printable(str(images[0].get("file_name")))
            raise DataError(
                f"none of the {len(images)} images of '{self.name}' is there; the first is '{first}'. "
                "Name their folder or zip with --images."
            )
        if self.numbering.changed:
            self.notes.append(f"{self.numbering.changed:,} annotations without a number of their own got a new one.")
        return DenseDataset(
            "detection",
            self.classes,
            tuple(entries),
            tree.store,
            category_ids=self.category_ids,
            problems=tuple(self.problems),
            notes=tuple(self.notes),
        )

    def _categories(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """COCO's numbers in rising order, which need not be 1, 2, 3, and the class names that go with them."""
        names: dict[int, str] = {}
        for item in self.content["categories"]:
            number = whole(item.get("id")) if isinstance(item, dict) else None
            if number is None:
                raise DataError(f"'{self.name}' has a category without a whole number as its id. Give it one.")
            names.setdefault(number, printable(" ".join(str(item.get("name", number)).split())))
        if not names:
            raise DataError(f"'{self.name}' has no categories. List the classes under 'categories' with id and name.")
        if len(set(names.values())) < len(names):
            names = {number: f"{name} ({number})" for number, name in names.items()}
            self.notes.append("Categories share a name; their numbers were added to tell them apart.")
        order = tuple(sorted(names))
        return order, tuple(names[number] for number in order)

    def _entries(self, images: list[dict[str, Any]], by_image: dict[Any, list[Any]]) -> list[AnnotatedImage]:
        plain = all(whole(key) is not None for key in by_image)
        if not plain:
            self.notes.append("Images are numbered from 1 on, because their ids are not whole numbers.")
        entries, seen = [], set()
        for place, item in enumerate(images, 1):
            name, key = str(item.get("file_name", "")), item.get("id")
            shown = printable(name)
            path = self.finder.find(name, self.part)
            if path is None:
                self.problems.append(Problem(MISSING, shown))
                continue
            if not _is_key(key):
                key = ("", place)  # nothing can belong to it
            if key in seen:
                self.problems.append(Problem(DOUBLE, shown, f"id {key}"))
                continue
            seen.add(key)
            height, width = whole(item.get("height")), whole(item.get("width"))
            size = (height, width) if height and width and min(height, width) > 0 else None
            number = whole(key) if plain and not isinstance(key, tuple) else None
            rows = [row for entry in by_image.get(key, ()) if (row := self._row(entry, shown, size)) is not None]
            objects = objects_of(rows)
            entries.append(AnnotatedImage(path, place if number is None else number, size, objects))
        return entries

    def _row(self, item: dict[str, Any], image: str, size: tuple[int, int] | None) -> Row | None:
        where = f"{image} annotation {_shown(item)}"
        try:
            category = whole(item.get("category_id"))
            if category is None or category not in self.labels:
                raise WrongError(UNKNOWN, f"category {item.get('category_id')!r}")
            outline, few = _shape(item.get("segmentation"), size)
            for what in few:
                self.problems.append(Problem(FEW_POINTS, where, what))
            place, cut = fitting_box(_box(item.get("bbox"), outline), size)
            if cut:
                self.problems.append(Problem(CUT, where, " ".join(f"{edge:g}" for edge in item.get("bbox") or place)))
            area = item.get("area")
            known = isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area <= _MOST_AREA
            return Row(
                place, self.labels[category], outline, item.get("iscrowd") in (1, True),
                float(area) if known and area is not None else math.nan, self.numbering.take(item.get("id")),
            )  # fmt: skip
        except WrongError as wrong:
            self.problems.append(Problem(wrong.kind, where, wrong.what))
            return None


class Numbering:
    """Numbers for annotations: their own where it is whole, above 0 and not taken, else a free one.

    COCO's evaluation takes an annotation numbered 0 for none.
    """

    def __init__(self, given: Iterable[object] = ()):
        numbers_given = [number for number in map(whole, given) if number is not None]
        self.next = max([0, *numbers_given]) + 1
        self.taken: set[int] = set()
        self.changed = 0

    def take(self, own: object = None) -> int:
        number = whole(own)
        if number is None or number <= 0 or number in self.taken:
            number, self.next = self.next, self.next + 1
            self.changed += 1
        self.taken.add(number)
        return number


def _loaded(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{name}' is not JSON ({error}). Is it complete?") from None
    if isinstance(content, list):
        raise DataError(f"'{name}' is a list, as COCO results are. Name the file of annotations.")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"'{name}' has no list of '{key}', so that it is not a COCO annotation file.")
    return content


def _shape(segmentation: object, size: tuple[int, int] | None) -> tuple[Shape | None, list[str]]:
    """The outline that a 'segmentation' holds, None where it is empty; and what polygons of it were left out for."""
    if segmentation is None or segmentation == [] or segmentation == {}:
        return None, []
    if isinstance(segmentation, list):
        flat = not isinstance(segmentation[0], list)
        return polygons_of([segmentation] if flat else segmentation)
    if not isinstance(segmentation, dict):
        raise WrongError(UNREADABLE, f"segmentation of type {type(segmentation).__name__}")
    height, width = (int(side) for side in numbers(segmentation.get("size"), 2))
    if size is not None and (height, width) != size:
        raise WrongError(MASK_SIZE, f"{width} x {height} in an image of {size[1]} x {size[0]}")
    counts = segmentation.get("counts")
    try:
        runs = np.array([whole(run) for run in counts], np.int64) if isinstance(counts, list) else None
        text = compress(runs) if runs is not None else str(counts).encode()
        runs = decompress(text) if runs is None else runs
    except (DataError, TypeError, OverflowError):
        raise WrongError(UNREADABLE, "its run lengths are damaged") from None
    if len(runs) == 0 or runs.min() < 0 or runs.max() > height * width:
        raise WrongError(UNREADABLE, "its run lengths are damaged")
    if int(runs.sum()) != height * width:
        raise WrongError(MASK_SIZE, f"its run lengths make {int(runs.sum())} pixels, not {width} x {height}")
    return Rle(height, width, text), []


def _box(values: object, outline: Shape | None) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 from COCO's x y width height, or round the outline where the file has no box."""
    if values is not None and values != []:
        x, y, width, height = numbers(values, 4)
        return x, y, x + width, y + height
    if outline is None:
        raise WrongError(UNREADABLE, "it has neither box nor outline")
    return box(outline) if isinstance(outline, Rle) else extent(outline)


def _is_key(value: object) -> bool:
    return isinstance(value, int | str | float) and not isinstance(value, bool)


def _shown(item: object) -> str:
    return str(item.get("id", "without id")) if isinstance(item, dict) else repr(item)[:40]
