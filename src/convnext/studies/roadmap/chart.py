"""The paper's Figure 2 for a person's own data: a drawing that stands alone as an SVG file and inside a page.

Steps from top to bottom in the paper's groups; accuracy as bars with every run and the spread over seeds, the
multiply-accumulates of one image beside it. Positions are in units of the drawing, which scales as a whole; for narrow
screens, where its words would become too small, a page has the same rows once more with the names above the bars.
"""

import math
import textwrap
from typing import Any

from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import GAP, short
from convnext.errors import number_of

WIDTH = 960
_LABELS, _LEFT, _RIGHT = 196, 208, 610  # end of the labels, ends of the accuracy axis
_VALUE, _COST_LEFT, _COST_RIGHT = 706, 740, 884  # end of the written accuracy, ends of the MACs axis
_TOP, _ROW, _GAP, _BAR = 74, 24, 10, 14
_FOOT = 36
_EDGE = 12  # empty, all round
NARROW = 360  # width of the drawing for narrow screens
_SLIM_RIGHT, _SLIM_COST = 244, 268  # end of its accuracy axis, start of its MACs axis
_SLIM_ROW, _SLIM_BAR, _SLIM_HEAD, _SLIM_LINE = 36, 10, 22, 15
_SLIM_LETTERS = 52  # of a line of its caption
_LABELLED = {
    "resnet_original": "ResNet, original recipe",
    "resnet": "ResNet",
    "gelu": "GELU",
    "layer_norm": "LayerNorm",
    "separate_downsampling": "separate downsampling",
}
_STYLE = """
.roadmap { --page: #fff; --ink: #1a2127; --soft: #5a6570; --line: #d9dee3; --grid: #e9edf0; --blue: #0b64a8;
  --orange: #bd5206; --cost: #a9b3bc; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
@media screen and (prefers-color-scheme: dark) { .roadmap { --page: #12161a; --ink: #e6eaed; --soft: #9aa6b0;
  --line: #323a42; --grid: #252c33; --blue: #62aef0; --orange: #f29a4a; --cost: #56616b; } }
.roadmap .sheet { fill: var(--page); } .roadmap text { fill: var(--soft); font-size: 12px; }
.roadmap .step, .roadmap .value { fill: var(--ink); } .roadmap .title { fill: var(--ink); font-size: 15px; font-weight: 650; }
.roadmap .group { font-size: 11px; } .roadmap .tick { font-size: 11px; } .roadmap .lines { stroke: var(--grid); }
.roadmap .base { stroke: var(--line); } .roadmap .top1 { fill: var(--blue); } .roadmap .end { fill: var(--orange); }
.roadmap .aside { opacity: 0.45; } .roadmap .macs { fill: var(--cost); }
.roadmap .whisker { stroke: var(--ink); stroke-width: 1.25; } .roadmap .halo { stroke: var(--page); stroke-width: 4; }
.roadmap .seed { fill: var(--page); stroke: var(--ink); stroke-width: 1; }
"""


def chart(results: dict[str, Any]) -> Html:
    """The drawing of what roadmap.json holds; steps that were not trained keep their row."""
    rows = results["steps"]
    places = _places(rows)
    bottom = places[-1] + _ROW
    low, high, ticks = _scale([run["top1"] for row in rows for run in row["runs"]])
    costs = max(row["macs"] for row in rows)
    sheet = tag("rect", class_="sheet", x=-_EDGE, y=-_EDGE, width=WIDTH, height=bottom + _FOOT + 2 * _EDGE)
    inside: list[object] = [tag("style", Html(_STYLE)), sheet]
    inside.append(_text(0, 20, f"ConvNeXt's roadmap on {results['data']}", "title", "start"))
    inside.append(_text(0, 40, caption(results), "tick", "start"))
    for value in ticks:
        x = _across(value, low, high, _LEFT, _RIGHT)
        inside.append(tag("line", x1=x, x2=x, y1=_TOP - 6, y2=bottom, class_="lines"))
        inside.append(_text(x, bottom + 16, f"{100 * value:g}", "tick", "middle"))
    for x in (_LEFT, _COST_LEFT):
        inside.append(tag("line", x1=x, x2=x, y1=_TOP - 6, y2=bottom, class_="base"))
    inside.append(_text(_LEFT, bottom + 32, f"top-1 accuracy, %{_starts(low)}", "tick", "start"))
    inside.append(_text(_COST_LEFT, bottom + 32, "MACs of one image", "tick", "start"))
    group = None
    for row, y in zip(rows, places, strict=True):
        if row["group"] != group:
            group = row["group"]
            inside.append(_text(0, y + _ROW / 2 + 4, group, "group", "start"))
        inside.append(_row(row, y, low, high, costs, last=row is rows[-1]))
    return _svg(inside, box=f"{-_EDGE} {-_EDGE} {WIDTH} {bottom + _FOOT + 2 * _EDGE:g}")


