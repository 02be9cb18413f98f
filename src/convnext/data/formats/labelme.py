"""labelme: a JSON file for each image, with the shapes that were drawn on it.

Polygons, masks, circles and turned rectangles are outlines, rectangles are boxes; of segmentation all are areas. Shapes
of one label and one `group_id` are one object. Files may carry their image inside (`imageData`).
"""

import base64
import binascii
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from convnext.data.dataset import DenseDataset
from convnext.data.decode import decode_indices, read_size
from convnext.data.formats.json_kinds import json_files, json_kind
from convnext.data.formats.pages import Pages, Size, Thing
from convnext.data.formats.shapes import ellipse, placed, require_room
from convnext.data.masks import Shape
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
    word,
)
from convnext.data.source import Source
from convnext.data.store import Store, Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError, number_of
from convnext.files import to_json

_BARE = frozenset({"point", "points", "line", "linestrip"})
_POLYGONS = frozenset({"", "polygon", "rotation", "oriented_rectangle", "quadrilateral"})
_NO_OBJECT = frozenset({"__ignore__", "_background_"})  # labelme's own names of what is none
_LEAST = 10  # bytes of an image in JSON's text: less is null or empty


class _File(msgspec.Struct):
    """One file; the image inside stays text that nobody unpacks."""

    shapes: Any = None
    imagePath: Any = None  # noqa: N815 # labelme's own names
    imageHeight: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815
    flags: Any = None
    imageData: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815


def has_labelme(tree: Tree) -> bool:
    """Whether one of the first JSON files is labelme's."""
    return bool(json_files(tree, "labelme"))


def open_labelme(source: Source) -> dict[str, DenseDataset]:
    """The data sets of a folder of labelme's files, by part. Raises DataError when nothing can be read."""
    tree, pages = source.tree, Pages(source)
    inside: set[str] = set()
    flagged = 0
    for name in tree.files.take(tree.files.ending_in({".json"})):
        data = tree.once.take(name)
        if json_kind(data) != "labelme":
            pages.check_beside(name, data, _image_beside(pages, name))
            continue
        try:
            file = _read(data)
        except DataError as error:
            pages.damage(name, str(error), _image_beside(pages, name))
            continue
        path = _image(pages, name, file)
        embedded = len(bytes(file.imageData)) > _LEAST
        if path is None and not embedded:
            pages.miss(str(file.imagePath or name))
            continue
        size = _size(file) or (_size_inside(file) if path is None else None)
        inside |= {name} if path is None else set()
        flagged += not file.shapes and isinstance(file.flags, dict) and any(file.flags.values())
        pages.add(path or name, list(_things(file, name, size, pages, source.task)), size, file=name)
    pages.name_others()
    _require_shapes(pages, flagged, source.name)
    parts = pages.parts()
    if not inside:
        return parts
    store = _Embedded(source.store, tree.store, frozenset(inside))
    many = len(inside) > 1
    note = f"The image{'s' * many} of {number_of(len(inside), 'file')} {'are' if many else 'is'} inside "
    note += f"{'their' if many else 'its'} JSON and {'were' if many else 'was'} read from there."
    return {part: replace(data, store=store, notes=(*data.notes, note)) for part, data in parts.items()}


@dataclass(frozen=True)
class _Embedded:
    """Images, some of them inside the JSON files that describe them."""

    images: Store
    labels: Store
    inside: frozenset[str]

    def read(self, path: str) -> bytes:
        return _image_in(_read(self.labels.read(path))) if path in self.inside else self.images.read(path)


def _read(data: bytes) -> _File:
    try:
        return msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # such as NaN, or a mark of the encoding in front
        content = json_in(data)
        if not isinstance(content, dict):
            raise DataError("no object in JSON") from None
        inside = to_json(content.pop("imageData", None)).encode()
        return _File(
            **{key: content[key] for key in _File.__struct_fields__ if key in content}, imageData=msgspec.Raw(inside)
        )


def _image(pages: Pages, name: str, file: _File) -> str | None:
    """The image of a file: the one it names, else that of its own name."""
    path = file.imagePath if isinstance(file.imagePath, str) else ""
    return pages.find(path, part=part_of(name), beside=name.rpartition("/")[0], stem=os.path.splitext(name)[0])


