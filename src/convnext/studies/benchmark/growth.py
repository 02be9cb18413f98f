"""How throughput grows with batch, resolution and cores: the rows of several benchmarks as three panels of one drawing.

Each panel varies one thing and keeps the others. Points are medians, bars through them the slowest and fastest round, the
numbers below ours its share of the machine's matmuls, whose own end is a broken line. The drawing stands alone as
an SVG file; positions are in units of the drawing, which scales as a whole.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import GAP, plain

WIDTH, HEIGHT = 1080, 384
_TOP, _FLOOR = 112, 324  # upper and lower end of the plots
_LEFT, _ACROSS, _APART = 34, 288, 76  # where the first plot begins, how wide one is, and what is free between two
_INSET = 18  # between the ends of a plot and its first and last point, where numbers stand
_EDGE = 16  # empty, all round
_LOOKS = ("own", "plain", "peer")  # of the contenders, in the order of `names`
_LIMIT = "the machine's matmuls"
_STYLE = """
.growth { --page: #fff; --ink: #1a2127; --soft: #5a6570; --line: #d9dee3; --grid: #e9edf0; --blue: #0b64a8;
  --orange: #bd5206; --grey: #7b8792; --faint: #8db4d3; font: 12px system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
@media screen and (prefers-color-scheme: dark) { .growth { --page: #12161a; --ink: #e6eaed; --soft: #9aa6b0;
  --line: #323a42; --grid: #252c33; --blue: #62aef0; --orange: #f29a4a; --grey: #8d99a4; --faint: #46688a; } }
.growth .sheet { fill: var(--page); } .growth text { fill: var(--soft); font-size: 12px; }
.growth .title { fill: var(--ink); font-size: 15px; font-weight: 650; }
.growth .panel { fill: var(--ink); font-size: 13px; font-weight: 650; } .growth .share { fill: var(--blue);
  font-size: 11px; paint-order: stroke; stroke: var(--page); stroke-width: 3; }
.growth .grid { stroke: var(--grid); } .growth .base { stroke: var(--line); }
.growth .curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .growth .spread { stroke-width: 1.25; }
.growth .own { stroke: var(--blue); } .growth .plain { stroke: var(--faint); } .growth .peer { stroke: var(--grey); }
.growth .limit { stroke: var(--orange); stroke-width: 1.5; stroke-dasharray: 4 4; }
.growth circle.own { fill: var(--blue); } .growth circle.plain { fill: var(--faint); }
.growth circle.peer { fill: var(--grey); }
"""


@dataclass(frozen=True)
class Panel:
    """One plot: what varies (a key of the rows), its heading, its rows, and whether its axes are logarithmic."""

    key: str
    title: str
    unit: str
    rows: tuple[dict[str, Any], ...]
    log_x: bool
    log_y: bool


def panels(rows: Sequence[dict[str, Any]], *, batch: int, size_px: int, threads: int) -> list[Panel]:
    """The three plots of `rows` (those of deploy.benchmark.rows); each keeps two of the three values given."""
    kept = {"batch": batch, "size_px": size_px, "threads": threads}
    kinds = (
        ("batch", f"batch, at {size_px} px on {_cores(threads)}", "images in a call", True, False),
        ("size_px", f"resolution, at batch {batch} on {_cores(threads)}", "pixels, both axes logarithmic", True, True),
        ("threads", f"cores, at batch {batch} and {size_px} px", "threads", False, False),
    )
    found = []
    for key, title, unit, log_x, log_y in kinds:
        others = [name for name in kept if name != key]
        here = (r for r in rows if r["kind"] == "contender" and all(r[name] == kept[name] for name in others))
        found.append(Panel(key, title, unit, tuple(sorted(here, key=lambda r: r[key])), log_x, log_y))
    return found


def chart(plots: Sequence[Panel], names: dict[str, str], title: str) -> Html:
    """The drawing as one SVG element that brings its own style.

    `names`: contender -> what the legend calls it; the first one's share of the limit is written.
    """
    legend, x = [], 0.0
    for name, look in (*zip(names.values(), _LOOKS, strict=False), (_LIMIT, "limit")):
        legend.append(
            tag("line", x1=x, x2=x + 18, y1=40, y2=40, class_="limit" if look == "limit" else f"curve {look}")
        )
        legend.append(_text(x + 24, 44, name, "", "start"))
        x += 52 + 6.1 * len(name)
    drawn = [_panel(plot, names, _LEFT + i * (_ACROSS + _APART)) for i, plot in enumerate(plots) if plot.rows]
    sheet = tag("rect", class_="sheet", x=-_EDGE, y=-_EDGE, width=WIDTH + 2 * _EDGE, height=HEIGHT + 2 * _EDGE)
    note = _text(0, HEIGHT, "images per second; below ours, its share of the rate of the matmuls", "", "start")
    return tag(
        "svg",
        [tag("style", Html(_STYLE)), sheet, _text(0, 16, title, "title", "start"), legend, drawn, note],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"{-_EDGE} {-_EDGE} {WIDTH + 2 * _EDGE} {HEIGHT + 2 * _EDGE}",
        class_="growth",
        role="img",
        aria_label=title,
    )


def _panel(plot: Panel, names: dict[str, str], left: float) -> list[object]:
    values = sorted({row[plot.key] for row in plot.rows})
    limits = {value: limit for value in values if (limit := _limit(plot, value))}
    rates = [rate for row in plot.rows for rate in row["rates"]]
    ends = (left + (_INSET if plot.log_x else 0), left + _ACROSS - _INSET)
    x_of = _axis((values[0] if plot.log_x else 0, values[-1]), ends, log=plot.log_x)
    low, high, ticks = _ticks(min(rates), max([*rates, *limits.values()]), log=plot.log_y)
    y_of = _axis((low, high), (_FLOOR, _TOP), log=plot.log_y)
    parts: list[object] = [_text(left - 34, _TOP - 22, plot.title, "panel", "start")]
    for tick in ticks:
        y = y_of(tick)
        parts.append(tag("line", x1=left, x2=left + _ACROSS, y1=y, y2=y, class_="grid" if tick > low else "base"))
        parts.append(_text(left - 8, y + 4, plain(tick), "", "end"))
    for value in values:
        parts.append(_text(x_of(value), _FLOOR + 18, value, "", "middle"))
    parts.append(_text(left + _ACROSS, _FLOOR + 36, plot.unit, "", "end"))
    parts.append(_curve([(x_of(value), y_of(limit)) for value, limit in limits.items()], "curve limit"))
    for i, (name, look) in reversed(list(enumerate(zip(names, _LOOKS, strict=False)))):
        here = [row for row in plot.rows if row["name"] == name]
        parts.append(_curve([(x_of(row[plot.key]), y_of(row["images_per_s"])) for row in here], f"curve {look}"))
        parts += [_point(plot, row, names[name], look, x_of, y_of, written=i == 0) for row in here]
    return parts


def _point(
    plot: Panel,
    row: dict[str, Any],
    name: str,
    look: str,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    *,
    written: bool,
) -> Html:
    x, y, share = x_of(row[plot.key]), y_of(row["images_per_s"]), row["gemm_share"]
    sentence = (
        f"{name}, {row['batch']} images of {row['size_px']} px, {_cores(row['threads'])}: {row['images_per_s']:.1f}"
    )
    label = f"{100 * share:.0f}{GAP}%" if written and share else None
    return tag(
        "g",
        tag("title", f"{sentence} images/s" + (f", {share:.0%} of the matmuls" if share else "")),
        tag("line", x1=x, x2=x, y1=y_of(min(row["rates"])), y2=y_of(max(row["rates"])), class_=f"spread {look}"),
        tag("circle", cx=x, cy=y, r=3, class_=look),
        _text(x, y + 17, label, "share", "middle") if label else None,
    )


def _limit(plot: Panel, value: float) -> float | None:
    """Images per second at which the network would run at the machine's rate of matmuls."""
    here = [row for row in plot.rows if row[plot.key] == value and row["gemm_share"]]
    return median(row["images_per_s"] / row["gemm_share"] for row in here) if here else None


def _axis(values: tuple[float, float], places: tuple[float, float], *, log: bool) -> Callable[[float], float]:
    """value -> place in the drawing."""
    low, high = (math.log(v) if log else v for v in values)

    def place(value: float) -> float:
        share = ((math.log(value) if log else value) - low) / (high - low) if high > low else 0.5
        return round(places[0] + share * (places[1] - places[0]), 1)

    return place


def _ticks(low: float, high: float, *, log: bool) -> tuple[float, float, list[float]]:
    """(lowest, highest, lines) of an axis: from 0 by round steps, or 1, 2, 5 times powers of ten."""
    if log:
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        every = [m * 10.0**power for power in powers for m in (1, 2, 5)]
        first = max(v for v in every if v <= low)
        last = min(v for v in every if v >= high)
        return first, last, [v for v in every if first <= v <= last]
    power = 10.0 ** math.floor(math.log10(high / 4))
    step = power * next(m for m in (1, 2, 5, 10) if m * power * 5 >= high)
    count = math.ceil(high / step - 1e-9)
    return 0.0, count * step, [i * step for i in range(count + 1)]


def _curve(points: list[tuple[float, float]], class_: str) -> Html | None:
    if len(points) < 2:
        return None
    return tag("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in points), class_=class_)


def _cores(threads: int) -> str:
    return f"{threads} core{'' if threads == 1 else 's'}"


def _text(x: float, y: float, content: object, class_: str, anchor: str) -> Html:
    return tag("text", content, x=round(x, 1), y=round(y, 1), class_=class_ or None, text_anchor=anchor)
