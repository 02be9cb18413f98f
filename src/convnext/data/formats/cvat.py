"""CVAT's XML 1.1 "for images": one file for many images, with boxes, polygons, masks and ellipses.

Shapes of one label and one group are one object, as in CVAT's own export to COCO. Where objects are painted one over
the other, a higher `z_order` is above. Its form "for video", with tracks in place of images, is refused by its name.
"""

import contextlib
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping

import numpy as np

from convnext.data.dataset import DenseDataset
from convnext.data.formats.pages import Pages, Size, Thing
from convnext.data.formats.shapes import ellipse, placed, rectangle, require_room
from convnext.data.limits import require_plain_xml
from convnext.data.masks import Shape
from convnext.data.parts import part_of_file, part_of_folder
from convnext.data.problems import (
    NO_AREA,
    UNREADABLE,
    Box,
    Problem,
    WrongError,
    extent,
    image_size,
    numbers,
    polygons_of,
)
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.errors import DataError

_PROBED = 10  # files
_HEAD = 4096  # bytes that show what a file is
_ROOT = re.compile(rb"<annotations[\s>]")
_SHAPES = frozenset({"box", "polygon", "mask", "ellipse"})
_BARE = frozenset({"polyline", "points", "cuboid", "skeleton"})
_AREAS = frozenset({"any", "rectangle", "polygon", "mask", "ellipse"})  # types of labels
_AS_VIDEO = (
    "is CVAT's form for video, with tracks. Export the task from CVAT as 'CVAT for images 1.1' or 'COCO 1.0', "
    "with its images"
)


def cvat_files(tree: Tree) -> list[str]:
    """The XML files of a tree where one of the first is CVAT's; else none."""
    files = list(tree.files.take(tree.files.ending_in({".xml"})))
    return files if any(is_cvat(tree.once.read(file)) for file in files[:_PROBED]) else []


def is_cvat(data: bytes) -> bool:
    """Whether an XML file is of this form, or that for video."""
    return _ROOT.search(data[:_HEAD]) is not None


def open_cvat(source: Source) -> dict[str, DenseDataset]:
    """The data sets of CVAT's XML files, by part: by subset, else by the names of files and folders, else 'all'.

    Raises DataError when nothing can be read.
    """
    tree = source.tree
    files = [source.file] if source.file is not None else cvat_files(tree)
    if not files:
        raise DataError(f"'{source.name}' has no CVAT annotations: an XML file of <annotations>.")
    pages = Pages(source)
    videos: list[str] = []
    for file in files:
        data = tree.once.take(file)
        if not is_cvat(data):
            if why := _flaw_of(data):
                pages.damage(file, why)
            continue
        try:
            found = _File(file, source, pages)
            found.read(data)
            videos += [file] if found.tracks else []
        except (ElementTree.ParseError, DataError, LookupError, ValueError) as error:
            pages.damage(file, str(error))
    if videos and not pages.is_begun:
        raise DataError(f"'{printable(videos[0])}' of '{source.name}' {_AS_VIDEO}.")
    pages.problems += [Problem(UNREADABLE, printable(file), "tracks of CVAT for video") for file in videos]
    if pages.is_begun and not pages.has_objects and not pages.problems:
        raise DataError(
            f"the images of '{source.name}' have tags at most and no shapes. Tags are classes of whole images: leave out "
            "--form, or say --task classification."
        )
    return pages.parts()


def _flaw_of(data: bytes) -> str:
    """Why a file is no XML, '' where it is."""
    try:
        require_plain_xml(data)
        ElementTree.fromstring(data)
    except (ElementTree.ParseError, DataError, LookupError, ValueError) as error:
        return str(error)
    return ""


