"""VGG Image Annotator (VIA 2): a JSON for many images, exported or saved as a project.

An object's class is the attribute that its regions have: that called class, label, name, type or category, else the
first. Regions without attributes are of one class, 'object'. The files have no sizes of images.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from convnext.data.dataset import DenseDataset
from convnext.data.formats.json_kinds import damaged_json, json_files
from convnext.data.formats.pages import Pages, Thing
from convnext.data.formats.shapes import ellipse
from convnext.data.masks import Shape
from convnext.data.parts import part_of_file
from convnext.data.problems import NO_AREA, UNREADABLE, Box, Problem, WrongError, numbers, polygons_of, word
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

_CLASS_WORDS = ("class", "label", "name", "type", "category", "object")
_ONE_CLASS = "object"
_BARE = frozenset({"point", "polyline"})


def via_files(tree: Tree) -> list[str]:
    """The JSON files of a tree that are VIA's."""
    return json_files(tree, "via")


def open_via(source: Source) -> dict[str, DenseDataset]:
    """The data sets of VIA's JSON files, by part. Raises DataError when nothing can be read."""
    tree, pages = source.tree, Pages(source)
    pages.problems += damaged_json(tree) if source.file is None else []
    read: dict[str, list[dict[str, Any]]] = {}
    for file in [source.file] if source.file is not None else via_files(tree):
        try:
            content = json_in(tree.once.take(file))
        except DataError as error:
            raise DataError(f"'{printable(file)}' cannot be read ({error}). Is it complete?") from None
        content = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
        content = content if isinstance(content, dict) else {}
        read[file] = [item for item in content.values() if isinstance(item, dict) and "filename" in item]
    regions = (region for items in read.values() for item in items for region in _regions(item))
    key = _class_key(Counter(word for region in regions for word in _attributes(region)))
    for file, items in read.items():
        part = part_of_file(file) if source.file is None else ""
        for item in items:
            name = str(item["filename"])
            path = pages.find(name, part=part, beside=file.rpartition("/")[0])
            if path is None:
                pages.miss(name)
            else:
                pages.add(path, list(_things(item, name, key, pages)), None, part=part, file=file)
    if key:
        pages.notes.append(f"Classes are the attribute '{printable(key)}' of the regions.")
    else:
        pages.notes.append(f"The regions have no attribute: all are of one class, '{_ONE_CLASS}'.")
    return pages.parts()


def _class_key(found: Counter[str]) -> str:
    """The attribute that says the class, '' where regions have none."""
    low = {word.lower(): word for word in reversed(found)}
    return next((low[word] for word in _CLASS_WORDS if word in low), next(iter(found), ""))


def _regions(item: dict[str, Any]) -> list[Any]:
    regions = item.get("regions")
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def _attributes(region: Any) -> dict[str, Any]:
    found = region.get("region_attributes") if isinstance(region, dict) else None
    return found if isinstance(found, dict) else {}


def _things(item: dict[str, Any], name: str, key: str, pages: Pages) -> Iterator[Thing]:
    for place, region in enumerate(_regions(item), 1):
        where = f"{printable(name)} region {place}"
        try:
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(shape, dict):
                raise WrongError(UNREADABLE, "a region without a shape")
            outline, box = _drawn(shape)
            yield Thing(_class_of(_attributes(region).get(key) if key else _ONE_CLASS), outline, box, where)
        except WrongError as wrong:
            pages.problems.append(Problem(wrong.kind, where, wrong.what))


def _class_of(value: object) -> str:
    """A text, or of boxes to tick those that are."""
    if isinstance(value, dict):
        value = " ".join(str(word) for word, ticked in value.items() if ticked)
    text = printable(" ".join(str("" if value is None else value).split()))
    if not text:
        raise WrongError(UNREADABLE, "a region without a class")
    return text


def _drawn(shape: dict[str, Any]) -> tuple[Shape | None, Box | None]:
    kind = word(shape.get("name"))
    if kind in _BARE:
        raise WrongError(NO_AREA, kind)
    if kind == "polygon":
        xs, ys = (numbers(shape.get(f"all_points_{axis}")) for axis in "xy")
        return polygons_of([[value for pair in zip(xs, ys, strict=False) for value in pair]])[0], None
    if kind == "rect":
        x, y, width, height = numbers([shape.get(side) for side in ("x", "y", "width", "height")])
        return None, (x, y, x + width, y + height)
    if kind in ("circle", "ellipse"):
        radius = shape.get("r")
        x, y, across, down, turned = numbers(
            [shape.get("cx"), shape.get("cy"), shape.get("rx", radius), shape.get("ry", radius), shape.get("theta", 0)]
        )
        return (ellipse(x, y, across, down, turned),), None
    raise WrongError(NO_AREA, f"shape '{kind}'")
