"""The paper's Figure 2 for a person's own data: a drawing that stands alone as an SVG file and inside a page.

Steps from top to bottom in the paper's groups; accuracy as bars with every run and the spread over seeds, the
multiply-accumulates of one image beside it. For narrow screens, where its letters would become too small, a page has
the same rows once more with the names above the bars.
"""

import math
import textwrap
from typing import Any

from convnext.drawing.canvas import bar, canvas, dot, line, titled, whisker, write
from convnext.drawing.markup import Html
from convnext.drawing.numbers import GAP, short
from convnext.drawing.scales import nice, scale
from convnext.errors import number_of

WIDTH = 928
_LABELS, _LEFT, _RIGHT = 196, 208, 610  # end of the labels, ends of the accuracy axis
_VALUE, _COST_LEFT, _COST_RIGHT = 706, 740, 884  # end of the written accuracy, ends of the MACs axis
_TOP, _ROW, _GAP, _BAR = 74, 24, 10, 14
_FOOT = 32
NARROW = 358  # width of the drawing for narrow screens
_SLIM_RIGHT, _SLIM_COST = 244, 268  # end of its accuracy axis, start of its MACs axis
_SLIM_ROW, _SLIM_BAR, _SLIM_HEAD, _SLIM_LINE = 36, 10, 22, 15
_SLIM_LETTERS = 52  # of a line of its caption
_SAYS = "Accuracy and multiply-accumulates of every step from ResNet to ConvNeXt"
_LABELLED = {
    "resnet_original": "ResNet, original recipe",
    "resnet": "ResNet",
    "gelu": "GELU",
    "layer_norm": "LayerNorm",
    "separate_downsampling": "separate downsampling",
}


def chart(results: dict[str, Any]) -> Html:
    """The drawing of what roadmap.json holds; steps that were not trained keep their row."""
    rows = results["steps"]
    places = _places(rows)
    bottom = places[-1] + _ROW
    low, high, ticks = _scale([run["top1"] for row in rows for run in row["runs"]])
    costs = max(row["macs"] for row in rows)
    inside: list[object] = [write(0, 16, f"ConvNeXt's roadmap on {results['data']}", "title")]
    inside.append(write(0, 38, caption(results), "small"))
    for value in ticks:
        x = _across(value, low, high, _LEFT, _RIGHT)
        inside.append(line(x, _TOP - 6, x, bottom, "grid"))
        inside.append(write(x, bottom + 16, f"{100 * value:g}", "small", "middle"))
    inside += [line(x, _TOP - 6, x, bottom, "axis") for x in (_LEFT, _COST_LEFT)]
    inside.append(write(_LEFT, bottom + 32, f"top-1 accuracy, %{_starts(low)}", "small"))
    inside.append(write(_COST_LEFT, bottom + 32, "MACs of one image", "small"))
    group = None
    for row, y in zip(rows, places, strict=True):
        if row["group"] != group:
            group = row["group"]
            inside.append(write(0, y + _ROW / 2 + 4, group, "small"))
        inside.append(_row(row, y, low, high, costs, last=row is rows[-1]))
    return canvas(WIDTH, bottom + _FOOT, _SAYS, inside)


def narrow_chart(results: dict[str, Any]) -> Html:
    """The same for a width of about 400 pixels: each step's name and numbers above its two bars."""
    rows = results["steps"]
    lines = textwrap.wrap(caption(results), _SLIM_LETTERS)
    low, high, ticks = _scale([run["top1"] for row in rows for run in row["runs"]])
    costs = max(row["macs"] for row in rows)
    inside: list[object] = [write(0, _SLIM_LINE * (i + 1), text, "small") for i, text in enumerate(lines)]
    top = y = _SLIM_LINE * len(lines) + 8.0
    bars: list[object] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before["group"] != row["group"]:
            y += _SLIM_HEAD
            bars.append(write(0, y - 4, row["group"], "small"))
        bars.append(_slim_row(row, y, low, high, costs, last=row is rows[-1]))
        y += _SLIM_ROW
    for value in ticks[:: 1 + (len(ticks) > 6)]:
        x = _across(value, low, high, 0, _SLIM_RIGHT)
        inside.append(line(x, top, x, y, "grid"))
        inside.append(write(x, y + 16, f"{100 * value:g}", "small", "middle" if x else "start"))
    inside += [line(x, top, x, y, "axis") for x in (0, _SLIM_COST)]
    inside.append(write(0, y + 34, f"top-1 accuracy, %{_starts(low)}", "small"))
    inside.append(write(_SLIM_COST, y + 34, "MACs an image", "small"))
    return canvas(NARROW, y + 40, _SAYS, inside, bars, edge=1)


def caption(results: dict[str, Any]) -> str:
    """What every bar has in common, in one line."""
    ends = {"t": "ResNet-50 to ConvNeXt-T", "b": "ResNet-200 to ConvNeXt-B"}[results["regime"]]
    width = "full width" if results["width_factor"] == 1 else f"width x {results['width_factor']:g}"
    most = max((len(row["runs"]) for row in results["steps"]), default=0)
    return (
        f"{ends}, {width}, {number_of(results['epochs'], 'epoch')} of "
        f"{number_of(results['train'], 'image')} in {number_of(results['classes'], 'class', 'classes')}, "
        f"{results['size_px']} px, {number_of(most, 'seed')}, {results['val']:,} held out"
    )


