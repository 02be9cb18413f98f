"""One object of a COCO file that is not plainly right: its box, its outline, and other ways to write both."""

import ast
import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from convnext.data.formats.coco_columns import Columns
from convnext.data.formats.coco_json import CocoFile
from convnext.data.masks import Rle, Shape, box, compress, decompress
from convnext.data.problems import (
    CUT,
    FEW_POINTS,
    MASK_SIZE,
    NO_BOX,
    OUTLINE,
    UNREADABLE,
    Box,
    WrongError,
    extent,
    fitting_box,
    numbers,
    polygons_of,
    whole,
    whole_of_text,
)
from convnext.errors import DataError

_SLACK = 0.002  # of the image's side: what rounding can add to a share


def spelled_plainly(item: Any) -> Any:
    """An annotation whose run lengths are not the text of Python's bytes, b'...'."""
    outline = item.get("segmentation") if isinstance(item, dict) else None
    if not isinstance(outline, dict):
        return item
    counts = outline.get("counts")
    if not isinstance(counts, str) or counts[:2] not in ("b'", 'b"'):
        return item
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        text = ast.literal_eval(counts)
        if isinstance(text, bytes):
            return {**item, "segmentation": {**outline, "counts": text.decode("latin-1")}}
    return item


def in_shares(file: CocoFile, columns: Columns, read: np.ndarray) -> bool:
    """Whether all boxes of a file lie within 0 and 1, and not on whole numbers: shares of the image's sides.

    `read`: (A,) bool, whose boxes `columns` hold; the others are looked up in the file.
    """
    boxes = columns.boxes[read]
    if not _are_shares(boxes):
        return False
    partly = bool((boxes % 1 != 0).any())
    for place in np.flatnonzero(~read).tolist():
        item = file.annotation(place)
        try:
            x, y, width, height = numbers(item.get("bbox") if isinstance(item, dict) else None, 4)
        except WrongError:
            continue
        corners = np.array([[x, y, x + width, y + height]])
        if not _are_shares(corners):
            return False
        partly |= bool((corners % 1 != 0).any())
    return partly


def _are_shares(boxes: np.ndarray) -> bool:
    return bool(((boxes >= -_SLACK) & (boxes <= 1 + _SLACK)).all())


def in_pixels(item: Any, sides: tuple[int, int]) -> Any:
    """An annotation in shares of an image of (H, W), in pixels. Its outline may be in pixels already."""
    if not isinstance(item, dict):
        return item
    item, (height, width) = dict(item), sides
    with contextlib.suppress(WrongError):
        item["bbox"] = _scaled(numbers(item.get("bbox"), 4), width, height)
    outline = item.get("segmentation")
    if isinstance(outline, list) and outline:
        polygons = outline if isinstance(outline[0], list) else [outline]
        try:
            values = [numbers(polygon) for polygon in polygons]
        except WrongError:
            return item
        if all(-_SLACK <= value <= 1 + _SLACK for polygon in values for value in polygon):
            item["segmentation"] = [_scaled(polygon, width, height) for polygon in values]
    area = item.get("area")
    if isinstance(area, float) and 0 <= area <= 1:
        item["area"] = area * width * height
    return item


def _scaled(values: Iterable[float], width: int, height: int) -> list[float]:
    return [value * (height if place % 2 else width) for place, value in enumerate(values)]


def halves(item: dict[str, Any], size: tuple[int, int] | None) -> tuple[Box, Shape | None, list[tuple[str, str]]]:
    """The box and the outline of an annotation, each kept where the other is wrong; and (kind, what) of what is wrong.

    Raises WrongError where neither is left, or the box is not in the image of `size` (H, W).
    """
    told: list[tuple[str, str]] = []
    outline, (given, wrong_box) = None, _given(item.get("bbox"))
    try:
        outline, few = outline_of(item.get("segmentation"), size)
        told += [(FEW_POINTS, what) for what in few]
    except WrongError as wrong:
        if given is None:
            raise
        told.append((OUTLINE, wrong.what))
    if wrong_box is not None:
        if outline is None:
            raise wrong_box
        told.append((NO_BOX, wrong_box.what))
    place, cut = fitting_box(given or _around(outline), size)
    if cut:
        edges = place if given is None else item["bbox"]
        told.append((CUT, " ".join(f"{edge:g}" for edge in edges)))
    return place, outline, told


def outline_of(segmentation: object, size: tuple[int, int] | None) -> tuple[Shape | None, list[str]]:
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
        text = compress(runs) if runs is not None else str(counts).encode("utf-8", "surrogatepass")
        runs = decompress(text) if runs is None else runs
    except (DataError, TypeError, OverflowError):
        raise WrongError(UNREADABLE, "its run lengths are damaged") from None
    if len(runs) == 0 or runs.min() < 0 or runs.max() > height * width:
        raise WrongError(UNREADABLE, "its run lengths are damaged")
    if int(runs.sum()) != height * width:
        raise WrongError(MASK_SIZE, f"its run lengths make {int(runs.sum())} pixels, not {width} x {height}")
    return Rle(height, width, text), []


def _given(values: object) -> tuple[Box | None, WrongError | None]:
    """x0 y0 x1 y1 from COCO's x y width height, None where the file has no box; and why it cannot be one."""
    if values is None or values == []:
        return None, None
    try:
        x, y, width, height = numbers(values, 4)
        if width <= 0 or height <= 0:
            fitting_box((x, y, x + width, y + height), None)
        return (x, y, x + width, y + height), None
    except WrongError as wrong:
        return None, wrong


def _around(outline: Shape | None) -> Box:
    """The box round an outline. Raises WrongError where there is none."""
    if outline is None:
        raise WrongError(UNREADABLE, "it has neither box nor outline")
    return box(outline) if isinstance(outline, Rle) else extent(outline)


def words_of(categories: list[Any]) -> dict[str, int]:
    """Numbers for categories in their order, where the id of one is a word; none where all are numbers."""
    ids = [item.get("id") for item in categories if isinstance(item, dict)]
    texts = [value for value in ids if isinstance(value, str) and value.strip()]
    if len(texts) < len(ids) or all(whole_of_text(text) is not None for text in texts):
        return {}
    return {text: number for number, text in enumerate(dict.fromkeys(texts), 1)}
