"""How throughput grows with batch, resolution and cores: the rows of several benchmarks as three panels of one drawing.

Each panel varies one thing and keeps the others. Points are medians, bars through them the slowest and fastest round, the
numbers below ours its share of the machine's matmuls, whose own end is a broken line. The drawing stands alone as
an SVG file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from convnext.drawing.canvas import canvas, curve, dot, line, titled, write
from convnext.drawing.markup import Html
from convnext.drawing.numbers import GAP, plain
from convnext.drawing.scales import Place, nice, powers, scale

WIDTH, HEIGHT = 1080, 384
_TOP, _FLOOR = 112, 324  # upper and lower end of the plots
_LEFT, _ACROSS, _APART = 34, 288, 76  # where the first plot begins, how wide one is, and what is free between two
_INSET = 18  # between the ends of a plot and its first and last point, where numbers stand
_LOOKS = ("blue", "faint", "grey")  # colours of the contenders, in the order of `names`
_LIMIT = "the machine's matmuls"


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
    """The three plots of `rows` (those of studies.benchmark.rows); each keeps two of the three values given."""
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
    entries = list(zip(names.values(), _LOOKS, strict=False))
    if any(row["gemm_share"] for plot in plots for row in plot.rows):
        entries.append((_LIMIT, "limit"))
    for name, look in entries:
        legend.append(line(x, 40, x + 18, 40, look if look == "limit" else f"curve {look}"))
        legend.append(write(x + 24, 44, name))
        x += 52 + 6.1 * len(name)
    drawn = [_panel(plot, names, _LEFT + i * (_ACROSS + _APART)) for i, plot in enumerate(plots) if plot.rows]
    note = write(0, HEIGHT, "images per second; below ours, its share of the rate of the matmuls")
    return canvas(WIDTH, HEIGHT, title, write(0, 16, title, "title"), legend, drawn, note)


def _panel(plot: Panel, names: dict[str, str], left: float) -> list[object]:
    values = sorted({row[plot.key] for row in plot.rows})
    limits = {value: limit for value in values if (limit := _limit(plot, value))}
    rates = [rate for row in plot.rows for rate in row["rates"]]
    ends = (left + (_INSET if plot.log_x else 0), left + _ACROSS - _INSET)
    x_of = scale((values[0] if plot.log_x else 0, values[-1]), ends, log=plot.log_x)
    low, high, ticks = _ticks(min(rates), max([*rates, *limits.values()]), log=plot.log_y)
    y_of = scale((low, high), (_FLOOR, _TOP), log=plot.log_y)
    parts: list[object] = [write(left - 34, _TOP - 22, plot.title, "panel")]
    for tick in ticks:
        y = y_of(tick)
        parts.append(line(left, y, left + _ACROSS, y, "grid" if tick > low else "axis"))
        parts.append(write(left - 8, y + 4, plain(tick), anchor="end"))
    for value in values:
        parts.append(write(x_of(value), _FLOOR + 18, value, anchor="middle"))
    parts.append(write(left + _ACROSS, _FLOOR + 36, plot.unit, anchor="end"))
    parts.append(_curve([(x_of(value), y_of(limit)) for value, limit in limits.items()], "limit"))
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
    x_of: Place,
    y_of: Place,
    *,
    written: bool,
) -> Html:
    x, y, share = x_of(row[plot.key]), y_of(row["images_per_s"]), row["gemm_share"]
    sentence = (
        f"{name}, {row['batch']} images of {row['size_px']} px, {_cores(row['threads'])}: {row['images_per_s']:.1f}"
    )
    label = f"{100 * share:.0f}{GAP}%" if written and share else None
    return titled(
        f"{sentence} images/s" + (f", {share:.0%} of the matmuls" if share else ""),
        line(x, y_of(min(row["rates"])), x, y_of(max(row["rates"])), f"curve thin {look}"),
        dot(x, y, 3, f"fill {look}"),
        write(x, y + 17, label, "outlined blue", "middle") if label else None,
    )


def _limit(plot: Panel, value: float) -> float | None:
    """Images per second at which the network would run at the machine's rate of matmuls."""
    here = [row for row in plot.rows if row[plot.key] == value and row["gemm_share"]]
    return median(row["images_per_s"] / row["gemm_share"] for row in here) if here else None


def _ticks(low: float, high: float, *, log: bool) -> tuple[float, float, list[float]]:
    """(lowest, highest, lines) of an axis: from 0 by round steps, or 1, 2, 5 times powers of ten."""
    if log:
        every = powers(low, high)
        return every[0], every[-1], every
    step = nice(high / 5)
    count = math.ceil(high / step - 1e-9)
    return 0.0, count * step, [i * step for i in range(count + 1)]


def _curve(points: list[tuple[float, float]], look: str) -> Html | None:
    return curve(points, look) if len(points) > 1 else None


def _cores(threads: int) -> str:
    return f"{threads} core{'' if threads == 1 else 's'}"