def _image_beside(pages: Pages, name: str) -> str | None:
    """The image of the name of a file that says nothing itself."""
    return pages.find("", part=part_of(name), stem=os.path.splitext(name)[0])


def _size(file: _File) -> Size | None:
    return image_size(file.imageHeight, file.imageWidth)


def _size_inside(file: _File) -> Size | None:
    try:
        return read_size(_image_in(file))
    except DataError:
        return None


def _image_in(file: _File) -> bytes:
    try:
        return base64.b64decode(msgspec.json.decode(file.imageData, type=str), validate=False)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise DataError("the image inside its JSON is damaged") from None


def _things(file: _File, name: str, size: Size | None, pages: Pages, task: str) -> Iterator[Thing]:
    """The shapes of a file that can be used; what is wrong with the others goes to the problems of `pages`."""
    shapes = file.shapes if isinstance(file.shapes, list) else []
    for place, item in enumerate(shapes, 1):
        where = f"{printable(name)} shape {place}"
        try:
            if not isinstance(item, dict) or not isinstance(item.get("label"), str | int):
                raise WrongError(UNREADABLE, "a shape without a label")
            label = printable(" ".join(str(item["label"]).split()))
            if not label:
                raise WrongError(UNREADABLE, "a shape without a label")
            if label in _NO_OBJECT and task != "segmentation":
                continue
            shape, box = _drawn(item, size)
            group = item.get("group_id")
            yield Thing(label, shape, box, where, group if isinstance(group, int | str) else None)
        except WrongError as wrong:
            pages.problems.append(Problem(wrong.kind, where, wrong.what))


def _drawn(item: dict[str, Any], size: Size | None) -> tuple[Shape | None, Box | None]:
    """The outline of a shape, or the box that it is."""
    kind = word(item.get("shape_type"))
    if kind in _BARE:
        raise WrongError(NO_AREA, kind)
    points = _points(item.get("points"))
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4 and not _is_upright(points)):
        return polygons_of([points.ravel().tolist()])[0], None
    if len(points) < 2:
        raise WrongError(FEW_POINTS, f"a {kind} of {len(points)} points")
    if kind == "circle":
        (x, y), edge = points[0].tolist(), points[1].tolist()
        radius = math.dist((x, y), edge)
        return (ellipse(x, y, radius, radius),), None
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if kind == "rectangle":
        return None, (x0, y0, x1, y1)
    if kind == "mask":
        return placed(_mask(item.get("mask"), size), int(y0), int(x0), size), None
    raise WrongError(NO_AREA, f"shape_type '{kind}'")


def _points(values: object) -> np.ndarray:
    """(P, 2) float64."""
    if not isinstance(values, list) or not all(isinstance(point, list) and len(point) >= 2 for point in values):
        raise WrongError(UNREADABLE, "points that are no pairs of numbers")
    return np.array([numbers(point[:2]) for point in values], np.float64).reshape(-1, 2)


def _is_upright(points: np.ndarray) -> bool:
    """Whether four corners are those of a box that is not turned."""
    return len({round(x, 3) for x in points[:, 0].tolist()}) == 2 == len({round(y, 3) for y in points[:, 1].tolist()})


def _mask(text: object, size: Size | None) -> np.ndarray:
    """(h, w) bool: the part of an image of `size` that a mask covers, a PNG in base64."""
    try:
        data = base64.b64decode(word(text))
        require_room(*read_size(data), size)
        return decode_indices(data) > 0
    except (DataError, binascii.Error, ValueError) as error:
        raise WrongError(UNREADABLE, f"its mask: {error}") from None


def _require_shapes(pages: Pages, flagged: int, name: str) -> None:
    """Raise DataError where files hold flags for whole images alone."""
    if flagged and not pages.has_objects:
        raise DataError(
            f"the labelme files of '{name}' hold flags for {number_of(flagged, 'whole image')} and no shapes: those are "
            "classes. Leave out --form, or say --task classification."
        )
