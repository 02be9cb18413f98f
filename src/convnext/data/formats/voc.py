"""Pascal VOC: one XML file of boxes for each image.

VOC counts pixels from 1 and a box includes its last pixel, so that (1, 1, 1, 1) is the first pixel, here (0, 0, 1, 1).
Many tools write the same XML counting from 0; a data set in which any box starts at 0 is taken to be one of theirs.
"""

import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.dataset import DenseDataset
from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.files import ImageFinder
from convnext.data.limits import MAX_PAGE_BYTES, require_plain_xml
from convnext.data.parts import part_of, part_of_word
from convnext.data.problems import (
    CUT,
    DAMAGED,
    MISSING,
    UNREADABLE,
    Problem,
    WrongError,
    fitting_box,
    image_size,
    numbers,
)
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import decoded, listed_names
from convnext.errors import DataError

_PROBED = 10  # files
_ROOT = re.compile(rb"<annotation[\s>/]")
_MASKS = "segmentationclass"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Thing(NamedTuple):
    """One object as its file has it; `box` still counts as the file does."""

    name: str
    box: list[float]
    difficult: bool


class _Page(NamedTuple):
    """One XML file."""

    file: str
    image: str  # its <filename>
    size: tuple[int, int] | None  # (H, W)
    things: list[_Thing]


def open_voc(source: Source, *, from_zero: bool | None = None) -> dict[str, DenseDataset]:
    """The data sets of VOC XML files, by part: by ImageSets/Main, else by folder names, else 'all'.

    `from_zero`: how the files count; None: they show it. Objects marked difficult become crowds, which need not be
    found. Raises DataError when nothing can be read.
    """
    name, tree, shown = source.name, source.tree, source.images
    files = xml_files(tree)
    if not files:
        raise DataError(f"'{name}' has no VOC annotations: XML files with an <annotation> each.")
    problems: list[Problem] = []
    pages = [page for file in files if (page := _read(tree, file, problems)) is not None]
    if from_zero is None:
        from_zero = any(0 <= edge < 1 for page in pages for thing in page.things for edge in thing.box[:2])
    notes = [f"Boxes count pixels from {0 if from_zero else 1}."]
    if any(folder.lower().split("/")[-1] == _MASKS for folder in tree.folders):
        notes.append("Boxes are read. There are masks in SegmentationClass as well: --task segmentation reads those.")
    classes = tuple(sorted({thing.name for page in pages for thing in page.things}))
    if not classes:
        raise DataError(f"'{name}' has {len(files)} XML files and no object in them that can be read.")
    lists, finder, numbers_free = _lists(tree), finder_of(shown), count(1)
    parts: dict[str, list[AnnotatedImage]] = {}
    for place, page in enumerate(pages, 1):
        stem = os.path.splitext(page.file.rsplit("/", 1)[-1])[0]
        part = lists.get(stem, "") if lists else part_of(page.file)
        entry = _image(page, place, finder, part or "all", classes, from_zero, numbers_free, problems)
        if entry is not None and not lists:
            part = part or part_of(entry.path) or "all"
        if entry is not None and part:
            parts.setdefault(part, []).append(entry)
    if not parts:
        raise DataError(f"none of the images of '{name}' is there. Name their folder or zip with --images.")
    numbered = tuple(range(1, len(classes) + 1))
    blank = DenseDataset(
        "detection", classes, (), shown.store, category_ids=numbered, problems=tuple(problems), notes=tuple(notes)
    )
    return {part: replace(blank, entries=tuple(entries)) for part, entries in parts.items()}


def xml_files(tree: Tree) -> list[str]:
    """The XML files of a tree that are annotations: those in folders called so, where there is one."""
    files = list(tree.files.take(tree.files.ending_in({".xml"})))
    named = [file for file in files if "annotations" in file.lower().split("/")[:-1]]
    return named or files


def has_annotations(tree: Tree) -> bool:
    """Whether one of the first XML files is an annotation."""
    return any(_ROOT.search(tree.once.read(file)) for file in xml_files(tree)[:_PROBED])


def _lists(tree: Tree) -> dict[str, str]:
    """Name of an image without ending -> part, from ImageSets/Main/train.txt and val.txt; {} where there are none."""
    parts: dict[str, str] = {}
    for file in tree.files.take(tree.files.ending_in({".txt"})):
        folders, _, name = file.rpartition("/")
        part = part_of_word(os.path.splitext(name)[0])
        if part and folders.lower().endswith("imagesets/main"):
            for line in decoded(tree.once.take(file))[0].splitlines():
                for listed in listed_names(line):
                    parts.setdefault(listed, part)
    return parts


def _read(tree: Tree, file: str, problems: list[Problem]) -> _Page | None:
    shown = printable(file)
    try:
        data = tree.once.take(file)
        require_plain_xml(data)
        if len(data) > MAX_PAGE_BYTES:
            raise DataError(f"it has {len(data):,} bytes, too many for one image")
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, DataError, OSError, LookupError, ValueError) as error:
        problems.append(Problem(DAMAGED, shown, str(error)))
        return None
    if root.tag != "annotation":
        problems.append(Problem(DAMAGED, shown, f"<{root.tag}> in place of <annotation>"))
        return None
    things = []
    for place, item in enumerate(root.findall("object"), 1):
        try:
            things.append(_thing(item))
        except WrongError as wrong:
            problems.append(Problem(wrong.kind, f"{shown} object {place}", wrong.what))
    height, width = (_number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    size = image_size(*(round(side) if side and math.isfinite(side) else None for side in (height, width)))
    return _Page(file, (root.findtext("filename") or "").strip(), size, things)


def _thing(item: ElementTree.Element) -> _Thing:
    name = printable((item.findtext("name") or "").strip())
    if not name:
        raise WrongError(UNREADABLE, "an object without a name")
    corners = [_number(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
    missing = [corner for corner, value in zip(_CORNERS, corners, strict=True) if value is None]
    if missing:
        raise WrongError(UNREADABLE, f"'{name}' without a number as {missing[0]}")
    return _Thing(name, numbers(corners), (item.findtext("difficult") or "").strip() == "1")


def _image(
    page: _Page, place: int, finder: ImageFinder, part: str, classes: tuple[str, ...], from_zero: bool,
    numbers_free: Iterator[int], problems: list[Problem],
) -> AnnotatedImage | None:  # fmt: skip
    folder, _, name = page.file.rpartition("/")
    stem = f"{folder}/{os.path.splitext(name)[0]}"
    path = (finder.find(f"{folder}/{page.image}", part) if page.image else None) or finder.find_stem(stem, part)
    if path is None:
        problems.append(Problem(MISSING, printable(page.image or stem)))
        return None
    rows = []
    for number, thing in enumerate(page.things, 1):
        where = f"{printable(page.file)} object {number}"
        first = 0 if from_zero else 1
        x0, y0, x1, y1 = thing.box
        try:
            box, cut = fitting_box((x0 - first, y0 - first, x1, y1), page.size)
        except WrongError as wrong:
            problems.append(Problem(wrong.kind, where, wrong.what))
            continue
        if cut:
            problems.append(Problem(CUT, where, " ".join(f"{edge:g}" for edge in thing.box)))
        rows.append(Row(box, classes.index(thing.name), None, thing.difficult, id=next(numbers_free)))
    return AnnotatedImage(path, place, page.size, objects_of(rows))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
