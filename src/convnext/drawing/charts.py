"""Charts as parts of a page.

A drawing is as wide as its place: positions are percentages, text and lines keep their size in pixels, so a chart reads
as well on a phone as on paper. The `svg` element is the plot itself; labels stand outside of it, in its margin.
Colours are classes of chart.css ('blue', 'orange', 'faint'), so that light, dark and paper share one drawing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import GAP, count, percent, plain
from convnext.drawing.scales import nice, steps

_MOST_POINTS = 700  # of a curve; more would only make the file larger
_MOST_COLUMNS = 160  # that answer to the pointer
_LETTER_PX = 6.7  # width of an average letter at the size of labels
_LONGEST_LABEL = 20  # letters of a class name beside a heat map


@dataclass(frozen=True)
class Line:
    """One curve: its legend, its colour class, and its points by rising x."""

    name: str
    colour: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    dots: bool = False


def line_chart(
    title: str, lines: Sequence[Line], *, rate: bool = False, zero: bool = False, whole: bool = False, x_name: str
) -> Html:
    """Curves over a shared x that starts at 0; `rate` writes y in percent, `zero` lets y start at 0.

    `whole` shows all of 0 to 1.
    """
    y_low, y_high, y_step = (0.0, 1.0, 0.2) if whole else _range(lines, zero=zero)
    if rate:  # a share is never outside 0 to 1, though round steps may be
        y_low, y_high = max(0.0, y_low), min(1.0, y_high)
    x_high = max(float(line.x[-1]) for line in lines) or 1.0

    def show(value: float) -> str:
        return percent(value) if rate else plain(value)

    y_ticks = [(_share(v, y_low, y_high), _tick(v, y_step, rate)) for v in steps(y_low, y_high, y_step)]
    x_step = nice(x_high / 5)
    x_ticks = [(v / x_high, _tick(v, x_step, False)) for v in steps(0.0, x_high, x_step)]
    curves = [_curve(line, x_high, y_low, y_high) for line in lines]
    dots = [_dots(line, x_high, y_low, y_high) for line in lines if line.dots]
    plot = _plot(title, x_ticks, y_ticks, [curves, dots, _columns(lines, x_high, x_name, show)], x_name)
    return figure(title, plot, [(line.name, line.colour) for line in lines] if len(lines) > 1 else [])


def bar(share: float, colour: str = "blue") -> Html:
    """A short horizontal bar for a table cell."""
    return tag(
        "svg",
        tag("rect", class_="rail", width="100%", height=8, rx=2),
        tag("rect", class_=f"fill {colour}", width=_at(min(max(share, 0.0), 1.0)), height=8, rx=2),
        class_="bar",
        height=8,
        aria_hidden="true",
    )


def interval(low: float, value: float, high: float) -> Html:
    """Where a rate and its interval lie between 0 and 100 %."""
    return tag(
        "svg",
        tag("rect", class_="rail", y=4, width="100%", height=4, rx=2),
        tag("rect", class_="fill blue band", y=2, x=_at(low), width=_at(high - low), height=8, rx=2),
        tag("rect", class_="fill blue", x=_at(value), width=3, height=12, rx=1, transform="translate(-1.5 0)"),
        class_="interval",
        height=12,
        role="img",
        aria_label=f"{percent(value)}, between {percent(low)} and {percent(high)}",
    )


def heat_map(names: Sequence[str], table: NDArray[np.int64], *, numbers: Literal["counts", "shares"] | None) -> Html:
    """(K, K) counts, rows the ground truth: right ones in blue, wrong ones in orange, deeper for a larger share of the row.

    `numbers`: what is written on a cell, its count or its share of the row in percent.
    """
    size = len(names)
    labels = [n if len(n) <= _LONGEST_LABEL else n[: _LONGEST_LABEL - 1] + "…" for n in names]
    margin = math.ceil(max(map(len, labels), default=1) * _LETTER_PX + 14)
    inside: list[Html] = []
    for i, label in enumerate(labels):
        middle = _at((i + 0.5) / size)
        inside.append(tag("text", label, y=middle, dx=-8, dy="0.35em", text_anchor="end"))
        turned = tag("text", label, x=8, dy="0.35em", transform="rotate(-90)")
        inside.append(tag("svg", turned, x=middle, class_="free"))
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    missed = max(0.1, (shares * (1 - np.eye(size))).max(initial=0.0))  # the deepest orange, if it is no rare mistake
    for row, column in zip(*np.nonzero(table), strict=True):
        share = float(shares[row, column])
        depth = share if row == column else (share / missed) ** 0.7
        says = f"{names[row]}, taken for {names[column]}: {count(int(table[row, column]))} ({percent(share)})"
        written = {"counts": str(table[row, column]), "shares": f"{100 * share:.0f}" if share >= 0.005 else ""}
        number = written[numbers] if numbers else ""
        inside.append(_cell(row / size, column / size, size, depth, number, says))
    lines = [tag("line", y1=_at(i / size), y2=_at(i / size), x2="100%", class_="grid") for i in range(size + 1)]
    lines += [tag("line", x1=_at(i / size), x2=_at(i / size), y2="100%", class_="grid") for i in range(size + 1)]
    plot = tag(
        "svg",
        lines,
        inside,
        class_="heat" + (" crowded" if size > 10 else ""),
        role="img",
        aria_label="Confusion matrix",
        style=f"--margin:{margin}px;--size:{size}",
    )
    title = "Rows: ground truth. Columns: prediction" + (", in % of the row." if numbers == "shares" else ".")
    return figure(title, tag("div", plot, class_="scroll"), [])


def reliability(bins: Sequence[dict[str, Any]], *, title: str = "How often it is right") -> Html:
    """How often the network is right (bars) when it claims to be this sure (x), and the gap to its claim."""
    inside = []
    for part in bins:
        if not part["n"]:
            continue
        low, high = sorted((part["accuracy"], part["confidence"]))
        says = (
            f"confidence {percent(part['low'], 0)} to {percent(part['high'], 0)}: right {percent(part['accuracy'])}, "
            f"claimed {percent(part['confidence'])}, {count(part['n'])} images"
        )
        pale = " pale" if part["n"] < 10 else ""
        box = {"x": _at(part["low"] + 0.003), "width": _at(part["high"] - part["low"] - 0.006)}
        solid = tag("rect", **box, y=_at(1 - low), height=_at(low), class_=f"fill blue{pale}")
        gap = tag("rect", **box, y=_at(1 - high), height=_at(high - low), class_=f"gap{pale}")
        inside.append(tag("g", tag("title", says), solid, gap))
    inside.append(tag("line", y1="100%", x2="100%", class_="ideal"))
    ticks = [(i / 5, percent(i / 5, 0)) for i in range(6)]
    plot = _plot("Reliability diagram", ticks, ticks, inside, "confidence")
    return figure(title, plot, [("right", "bar"), ("gap to the claim", "gap"), ("ideal", "ideal")])


def histogram(bins: Sequence[dict[str, Any]]) -> Html:
    """How the images are spread over the confidence of their prediction."""
    total = sum(part["n"] for part in bins) or 1
    tallest = max((part["n"] for part in bins), default=0) / total or 1.0
    step = nice(tallest / 4)
    top = math.ceil(tallest / step - 1e-9) * step
    inside = []
    for part in bins:
        height = part["n"] / total / top
        says = f"confidence {percent(part['low'], 0)} to {percent(part['high'], 0)}: {count(part['n'])} images"
        box = {"x": _at(part["low"] + 0.003), "width": _at(part["high"] - part["low"] - 0.006)}
        inside.append(tag("rect", tag("title", says), **box, y=_at(1 - height), height=_at(height), class_="fill grey"))
    y_ticks = [(v / top, _tick(v, step, True)) for v in steps(0.0, top, step)]
    plot = _plot(
        "Histogram of confidence", [(i / 5, percent(i / 5, 0)) for i in range(6)], y_ticks, inside, "confidence"
    )
    return figure("How sure it is: share of images", plot, [])


def figure(title: str, drawing: Html, legend: list[tuple[str, str]]) -> Html:
    """A drawing under its title and, where there is more than one thing to tell apart, its legend."""
    entries = []
    for name, colour in legend:
        kind = {"ideal": "ideal", "gap": "gap", "bar": "fill blue"}.get(colour, f"curve {colour}")
        line = tag("line", x1=1, x2=17, y1=5, y2=5, class_=kind)
        swatch = tag("rect", x=0.5, y=0.5, width=17, height=9, class_=kind) if colour in ("gap", "bar") else line
        entries.append(tag("li", tag("svg", swatch, width=18, height=10, aria_hidden="true"), name))
    caption = tag("figcaption", tag("b", title), tag("ul", entries, class_="legend") if entries else None)
    return tag("figure", caption, drawing)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred Gaussian mean that lags behind nothing; its width grows with the length of the curve."""
    width = max(1.0, len(values) / 60)
    reach = math.ceil(3 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weight = np.convolve(np.ones(len(values)), kernel)[reach : reach + len(values)]
    return np.asarray(np.convolve(values, kernel)[reach : reach + len(values)] / weight)


def _plot(label: str, x_ticks: Any, y_ticks: Any, inside: object, x_name: str) -> Html:
    parts: list[object] = []
    for share, name in y_ticks:
        parts.append(tag("line", y1=_at(1 - share), y2=_at(1 - share), x2="100%", class_="grid"))
        parts.append(tag("text", name, y=_at(1 - share), dx=-8, dy="0.35em", text_anchor="end"))
    for share, name in x_ticks:
        parts.append(
            tag("rect", x=_at(share), y="100%", width=1, height=5, transform="translate(-0.5 0)", class_="mark")
        )
        parts.append(tag("text", name, x=_at(share), y="100%", dy=18, text_anchor="middle"))
    parts += [tag("line", y1="100%", y2="100%", x2="100%", class_="axis"), inside]
    parts.append(tag("text", x_name, x="100%", y="100%", dy=34, text_anchor="end", class_="name"))
    margin = math.ceil(max((len(name) for _, name in y_ticks), default=1) * _LETTER_PX + 12)
    return tag("svg", parts, class_="plot", role="img", aria_label=label, style=f"--margin:{margin}px")


def _curve(line: Line, x_high: float, y_low: float, y_high: float) -> Html:
    kept = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), _MOST_POINTS)).round().astype(int))
    points = " ".join(
        f"{1000 * line.x[i] / x_high:.1f},{1000 * (1 - _share(line.y[i], y_low, y_high)):.1f}" for i in kept
    )
    path = tag("polyline", points=points, class_=f"curve {line.colour}", vector_effect="non-scaling-stroke")
    return tag("svg", path, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%")


def _dots(line: Line, x_high: float, y_low: float, y_high: float) -> list[Html]:
    if len(line.x) > 60:  # a string of pearls says no more than the curve
        return []
    return [
        tag("circle", cx=_at(x / x_high), cy=_at(1 - _share(y, y_low, y_high)), r=2.75, class_=f"dot {line.colour}")
        for x, y in zip(line.x, line.y, strict=True)
    ]


def _columns(lines: Sequence[Line], x_high: float, x_name: str, show: Any) -> list[Html]:
    """Invisible columns over the plot that name the values under the pointer."""
    x = np.unique(np.concatenate([line.x for line in lines]))
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_COLUMNS)).round().astype(int))]
    edges = np.concatenate([[0.0], (x[1:] + x[:-1]) / 2, [x_high]]) / x_high
    columns = []
    for i, position in enumerate(x):
        values = [f"{line.name} {show(float(line.y[np.abs(line.x - position).argmin()]))}" for line in lines]
        says = f"{x_name} {plain(float(position))}: " + ", ".join(values)
        box = {"x": _at(edges[i]), "width": _at(edges[i + 1] - edges[i])}
        columns.append(tag("rect", tag("title", says), **box, height="100%", class_="hover"))
    return columns