def narrow_chart(results: dict[str, Any]) -> Html:
    """The same for a width of about 400 pixels: each step's name and numbers above its two bars."""
    rows = results["steps"]
    lines = textwrap.wrap(caption(results), _SLIM_LETTERS)
    low, high, ticks = _scale([run["top1"] for row in rows for run in row["runs"]])
    costs = max(row["macs"] for row in rows)
    inside: list[object] = [_text(0, _SLIM_LINE * (i + 1), line, "tick", "start") for i, line in enumerate(lines)]
    top = y = _SLIM_LINE * len(lines) + 8.0
    bars: list[object] = []
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before["group"] != row["group"]:
            y += _SLIM_HEAD
            bars.append(_text(0, y - 4, row["group"], "group", "start"))
        bars.append(_slim_row(row, y, low, high, costs, last=row is rows[-1]))
        y += _SLIM_ROW
    for value in ticks[:: 1 + (len(ticks) > 6)]:
        x = _across(value, low, high, 0, _SLIM_RIGHT)
        inside.append(tag("line", x1=x, x2=x, y1=top, y2=y, class_="lines"))
        inside.append(_text(x, y + 16, f"{100 * value:g}", "tick", "middle" if x else "start"))
    inside += [tag("line", x1=x, x2=x, y1=top, y2=y, class_="base") for x in (0, _SLIM_COST)]
    inside.append(_text(0, y + 34, f"top-1 accuracy, %{_starts(low)}", "tick", "start"))
    inside.append(_text(_SLIM_COST, y + 34, "MACs an image", "tick", "start"))
    return _svg(tag("style", Html(_STYLE)), inside, bars, box=f"-1 0 {NARROW} {y + 42:g}")


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


def _svg(*inside: object, box: str) -> Html:
    says = "Accuracy and multiply-accumulates of every step from ResNet to ConvNeXt"
    place = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box}
    return tag("svg", *inside, **place, class_="roadmap", role="img", aria_label=says)


def _starts(low: float) -> str:
    return "" if low == 0 else f"; the axis starts at {100 * low:g}"


def _row(row: dict[str, Any], y: float, low: float, high: float, costs: int, *, last: bool) -> Html:
    middle, bar = y + _ROW / 2, y + (_ROW - _BAR) / 2
    parts: list[object] = [_text(_LABELS, middle + 4, label(row["name"]), "step", "end")]
    if row["mean"] is None:
        parts.append(_text(_LEFT + 8, middle + 4, "not trained", "tick", "start"))
    else:
        wide = _across(row["mean"], low, high, _LEFT, _RIGHT) - _LEFT
        parts.append(_bar(_LEFT, bar, wide, _BAR, "end" if last else "top1", row))
        parts += _spread(row, middle, low, high, _LEFT, _RIGHT)
        parts.append(_text(_VALUE, middle + 4, accuracy(row), "value", "end"))
    wide = (_COST_RIGHT - _COST_LEFT) * row["macs"] / costs
    parts.append(_bar(_COST_LEFT, bar, wide, _BAR, "macs", row))
    parts.append(_text(_COST_LEFT + wide + 8, middle + 4, short(row["macs"]), "value", "start"))
    return _titled(row, parts)


def _slim_row(row: dict[str, Any], y: float, low: float, high: float, costs: int, *, last: bool) -> Html:
    bar = y + _SLIM_ROW - _SLIM_BAR - 6
    parts: list[object] = [_text(0, bar - 5, label(row["name"]), "step", "start")]
    parts.append(_text(_SLIM_RIGHT, bar - 5, accuracy(row) or "not trained", "value" if row["runs"] else "tick", "end"))
    if row["mean"] is not None:
        wide = _across(row["mean"], low, high, 0, _SLIM_RIGHT)
        parts.append(_bar(0, bar, wide, _SLIM_BAR, "end" if last else "top1", row))
        parts += _spread(row, bar + _SLIM_BAR / 2, low, high, 0, _SLIM_RIGHT)
    parts.append(_text(_SLIM_COST, bar - 5, short(row["macs"]), "value", "start"))
    parts.append(_bar(_SLIM_COST, bar, (NARROW - 2 - _SLIM_COST) * row["macs"] / costs, _SLIM_BAR, "macs", row))
    return _titled(row, parts)


def _bar(x: float, y: float, wide: float, high: float, kind: str, row: dict[str, Any]) -> Html:
    aside = " aside" if row["name"] in ("kernel_9", "kernel_11") else ""  # tried by the paper, not taken up
    return tag("rect", x=x, y=y, width=max(0.0, round(wide, 1)), height=high, rx=1.5, class_=kind + aside)


def _titled(row: dict[str, Any], parts: list[object]) -> Html:
    """The parts of a row with what is said when a pointer rests on them."""
    sentence = (
        f"{label(row['name'])}: {row['change']} {accuracy(row) or 'not trained'}, {short(row['params'])} parameters"
    )
    return tag("g", tag("title", sentence.replace("±", f"±{GAP}")), parts)


def _spread(row: dict[str, Any], y: float, low: float, high: float, left: float, right: float) -> list[object]:
    """One standard deviation over the seeds to both sides, and every run."""
    parts: list[object] = []
    if row["std"] is not None:
        ends: list[float] = [_across(row["mean"] + side * row["std"], low, high, left, right) for side in (-1, 1)]
        for kind in ("halo", "whisker"):
            parts.append(tag("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_=kind))
            parts += [tag("line", x1=x, x2=x, y1=y - 4, y2=y + 4, class_=kind) for x in ends]
        runs = [_across(run["top1"], low, high, left, right) for run in row["runs"]]
        parts += [tag("circle", cx=x, cy=y, r=2, class_="seed") for x in runs]
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
    rough = max(high - low, 0.01) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = max(0, math.floor(low / step) - 1)
    last = math.ceil(high / step + 1e-9)
    ticks = [round(i * step, 9) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _across(value: float, low: float, high: float, left: float, right: float) -> float:
    return round(left + (right - left) * min(1.0, max(0.0, (value - low) / (high - low))), 1)


def _text(x: float, y: float, content: str, class_: str, anchor: str) -> Html:
    return tag("text", content, x=round(x, 1), y=round(y, 1), class_=class_, text_anchor=anchor)
