"""What can be wrong with an annotation: the kinds, how they are spoken of, and the checks that all formats share."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convnext.data.limits import MAX_OUTLINE_PX, MAX_PIXELS
from convnext.data.masks import Polygons

OUTSIDE = "box outside"
CUT = "box cut"
EMPTY = "zero area"
UNKNOWN = "unknown category"
MISSING = "missing file"
FEW_POINTS = "few points"
OUTLINE = "bad outline"
NO_BOX = "no box"
MASK_SIZE = "mask size"
UNREADABLE = "unreadable"
DAMAGED = "damaged file"
STRAY = "stray annotation"
NO_MASK = "no mask"
DOUBLE = "double image"
NO_MAP = "no map"
NO_AREA = "no area"
UNANNOTATED = "no annotations"

KINDS = {  # kind -> a line of preflight
    MISSING: "image{s} {are} annotated and not there",
    OUTSIDE: "box{es} outside the image {are} left out",
    EMPTY: "object{s} of zero area {are} left out",
    UNKNOWN: "object{s} of an unknown category {are} left out",
    FEW_POINTS: "polygon{s} of fewer than three points {are} left out",
    OUTLINE: "outline{s} that cannot be used {are} left out, and the box is kept",
    NO_BOX: "object{s} without a box that can be used {are} boxed by the outline",
    MASK_SIZE: "mask{s} of another size than the image's {are} left out",
    DAMAGED: "file{s} of annotations that cannot be read {are} left out",
    UNREADABLE: "annotation{s} that cannot be read {are} left out",
    STRAY: "annotation{s} of no known image {are} left out",
    DOUBLE: "image{s} listed twice {are} left out",
    NO_MAP: "image{s} without a mask {are} left out",
    UNANNOTATED: "image{s} without a file of annotations {are} left out",
    NO_AREA: "object{s} drawn as points or lines, which have no area, {are} left out",
    CUT: "box{es} {are} cut at the edge of the image",
    NO_MASK: "object{s} without an outline {are} masked by the whole box",
}

SLACK_PX = 1.0  # a box may reach this far beyond its image: so do COCO's own
FARTHEST = 100_000.0  # a point beyond is a mistake, and would take long to draw

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the annotations: one of KINDS, the place, and what was found there."""

    kind: str
    where: str
    what: str = ""


def why_left_out(problems: Sequence[Problem]) -> str:
    """'Left out: 6 objects of an unknown category, 1 image annotated and not there.'; '' where nothing was."""
    counts = Counter(problem.kind for problem in problems)
    said = []
    for kind, what in KINDS.items():
        if counts[kind] and (kind == MISSING or "left out" in what):
            words = what.split(", and")[0].removesuffix(" {are} left out").replace("{are} ", "").rstrip(",")
            plural = counts[kind] != 1
            words = words.replace("{s}", "s" if plural else "").replace("{es}", "es" if plural else "")
            said.append(f"{counts[kind]:,} {words}")
    return f"Left out: {', '.join(said)}." if said else ""


class WrongError(Exception):
    """One annotation cannot be used; its file's reader turns this into a Problem and goes on."""

    def __init__(self, kind: str, what: str):
        super().__init__(kind, what)
        self.kind, self.what = kind, what


def numbers(values: object, count: int | None = None) -> list[float]:
    """`values` as finite numbers, `count` of them. Raises WrongError otherwise."""
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        raise WrongError(UNREADABLE, f"{_short(values)} is not a list of {count or 'some'} numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= FARTHEST:
            raise WrongError(UNREADABLE, f"{_short(value)} is not a place in an image")
    return [float(value) for value in values]


def fitting_box(box: Box, size: tuple[float, float] | None, slack: float = SLACK_PX) -> tuple[Box, bool]:
    """`box`, x0 y0 x1 y1, and whether it had to be cut to an image of `size` (H, W). Raises WrongError if none is left.

    Up to `slack` beyond the image is left as it is, and cut when the image is read.
    """
    x0, y0, x1, y1 = box
    shown = " ".join(f"{edge:g}" for edge in box)
    if x1 <= x0 or y1 <= y0:
        raise WrongError(EMPTY, f"box {shown}")
    if size is None:
        return box, False
    height, width = size
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise WrongError(OUTSIDE, f"box {shown} in {width:g} x {height:g}")
    if min(x0, y0) >= -slack and x1 <= width + slack and y1 <= height + slack:
        return box, False
    return (max(0.0, x0), max(0.0, y0), min(width, x1), min(height, y1)), True


def image_size(height: object, width: object) -> tuple[int, int] | None:
    """(H, W) as a file writes it, None where it does not, or where no image can be as large."""
    rows, columns = whole(height), whole(width)
    sized = rows is not None and columns is not None and min(rows, columns) > 0 and rows * columns <= MAX_PIXELS
    return (rows, columns) if sized and rows is not None and columns is not None else None


def word(value: object) -> str:
    """`value` where it is a text, else ''."""
    return value if isinstance(value, str) else ""


def polygons_of(lists: Sequence[object]) -> tuple[Polygons, list[str]]:
    """Outlines from lists of x y x y ..., and what was wrong with those of fewer than three points.

    Raises WrongError when none is left, or one is not made of numbers.
    """
    kept, few = [], []
    for values in lists:
        flat = numbers(values)
        if len(flat) % 2:
            raise WrongError(UNREADABLE, f"a polygon of {len(flat)} numbers: they come in pairs")
        if len(flat) < 6:
            few.append(f"{len(flat) // 2} points")
        else:
            kept.append(np.array(flat, np.float64).reshape(-1, 2))
    if not kept:
        raise WrongError(FEW_POINTS, few[0] if few else "0 points")
    if any(_length(points) > MAX_OUTLINE_PX for points in kept):
        raise WrongError(UNREADABLE, f"an outline of more than {MAX_OUTLINE_PX:,} pixels")
    if all(_is_flat(points) for points in kept):
        raise WrongError(EMPTY, f"a polygon of {len(kept[0])} points on one line")
    return tuple(kept), few


def extent(polygons: Polygons) -> Box:
    """(x0, y0, x1, y1) around all points."""
    points = np.concatenate(polygons)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def whole(value: object) -> int | None:
    """`value` as a whole number, None where it is not one; JSON writers make 3.0 of 3."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def whole_of_text(value: object) -> int | None:
    """The whole number that a text spells, None for everything else."""
    text = value.strip() if isinstance(value, str) else ""
    return (
        int(text) if text.isascii() and text.lstrip("-").isdigit() and len(text) < 19 and "-" not in text[1:] else None
    )


def _length(points: np.ndarray) -> float:
    """The longer of the ways along both axes, all edges together."""
    return float(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())


def _is_flat(points: np.ndarray) -> bool:
    away = points - points[0]
    far = away[np.abs(away).sum(axis=1).argmax()]
    return bool((away[:, 0] * far[1] == away[:, 1] * far[0]).all())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