def _cell(y: float, x: float, size: int, depth: float, n: str, says: str) -> Html:
    box = {"x": _at(x), "y": _at(y), "width": _at(1 / size), "height": _at(1 / size)}
    square = tag("rect", **box, class_="hit" if x == y else "miss", style=f"--v:{depth:.3f}")
    middle = {"x": _at(x + 0.5 / size), "y": _at(y + 0.5 / size)}
    number = tag("text", n, **middle, dy="0.35em", text_anchor="middle", class_="n") if n else None
    return tag("g", tag("title", says), square, number)


def _range(lines: Sequence[Line], *, zero: bool) -> tuple[float, float, float]:
    """(low, high, step) that hold every curve; of a faint one, only what is no rare spike."""
    ends = [(np.percentile(v.y, (1, 99)) if v.colour == "faint" else (v.y.min(), v.y.max())) for v in lines]
    low, high = min(float(end[0]) for end in ends), max(float(end[1]) for end in ends)
    low = min(0.0, low) if zero else low
    if high - low <= 1e-9 * max(abs(high), abs(low)) + 1e-12:
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    step = nice((high - low) / 4)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def _tick(value: float, step: float, rate: bool) -> str:
    if rate:
        digits = max(0, -math.floor(math.log10(100 * step) + 1e-9))
        return f"{100 * value:.{digits}f}{GAP}%"
    return plain(round(value / step) * step, 6)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _at(share: float) -> str:
    return f"{100 * share:.2f}%"