class _File:
    """One XML file, read image by image."""

    def __init__(self, file: str, source: Source, pages: Pages):
        self.file, self.pages, self.source = file, pages, source
        self.part = part_of_file(file) if source.file is None else ""
        self.tracks = 0

    def read(self, data: bytes) -> None:
        require_plain_xml(data)
        inside: list[ElementTree.Element] = []
        for event, element in ElementTree.iterparse(io.BytesIO(data), ("start", "end")):
            if event == "start":
                inside.append(element)
                continue
            inside.pop()
            if element.tag == "meta":
                self.pages.list_classes(filter(None, map(_class_of, element.iter("label"))))
            elif element.tag == "image" and len(inside) == 1:
                self._image(element)
            self.tracks += element.tag == "track"
            if len(inside) == 1:  # what was read is let go of
                inside[0].clear()

    def _image(self, image: ElementTree.Element) -> None:
        name = image.get("name") or ""
        part = part_of_folder(image.get("subset") or "") or self.part
        path = self.pages.find(name, part=part, beside=self.file.rpartition("/")[0])
        if path is None:
            self.pages.miss(name)
            return
        height, width = (_whole(image.get(side)) for side in ("height", "width"))
        size = image_size(height, width)
        shapes = sorted(enumerate(image, 1), key=lambda pair: _whole(pair[1].get("z_order")))
        self.pages.add(path, list(self._things(shapes, name, size)), size, part=part, file=self.file)

    def _things(self, shapes: list[tuple[int, ElementTree.Element]], name: str, size: Size | None) -> Iterator[Thing]:
        for place, item in shapes:
            where = f"{printable(name)} {item.tag} {place}"
            if item.tag not in _SHAPES | _BARE:  # tags
                continue
            try:
                label = printable((item.get("label") or "").strip())
                if not label:
                    raise WrongError(UNREADABLE, "a shape without a label")
                shape, box = _drawn(item.tag, item.attrib, size)
                yield Thing(label, shape, box, where, item.get("group_id"))
            except WrongError as wrong:
                self.pages.problems.append(Problem(wrong.kind, where, wrong.what))


def _class_of(label: ElementTree.Element) -> str:
    """The class of a label that shapes with an area may have, else ''."""
    area = (label.findtext("type") or "any").strip() in _AREAS and label.find("parent") is None
    return printable((label.findtext("name") or "").strip()) if area else ""


def _drawn(kind: str, given: Mapping[str, str], size: Size | None) -> tuple[Shape | None, Box | None]:
    """The outline of a shape, or the box that it is."""
    if kind in _BARE:
        raise WrongError(NO_AREA, kind)
    if kind == "polygon":
        points = re.split(r"[;,]", given.get("points", "").strip().strip(";"))
        return polygons_of([[_number(text) for text in points if text.strip()]])[0], None
    if kind == "mask":
        return _mask(given, size), None
    turned = math.radians(numbers([_number(given.get("rotation") or "0")])[0])
    if kind == "ellipse":
        x, y, across, down = _numbers(given, "cx", "cy", "rx", "ry")
        return (ellipse(x, y, across, down, turned),), None
    x0, y0, x1, y1 = _numbers(given, "xtl", "ytl", "xbr", "ybr")
    if not turned % (2 * math.pi):
        return None, (x0, y0, x1, y1)
    corners = (rectangle(x0, y0, x1, y1, turned),)
    return corners, extent(corners)


def _mask(given: Mapping[str, str], size: Size | None) -> Shape:
    """Run lengths along the rows of a part of the image, first those outside the mask."""
    left, top, width, height = (round(value) for value in _numbers(given, "left", "top", "width", "height"))
    require_room(height, width, size)
    runs = [_number(text) for text in given.get("rle", "").split(",") if text.strip()]
    if width <= 0 or height <= 0 or not min(runs, default=-1) >= 0 or sum(runs) != width * height:
        raise WrongError(UNREADABLE, f"run lengths of {sum(runs):g} pixels, not {width} x {height}")
    lengths = np.array(runs, np.int64)
    inside = np.arange(len(lengths)) % 2 == 1
    return placed(np.repeat(inside, lengths).reshape(height, width), top, left, size)


def _numbers(given: Mapping[str, str], *names: str) -> list[float]:
    missing = next((name for name in names if name not in given), None)
    if missing is not None:
        raise WrongError(UNREADABLE, f"no {missing}")
    return numbers([_number(given[name]) for name in names])


def _number(text: str) -> float:
    """NaN, which `numbers` refuses, where it is none."""
    with contextlib.suppress(ValueError):
        return float(text)
    return math.nan


def _whole(text: str | None) -> int:
    """0 where it is none."""
    value = _number(text or "0")
    return round(value) if abs(value) < 1e9 else 0
