"""The chart of `benchmarks/scaling.py`: a panel for each kind of input, time above memory, both axes logarithmic.

A broken line rises as the input does: what is steeper grows faster, and has its reason below. Where the curves have their names
at their ends their looks are of that panel alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from convnext.drawing.canvas import canvas, curve, dot, line, titled, write
from convnext.drawing.markup import Html
from convnext.drawing.numbers import plain
from convnext.drawing.scales import Place, scale

LOOKS = {  # (step, task) -> its look
    ("open", "classification"): "grey",
    ("pre-flight", "classification"): "grey dashed",
    ("evaluate", "classification"): "orange",
    ("report", "classification"): "faint",
    ("predict", "classification"): "blue",
    ("predict", "detection"): "blue dashed",
    ("predict", "segmentation"): "blue dotted",
}
NAMED = {  # step -> its look in a panel where curves have their names
    "embed": "blue",
    "similar": "faint",
    "shard": "orange",
    "verify": "grey",
    "draw": "blue dashed",
    "audit": "orange dashed",
    "pre-flight": "grey dashed",
    "evaluate": "orange",
    "predict": "blue",
    "train": "faint",
    "serve": "grey",
}
INPUTS = {  # axis -> its heading, its unit
    "images": ("images of 32 px", "images"),
    "classes": ("classes of 20,000 images", "classes"),
    "pixels": ("pixels of a photograph", "pixels"),
    "objects": ("objects on each of 20 images", "objects an image"),
    "threads": ("threads, 100 photographs", "threads and readers"),
}
MORE = ("embed", "similar", "shard", "verify", "draw", "audit")  # steps along the images with a panel of their own
FIGURES = {"cpu_s": "seconds of the processor", "peak_mb": "MB"}
FLOOR = {"cpu_s": 0.02, "peak_mb": 1.0}  # below, nothing is told from noise
MATTERS = {"cpu_s": 1.0, "peak_mb": 64.0}  # of growth between two points; less is no outlier
STEEP = 1.25  # times as much as the input grew by
WHY: dict[tuple[str, str, str, str], str] = {  # (axis, step, task, figure) -> why it grows faster than its input
    ("images", "embed", "classification", "cpu_s"): "from 10,000 on beside much other work, below on a quiet machine",
}

BEFORE = ", family 6 model 207"  # of the lines that were written before they said so
_ACROSS, _APART, _LEFT, _NAME = 176, 62, 46, 54
_TOP, _TALL, _BETWEEN = 108, 170, 74


@dataclass(frozen=True)
class Series:
    """One figure of one step along one axis."""

    axis: str
    step: str
    task: str
    figure: str
    points: tuple[tuple[float, float], ...]  # (input, figure), by input

    @property
    def name(self) -> str:
        """'predict, segmentation: MB'."""
        return f"{self.step}, {self.task}: {FIGURES.get(self.figure, self.figure)}"

    @property
    def why(self) -> str:
        """Why it grows faster than its input; '' where no reason is known."""
        return WHY.get((self.axis, self.step, self.task, self.figure), "")

    def steep(self) -> list[float]:
        """The inputs that cost more than the input before by more than they are larger, beyond noise."""
        pairs = pairwise(self.points) if self.axis != "threads" else ()
        return [x2 for (x1, y1), (x2, y2) in pairs if y2 - y1 > MATTERS[self.figure] and y2 / y1 > STEEP * x2 / x1]


def series_of(rows: Sequence[dict[str, Any]]) -> list[Series]:
    """The last row of each point, as curves."""
    found: dict[tuple[str, str, str, str], dict[float, float]] = {}
    for row in rows:
        axis, size = row["axis"], float(row["value"] ** 2 if row["axis"] == "pixels" else row["value"])
        for figure in FIGURES:
            found.setdefault((axis, row["step"], row["task"], figure), {})[size] = row[figure]
    return [Series(*key, points=tuple(sorted(points.items()))) for key, points in found.items()]


def chart(series: Sequence[Series], rows: Sequence[dict[str, Any]]) -> Html:
    """The drawing as one SVG element that brings its own style."""
    columns = [(axis, "") for axis in INPUTS if any(each.axis == axis for each in series)]
    if any(each.step in MORE for each in series):
        columns.insert(1, ("images", "more commands, images of 32 px"))
    title = "Time and memory as the input grows"
    parts: list[object] = [write(0, 16, title, "title"), _legend(series)]
    left = 0.0
    for axis, heading in columns:
        named = bool(heading) or axis == "threads"
        for number, figure in enumerate(FIGURES):
            here = [each for each in series if (each.axis, each.figure) == (axis, figure)]
            here = [each for each in here if axis != "images" or (each.step in MORE) == bool(heading)]
            top = _TOP + number * (_TALL + _BETWEEN)
            parts.append(_panel(here, (axis, heading or INPUTS[axis][0]), figure, left + _LEFT, top, named=named))
        left += _ACROSS + _APART + (_NAME if named else 0)
    width = left
    bottom = _TOP + 2 * _TALL + _BETWEEN + 56
    told = [
        f"{INPUTS[each.axis][1]}, {each.name}: {each.why or 'no reason is known'}" for each in series if each.steep()
    ]
    notes = [
        "Broken: as the input grows. One process, one thread, tiny networks: what is around them. Along the threads: atto.",
        *(told or ["Nothing grows faster than its input."]),
        *_machines(rows),
    ]
    parts += [write(0, bottom + 18 * number, note) for number, note in enumerate(notes)]
    return canvas(width, bottom + 18 * len(notes) - 12, title, *parts)


def _machines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """'images, threads: Intel ..., 2 cores' of the rows that are shown."""
    last = {(row["axis"], row["value"], row["task"], row["step"]): row for row in rows if "processor" in row}
    axes: dict[str, dict[str, None]] = {}
    for row in last.values():
        name = f"{row['processor']}{'' if 'family' in row['processor'] else BEFORE}, {row['cores']} cores"
        axes.setdefault(name, {})[row["axis"]] = None
    return [f"{', '.join(own)}: {name}" for name, own in axes.items()]


def _legend(series: Sequence[Series]) -> list[Html]:
    parts, x = [], 0.0
    for (step, task), look in LOOKS.items():
        if any((each.step, each.task) == (step, task) and each.axis != "threads" for each in series):
            name = step if task == "classification" else f"{step}, {task}"
            parts += [line(x, 40, x + 22, 40, f"curve {look}"), write(x + 28, 44, name)]
            x += 58 + 6.2 * len(name)
    return parts


def _panel(
    here: Sequence[Series], about: tuple[str, str], figure: str, left: float, top: float, *, named: bool
) -> list[object]:
    axis, heading = about
    curves = [(each, [(x, max(FLOOR[figure], y)) for x, y in each.points]) for each in here]
    floor = top + _TALL
    unit = INPUTS[axis][1]
    parts: list[object] = []
    if figure == "cpu_s":
        parts.append(write(left - _LEFT, top - 34, heading, "panel"))
    parts.append(write(left - _LEFT, top - 14, FIGURES[figure]))
    values = sorted({x for _, points in curves for x, _ in points})
    if not values:
        return parts
    low = FLOOR[figure]
    high = max(10 * low, 10 ** math.ceil(math.log10(max(y for _, points in curves for _, y in points))))
    x_of = scale((values[0], values[-1]), (left + 6, left + _ACROSS - 6), log=True)
    y_of = scale((low, high), (floor, top), log=True)
    for power in range(math.ceil(math.log10(low)), round(math.log10(high)) + 1):
        y = y_of(10.0**power)
        parts += [line(left, y, left + _ACROSS, y, "grid"), write(left - 6, y + 4, plain(10.0**power), anchor="end")]
    parts.append(line(left, floor, left + _ACROSS, floor, "axis"))
    parts += [write(x_of(value), floor + 16, _short(value), "small", "middle") for value in _few(values)]
    parts.append(write(left + _ACROSS, floor + 32, unit, "small", "end"))
    if axis != "threads":
        parts.append(_guide(values, (low, high), x_of, y_of))
    for each, points in curves:
        look = LOOKS.get((each.step, "classification" if axis == "objects" else each.task), "grey")
        parts.append(_curve(each, points, NAMED[each.step] if named else look, x_of, y_of))
    return [*parts, *(_names(curves, x_of, y_of) if named else [])]


def _names(curves: list[tuple[Series, list[tuple[float, float]]]], x_of: Place, y_of: Place) -> list[Html]:
    """The steps' names at the ends of their curves, apart from each other, from below to above."""
    ends = sorted(((y_of(points[-1][1]), x_of(points[-1][0]), each.step) for each, points in curves), reverse=True)
    found, free = [], math.inf
    for y, x, name in ends:
        free = min(y + 4, free - 12)
        found.append(write(x + 7, free, name, "small"))
    return found


def _curve(each: Series, points: list[tuple[float, float]], look: str, x_of: Place, y_of: Place) -> Html:
    steep = set(each.steep())
    marks = [dot(x_of(x), y_of(y), 5 if x in steep else 2.5, f"fill {look.split()[0]}") for x, y in points]
    said = ", ".join(f"{_short(x)}: {plain(round(y, 2))}" for x, y in each.points)
    return titled(f"{each.name}: {said}", curve([(x_of(x), y_of(y)) for x, y in points], f"curve {look}"), *marks)


def _guide(values: list[float], ends: tuple[float, float], x_of: Place, y_of: Place) -> Html:
    """Through the middle of the panel, as steep as the input grows."""
    middle = math.sqrt(ends[0] * ends[1]) / math.sqrt(values[0] * values[-1])
    first = max(values[0], ends[0] / middle)
    last = min(values[-1], ends[1] / middle)
    return line(x_of(first), y_of(first * middle), x_of(last), y_of(last * middle), "limit")


def _few(values: list[float]) -> list[float]:
    return values if len(values) < 5 else values[::2]


def _short(value: float) -> str:
    """'250', '20k', '64M'."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
