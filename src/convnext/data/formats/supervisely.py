"""Supervisely: img/x.jpg and ann/x.jpg.json, a file for each image, with polygons, bitmaps and rectangles."""

import base64
import binascii
import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from convnext.data.dataset import DenseDataset
from convnext.data.formats.json_kinds import json_files, json_kind
from convnext.data.formats.pages import Pages, Size, Thing
from convnext.data.formats.shapes import placed, require_room
from convnext.data.masks import Polygons, Shape, encode, rasterise
from convnext.data.parts import part_of
from convnext.data.problems import (
    FEW_POINTS,
    NO_AREA,
    UNREADABLE,
    Box,
    Problem,
    WrongError,
    image_size,
    numbers,
    polygons_of,
)
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

_MOST = 1 << 26  # bytes of the PNG of a bitmap, unpacked
_EMPTY = (b'"objects"', b'"size"')  # of a file without an object


def has_supervisely(tree: Tree) -> bool:
    """Whether one of the first JSON files is Supervisely's of an image."""
    return bool(json_files(tree, "supervisely"))


def open_supervisely(source: Source) -> dict[str, DenseDataset]:
    """The data sets of a Supervisely project, by part. Raises DataError when nothing can be read."""
    tree, pages = source.tree, Pages(source)
    for name in tree.files.take(tree.files.ending_in({".json"})):
        data = tree.once.take(name)
        image = _image_of(name)
        path = pages.find(image, part=part_of(name), stem=image)
        if json_kind(data) != "supervisely" and not all(key in data for key in _EMPTY):
            pages.check_beside(name, data, path)
            continue
        try:
            content = json_in(data)
            if not isinstance(content, dict):
                raise DataError("no object in JSON")
        except DataError as error:
            pages.damage(name, str(error), path)
            continue
        if path is None:
            pages.miss(image)
            continue
        size = _size(content.get("size"))
        pages.add(path, list(_things(content, name, size, pages)), size, file=name)
    pages.name_others()
    return pages.parts()


def _image_of(name: str) -> str:
    """Where the image of ann/x.jpg.json should be: img/x.jpg."""
    image = name[: -len(".json")].split("/")
    if "ann" in image:
        place = len(image) - 1 - image[::-1].index("ann")
        image = [*image[:place], "img", *image[place + 1 :]]
    return "/".join(image)


def _size(content: object) -> Size | None:
    return image_size(content.get("height"), content.get("width")) if isinstance(content, dict) else None


def _things(content: dict[str, Any], name: str, size: Size | None, pages: Pages) -> Iterator[Thing]:
    objects = content.get("objects")
    for place, item in enumerate(objects if isinstance(objects, list) else [], 1):
        where = f"{printable(name)} object {place}"
        try:
            label = printable(str(item.get("classTitle") or "").strip()) if isinstance(item, dict) else ""
            if not label:
                raise WrongError(UNREADABLE, "an object without a class")
            yield Thing(label, *_drawn(item, size), where)
        except WrongError as wrong:
            pages.problems.append(Problem(wrong.kind, where, wrong.what))


def _drawn(item: dict[str, Any], size: Size | None) -> tuple[Shape | None, Box | None]:
    kind = item.get("geometryType")
    if kind == "bitmap":
        given = item.get("bitmap")
        bitmap = given if isinstance(given, dict) else {}
        left, top = numbers(bitmap.get("origin"), 2)
        return placed(_mask(bitmap, size), int(top), int(left), size), None
    if kind not in ("polygon", "rectangle"):
        raise WrongError(NO_AREA, str(kind))
    given = item.get("points")
    points = given if isinstance(given, dict) else {}
    outer = _flat(points.get("exterior"))
    if kind == "rectangle":
        if len(outer) < 4:
            raise WrongError(FEW_POINTS, f"a rectangle of {len(outer) // 2} points")
        return None, (min(outer[::2]), min(outer[1::2]), max(outer[::2]), max(outer[1::2]))
    outline, holes = polygons_of([outer])[0], points.get("interior")
    if not holes or size is None:
        return outline, None
    if not isinstance(holes, list):
        raise WrongError(UNREADABLE, "holes that are no list")
    return _with_holes(outline, [_flat(hole) for hole in holes], size), None


def _with_holes(outline: Polygons, holes: list[list[float]], size: Size) -> Shape:
    mask = rasterise(outline, *size)
    for hole in holes:
        mask &= 1 - rasterise(polygons_of([hole])[0], *size)
    return encode(mask)


def _flat(points: object) -> list[float]:
    """x y x y ..."""
    if not isinstance(points, list):
        raise WrongError(UNREADABLE, "no points")
    return [value for point in points for value in numbers(point, 2)]


def _mask(bitmap: dict[str, Any], size: Size | None) -> np.ndarray:
    """(h, w) bool: a PNG, packed and in base64, whose opaque pixels count; for an image of `size`."""
    try:
        packed = base64.b64decode(str(bitmap.get("data")))
        image = Image.open(io.BytesIO(zlib.decompressobj().decompress(packed, _MOST)), formats=["PNG"])
        require_room(image.height, image.width, size)
        clear = "transparency" in image.info or image.mode in ("RGBA", "LA")
        return np.array(image.convert("RGBA").getchannel("A") if clear else image.convert("L")) > 0
    except (binascii.Error, zlib.error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WrongError(UNREADABLE, f"its bitmap: {error}") from None