def label(name: str) -> str:
    """A step's name for people: 'kernel_7' -> 'kernel 7'."""
    return _LABELLED.get(name, name.replace("_", " "))


def accuracy(row: dict[str, Any]) -> str:
    """'84.31 ± 0.40', '84.31' of one run, '' of none; percent."""
    if row["mean"] is None:
        return ""
    return f"{100 * row['mean']:.2f}" + (f" ± {100 * row['std']:.2f}" if row["std"] is not None else "")


def _starts(low: float) -> str:
    return "" if low == 0 else f"; the axis starts at {100 * low:g}"


def _row(row: dict[str, Any], y: float, low: float, high: float, costs: int, *, last: bool) -> Html:
    middle, top = y + _ROW / 2, y + (_ROW - _BAR) / 2
    parts: list[object] = [write(_LABELS, middle + 4, label(row["name"]), "strong", "end")]
    if row["mean"] is None:
        parts.append(write(_LEFT + 8, middle + 4, "not trained", "small"))
    else:
        wide = _across(row["mean"], low, high, _LEFT, _RIGHT) - _LEFT
        parts.append(bar(_LEFT, top, wide, _BAR, _look(row, last=last)))
        parts += _spread(row, middle, low, high, _LEFT, _RIGHT)
        parts.append(write(_VALUE, middle + 4, accuracy(row), "strong", "end"))
    wide = (_COST_RIGHT - _COST_LEFT) * row["macs"] / costs
    parts.append(bar(_COST_LEFT, top, wide, _BAR, _look(row, cost=True)))
    parts.append(write(_COST_LEFT + wide + 8, middle + 4, short(row["macs"]), "strong"))
    return titled(_sentence(row), parts)


def _slim_row(row: dict[str, Any], y: float, low: float, high: float, costs: int, *, last: bool) -> Html:
    top = y + _SLIM_ROW - _SLIM_BAR - 6
    parts: list[object] = [write(0, top - 5, label(row["name"]), "strong")]
    parts.append(
        write(_SLIM_RIGHT, top - 5, accuracy(row) or "not trained", "strong" if row["runs"] else "small", "end")
    )
    if row["mean"] is not None:
        wide = _across(row["mean"], low, high, 0, _SLIM_RIGHT)
        parts.append(bar(0, top, wide, _SLIM_BAR, _look(row, last=last)))
        parts += _spread(row, top + _SLIM_BAR / 2, low, high, 0, _SLIM_RIGHT)
    parts.append(write(_SLIM_COST, top - 5, short(row["macs"]), "strong"))
    wide = (NARROW - 2 - _SLIM_COST) * row["macs"] / costs
    parts.append(bar(_SLIM_COST, top, wide, _SLIM_BAR, _look(row, cost=True)))
    return titled(_sentence(row), parts)


def _look(row: dict[str, Any], *, last: bool = False, cost: bool = False) -> str:
    """Of a bar; steps that the paper tried and did not take up are pale."""
    colour = "silver" if cost else "orange" if last else "blue"
    return f"fill {colour}" + (" aside" if row["name"] in ("kernel_9", "kernel_11") else "")


def _sentence(row: dict[str, Any]) -> str:
    """What is said when a pointer rests on a row."""
    reached = accuracy(row) or "not trained"
    return f"{label(row['name'])}: {row['change']} {reached}, {short(row['params'])} parameters".replace("±", f"±{GAP}")


def _spread(row: dict[str, Any], y: float, low: float, high: float, left: float, right: float) -> list[object]:
    """One standard deviation over the seeds to both sides, and every run."""
    parts: list[object] = []
    if row["std"] is not None:
        start, end = (_across(row["mean"] + side * row["std"], low, high, left, right) for side in (-1, 1))
        parts += [whisker(start, end, y, look) for look in ("halo", "whisker")]
        runs = [_across(run["top1"], low, high, left, right) for run in row["runs"]]
        parts += [dot(x, y, 2, "seed") for x in runs]
    return parts


def _places(rows: list[dict[str, Any]]) -> list[float]:
    """The upper edge of every row, with a gap between groups."""
    places, y = [], float(_TOP)
    for i, row in enumerate(rows):
        y += _GAP if i and row["group"] != rows[i - 1]["group"] else 0
        places.append(y)
        y += _ROW
    return places


def _scale(rates: list[float]) -> tuple[float, float, list[float]]:
    """(low, high, ticks) of an axis that shows the differences: it starts a little below the lowest run."""
    low, high = (min(rates), max(rates)) if rates else (0.0, 1.0)
    step = nice(max(high - low, 0.01) / 4)
    first = max(0, math.floor(low / step) - 1)
    last = math.ceil(high / step + 1e-9)
    ticks = [round(i * step, 9) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _across(value: float, low: float, high: float, left: float, right: float) -> float:
    """The place of `value`, or the nearer end for one outside of the axis."""
    return scale((low, high), (left, right))(min(high, max(low, value)))
