"""Datumaro's JSON: annotations/<part>.json for many images, with boxes, polygons, masks and ellipses."""

from collections.abc import Iterator
from typing import Any

from convnext.data.dataset import DenseDataset
from convnext.data.formats.coco_objects import outline_of
from convnext.data.formats.json_kinds import damaged_json, json_files
from convnext.data.formats.pages import Pages, Size, Thing
from convnext.data.formats.shapes import ellipse
from convnext.data.masks import Shape
from convnext.data.parts import part_of_file
from convnext.data.problems import NO_AREA, UNKNOWN, UNREADABLE, Box, Problem, WrongError, image_size, numbers, whole
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

_WHOLE_IMAGE = "label"  # the type of an annotation that is of no object


def datumaro_files(tree: Tree) -> list[str]:
    """The JSON files of a tree that are Datumaro's."""
    return json_files(tree, "datumaro")


def open_datumaro(source: Source) -> dict[str, DenseDataset]:
    """The data sets of Datumaro's JSON files, by part. Raises DataError when nothing can be read."""
    tree, pages = source.tree, Pages(source)
    pages.problems += damaged_json(tree) if source.file is None else []
    for file in [source.file] if source.file is not None else datumaro_files(tree):
        try:
            content = json_in(tree.once.take(file))
            classes = [printable(str(row["name"])) for row in content["categories"]["label"]["labels"]]
            items = [(str(item["id"]), item) for item in content["items"]]
        except (DataError, KeyError, TypeError) as error:
            raise DataError(f"'{printable(file)}' is not Datumaro's JSON ({error}). Is it complete?") from None
        pages.list_classes(classes)
        part = part_of_file(file) if source.file is None else ""
        for name, item in items:
            image = item.get("image") if isinstance(item.get("image"), dict) else {}
            path = pages.find(str(image.get("path") or ""), part=part, stem=f"{part}/{name}" if part else name)
            if path is None:
                pages.miss(str(image.get("path") or name))
                continue
            size = _size(image.get("size"))
            pages.add(path, list(_things(item, name, classes, size, pages)), size, part=part, file=file)
    return pages.parts()


def _size(sides: object) -> Size | None:
    return image_size(*sides) if isinstance(sides, list) and len(sides) == 2 else None


def _things(item: dict[str, Any], name: str, classes: list[str], size: Size | None, pages: Pages) -> Iterator[Thing]:
    given = item.get("annotations")
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    for place, row in enumerate(sorted(rows, key=lambda row: whole(row.get("z_order")) or 0), 1):
        where = f"{printable(name)} annotation {place}"
        if row.get("type") == _WHOLE_IMAGE:
            continue
        try:
            number = whole(row.get("label_id"))
            if number is None or not 0 <= number < len(classes):
                raise WrongError(UNKNOWN, f"label_id {row.get('label_id')!r}")
            shape, box = _drawn(row, size)
            yield Thing(classes[number], shape, box, where, whole(row.get("group")) or None)
        except WrongError as wrong:
            pages.problems.append(Problem(wrong.kind, where, wrong.what))


def _drawn(row: dict[str, Any], size: Size | None) -> tuple[Shape | None, Box | None]:
    kind = row.get("type")
    if kind == "bbox":
        x, y, width, height = numbers(row.get("bbox"), 4)
        return None, (x, y, x + width, y + height)
    if kind == "ellipse":
        x0, y0, x1, y1 = numbers(row.get("points"), 4)
        return (ellipse((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2),), None
    if kind not in ("polygon", "mask"):
        raise WrongError(NO_AREA, str(kind))
    shape, _ = outline_of(row.get("rle") if kind == "mask" else row.get("points"), size)
    if shape is None:
        raise WrongError(UNREADABLE, f"a {kind} without anything in it")
    return shape, None
