"""COCO JSON: polygons, run lengths both ways, crowds, empty images; read with every mistake named and left out.

The format's boxes are x y width height; here and everywhere else in this package they are x0 y0 x1 y1.
What is plainly right is taken over in columns, thousands of annotations at once (`coco_columns`); the others are
examined here one by one, so that what is wrong with them can be named.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convnext.data.annotated import AnnotatedImages, Outlines, Pool, Row
from convnext.data.dataset import DenseDataset
from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.coco_columns import LARGEST, MOST_AREA, Columns
from convnext.data.formats.coco_json import CocoFile, Image, is_key, shown_of
from convnext.data.formats.coco_merge import by_folders, merged, numbered
from convnext.data.formats.coco_objects import halves, in_pixels, in_shares, spelled_plainly, words_of
from convnext.data.formats.files import Finder
from convnext.data.formats.json_kinds import damaged_json, survey
from convnext.data.names import Names
from convnext.data.parts import part_of_file
from convnext.data.problems import (
    DOUBLE,
    MISSING,
    STRAY,
    UNKNOWN,
    UNREADABLE,
    Problem,
    WrongError,
    whole,
    whole_of_text,
)
from convnext.data.scan import listed
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.errors import DataError
from convnext.files import to_json

_OTHERS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")


def open_coco(source: Source) -> dict[str, DenseDataset]:
    """The data sets of a COCO JSON file, or of all such files in a folder or zip, by part: 'train', 'val', 'test', 'all'.

    The images are looked for in the source's images, however deep. A single file is 'all'. Raises DataError when
    nothing can be read.
    """
    found = {"all": [source.file]} if source.file is not None else coco_files(source.tree)
    if not found:
        raise DataError(f"'{source.name}' has no COCO annotations: a JSON file of images and annotations.")
    cut = damaged_json(source.tree, _others(source.tree)) if source.file is None else []
    finder = finder_of(source.images)
    parts = {}
    for part, files in found.items():
        read = []
        for file in files:
            name = source.name if source.file is not None else f"{source.name}/{printable(file)}"
            beside = file.rpartition("/")[0] if source.images is source.tree else ""
            content = CocoFile(source.tree.once.take(file), name)
            read.append(dataset_of(content, source, finder, part=part, beside=beside))
        parts[part] = read[0] if len(read) == 1 else merged(read, [printable(file) for file in files])
        parts[part] = replace(parts[part], problems=(*parts[part].problems, *cut))
    return by_folders(parts["all"]) if source.file is None and set(parts) == {"all"} else parts


def dataset_of(content: CocoFile, source: Source, finder: Finder, *, part: str = "", beside: str = "") -> DenseDataset:
    """The images and objects of one file. `beside`: the folder of the file, where its images may lie. Raises DataError."""
    return _Reader(content, content.name, part, finder, beside).dataset(source)


def coco_files(tree: Tree) -> dict[str, list[str]]:
    """The JSON files of a tree that hold objects in COCO's form, by the part that their names or folders say.

    Beside a file of instances COCO has others of the same images, which are left alone.
    """
    found: dict[str, list[str]] = {}
    for file, kind in survey(tree, _others(tree)):
        if kind == "coco":
            found.setdefault(part_of_file(file) or "all", []).append(file)
    return found


def _others(tree: Tree) -> set[str]:
    files = list(tree.files.take(tree.files.ending_in({".json"})))
    named = {file for file in files if "instances" in _last(file)}
    return {file for file in files if named and file not in named and _last(file).startswith(_OTHERS)}


def _last(file: str) -> str:
    return file.rsplit("/", 1)[-1].lower()


@dataclass
class _Listed:
    """The images of a file that are there, and what is wrong with the others."""

    paths: list[str]
    ids: list[int]
    sizes: list[tuple[int, int]]  # (H, W), zeros where the file does not say
    places: list[int]  # in the file
    owner: dict[Any, int]  # their key there -> place in these lists
    problems: list[tuple[int, Problem]]  # (place in the file, what)


class _Reader:
    """One annotation file on its way to a data set. What cannot be used is named in `problems` and left out."""

    def __init__(self, file: CocoFile, name: str, part: str, finder: Finder, beside: str = ""):
        self.file, self.name, self.part, self.finder, self.beside = file, name, part, finder, beside
        self.problems = [Problem(UNREADABLE, f"image {shown_of(item)}") for item in file.other_images]
        self.notes: list[str] = []
        self.worded: dict[str, int] = {}  # number of each category whose id is a word
        self.category_ids, self.classes = self._categories()
        self.labels = {number: label for label, number in enumerate(self.category_ids)}

    def dataset(self, source: Source) -> DenseDataset:
        images = self.file.images
        if not images:
            raise DataError(f"'{self.name}' lists no images. Is it the right file?")
        known = {image.id for image in images if is_key(image.id)}
        listed = self._listed(images, known)
        sizes = np.array(listed.sizes, np.int64).reshape(-1, 2)
        columns = Columns.of(self.file, listed.owner, known, sizes, {} if self.worded else self.labels)
        if columns.spelled:
            self.notes.append(
                "Ids of images are text in one place and numbers in another; both were taken for the same."
            )
        for place in columns.stray.tolist():
            item = self.file.annotation(place)
            stray = isinstance(item, dict)
            what = f"image_id {item.get('image_id') if stray else None!r}"
            self.problems.append(Problem(STRAY if stray else UNREADABLE, f"annotation {shown_of(item)}", what))
        if not listed.paths:
            first = printable(str(images[0].file_name))
            raise DataError(
                f"none of the {len(images)} images of '{self.name}' is there; the first is '{first}'. "
                "Name their folder or zip with --images."
            )
        pool, borders = self._pool(columns, listed)
        entries = AnnotatedImages(Names.of(listed.paths), _integers(listed.ids), sizes, borders, pool)
        return DenseDataset(
            "detection",
            self.classes,
            entries,
            source.store,
            category_ids=self.category_ids,
            problems=tuple(self.problems),
            notes=tuple(self.notes),
        )

    def _categories(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """COCO's numbers in rising order, which need not be 1, 2, 3, and the class names that go with them."""
        names: dict[int, str] = {}
        self.worded = words_of(self.file.categories)
        if self.worded:
            self.notes.append("Categories are numbered from 1 on, because their ids are words.")
        elif any(isinstance(item, dict) and isinstance(item.get("id"), str) for item in self.file.categories):
            self.notes.append("Ids of categories are text and were taken for the numbers that they spell.")
        for item in self.file.categories:
            number = self._category(item.get("id")) if isinstance(item, dict) else None
            if number is None:
                raise DataError(f"'{self.name}' has a category without a number or a text as its id. Give it one.")
            name = item.get("name")
            words = " ".join(str(number if name is None else name).split())
            names.setdefault(number, printable(words or str(number)))
        if not names:
            raise DataError(f"'{self.name}' has no categories. List the classes under 'categories' with id and name.")
        if len(set(names.values())) < len(names):
            names = {number: f"{name} ({number})" for number, name in names.items()}
            self.notes.append("Categories share a name; their numbers were added to tell them apart.")
        order = tuple(sorted(names))
        return order, tuple(names[number] for number in order)

    def _category(self, value: object) -> int | None:
        """The number of the category that an id means: a number, its text, or a word."""
        if self.worded:
            return self.worded.get(str(value))
        number = whole(value)
        return whole_of_text(value) if number is None else number

    def _listed(self, images: list[Image], known: set[Any]) -> _Listed:
        """Which images are there, in the order of the file."""
        plain = all(whole(key) is not None for key in known)
        if not plain:
            self.notes.append("Images are numbered from 1 on, because their ids are not whole numbers.")
        found = _Listed([], [], [], [], {}, [])
        seen: dict[str, int] = {}  # path -> its place
        again = 0
        for place, image in enumerate(images, 1):
            name, key = str(image.file_name), image.id
            path = self.finder.find(name, self.part, beside=self.beside)
            if path is None:
                found.problems.append((place, Problem(MISSING, printable(name))))
                continue
            own = is_key(key)  # else nothing can belong to it
            if own and key in found.owner:
                found.problems.append((place, Problem(DOUBLE, printable(name), f"id {key}")))
                continue
            if own and path in seen:  # its objects go to the image that is there already
                found.owner[key] = seen[path]
                again += 1
                continue
            if own:
                found.owner[key] = seen[path] = len(found.paths)
            height, width = whole(image.height), whole(image.width)
            sized = height and width and min(height, width) > 0
            number = whole(key) if plain and own else None
            found.paths.append(path)
            found.ids.append(place if number is None else number)
            found.sizes.append((min(height, LARGEST), min(width, LARGEST)) if sized and height and width else (0, 0))
            found.places.append(place)
        if again:
            self.notes.append(
                listed(again, "image{s} {are} listed again, and the objects of all entries put together", ())
            )
        return found

    def _pool(self, columns: Columns, listed: _Listed) -> tuple[Pool, np.ndarray]:
        """The objects that can be used, image by image, and where those of each image begin and end."""
        told = listed.problems
        shares = self._shares(columns, listed)
        order = np.argsort(columns.owner, kind="stable")
        extra = bytearray()  # outlines that are not text of the file
        border = len(self.file.text)
        for place in order[~columns.clean[order] & (columns.owner[order] >= 0)].tolist():
            image = int(columns.owner[place])
            item = spelled_plainly(self.file.annotation(place))
            item = in_pixels(item, listed.sizes[image]) if shares else item
            row, wrong = self._row(
                item, printable(self.file.images[listed.places[image] - 1].file_name), listed.sizes[image]
            )
            told += [(listed.places[image], problem) for problem in wrong]
            if row is not None:
                text = b"" if row.shape is None else to_json(item["segmentation"]).encode()
                columns.put(place, row, (border + len(extra), border + len(extra) + len(text)))
                extra += text
        self.problems += [problem for _, problem in sorted(told, key=lambda pair: pair[0])]
        order = order[(columns.clean & (columns.owner >= 0))[order]]
        ids, changed = numbered(columns.ids[order], columns.highest)
        if changed:
            self.notes.append(f"{changed:,} annotations without a number of their own got a new one.")
        last = np.cumsum(np.bincount(columns.owner[order], minlength=len(listed.paths)))
        outlines = Outlines((self.file.text, bytes(extra)), columns.first[order], columns.last[order])
        pool = Pool(
            columns.boxes[order], columns.labels[order].astype(np.int64), columns.crowd[order], columns.area[order], ids,
            outlines,
        )  # fmt: skip
        return pool, np.stack([np.concatenate([[0], last[:-1]]), last], axis=1)

    def _shares(self, columns: Columns, listed: _Listed) -> bool:
        """Whether the boxes are shares of the image's sides; then each annotation is examined by itself."""
        if not in_shares(self.file, columns, columns.read):
            return False
        if (0, 0) in listed.sizes:
            raise DataError(
                f"the boxes of '{self.name}' lie between 0 and 1, as shares of the image's sides, and an image has no "
                "height and width there. Add them, or write the boxes in pixels."
            )
        columns.clean[:] = False
        columns.first[:] = columns.last[:] = 0
        self.notes.append("Boxes lie between 0 and 1: they were read as shares of the image's width and height.")
        return True

    def _row(self, item: Any, image: str, sides: tuple[int, int]) -> tuple[Row | None, list[Problem]]:
        """One annotation, None where it cannot be used, and what is wrong with it."""
        where, size = f"{image} annotation {shown_of(item)}", sides if sides[0] else None
        problems: list[Problem] = []
        try:
            category = self._category(item.get("category_id"))
            if category is None or category not in self.labels:
                raise WrongError(UNKNOWN, f"category {item.get('category_id')!r}")
            place, outline, found = halves(item, size)
            problems += [Problem(kind, where, what) for kind, what in found]
            area = item.get("area")
            known = isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area <= MOST_AREA
            number = whole(item.get("id"))
            return Row(
                place, self.labels[category], outline, item.get("iscrowd") in (1, True),
                float(area) if known and area is not None else math.nan,
                number if number is not None and 0 < number < LARGEST else 0,
            ), problems  # fmt: skip
        except WrongError as wrong:
            return None, [*problems, Problem(wrong.kind, where, wrong.what)]


def _integers(values: list[Any]) -> np.ndarray:
    """int64, or Python's own where one is larger."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)
