"""The rows of a benchmark as a drawing: a bar for each contender, ours in blue, with its slowest and fastest round.

A broken line stands where the machine's matmuls would end.
"""

from collections.abc import Sequence
from typing import Any

from convnext.drawing.canvas import LETTER, bar, canvas, line, titled, whisker, write
from convnext.drawing.markup import Html
from convnext.studies.benchmark.text import batches_of, rate, rows_of

WIDTH = 928
_LABELS, _LEFT, _RIGHT = 196, 208, 700  # end of the names, ends of the axis
_SPEED, _RATIO = 762, 928  # ends of the written figures
_TOP, _HEADING, _ROW, _GAP, _BAR = 58, 30, 24, 26, 14
_COLOURS = {"ours": "blue", "engine": "faint", "peer": "grey", "other": "silver"}
_SAID = {
    "ours": "ours",
    "engine": "our network in another runtime",
    "peer": "the same network elsewhere",
    "other": "others",
}


def chart(rows: Sequence[dict[str, Any]], title: str) -> Html:
    """The drawing as one SVG element that brings its own style."""
    parts: list[object] = [write(0, 16, title, "title"), *_legend(rows)]
    y = float(_TOP)
    for batch in batches_of(rows):
        drawn, height = _panel(rows_of(rows, batch), batch, y)
        parts += drawn
        y += height + _GAP
    return canvas(WIDTH, y - _GAP, title, parts)


def _panel(rows: list[dict[str, Any]], batch: int, top: float) -> tuple[list[object], float]:
    """The bars of one batch, and how high they stand together."""
    limit = _limit(rows)
    longest = max([max(row["rates"]) for row in rows] + [limit or 0.0])
    unit = (_RIGHT - _LEFT) / longest
    bottom = top + _HEADING + _ROW * len(rows)
    parts: list[object] = [write(0, top + 12, f"batch {batch}", "panel")]
    parts += [write(_SPEED, top + 12, "images/s", anchor="end")]
    parts += [write(_RATIO, top + 12, f"of {rows[0]['reference']}", anchor="end")]
    for i, row in enumerate(rows):
        parts.append(_row(row, top + _HEADING + i * _ROW, unit))
    if limit:
        x = _LEFT + unit * limit
        parts.append(line(x, top + 18, x, bottom, "limit"))
        parts.append(write(x - 6, top + 12, f"the machine's matmuls: {rate(limit)}", "orange", "end"))
    parts.append(line(_LEFT, top + _HEADING - 6, _LEFT, bottom, "axis"))
    return parts, bottom - top


def _row(row: dict[str, Any], y: float, unit: float) -> Html:
    middle = y + _ROW / 2
    low, high = (_LEFT + unit * speed for speed in (min(row["rates"]), max(row["rates"])))
    ratio = f"{row['ratio']:.2f}" + (
        f" ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if row["rounds"] > 1 else ""
    )
    sentence = (
        f"{row['name']}: {rate(row['images_per_s'])} images/s, {row['latency_ms']:.1f} ms, {row['peak_mb']:.0f} MB"
    )
    return titled(
        sentence,
        write(_LABELS, middle + 4, row["name"], "strong", "end"),
        bar(_LEFT, y + (_ROW - _BAR) / 2, unit * row["images_per_s"], _BAR, f"fill {_COLOURS[row['origin']]}"),
        whisker(low, high, middle),
        write(_SPEED, middle + 4, rate(row["images_per_s"]), "strong", "end"),
        write(_RATIO, middle + 4, ratio, "strong", "end"),
    )


def _legend(rows: Sequence[dict[str, Any]]) -> list[Html]:
    there, parts, x = {row["origin"] for row in rows if row["kind"] == "contender"}, [], 0.0
    for origin, colour in _COLOURS.items():
        if origin in there:
            parts += [bar(x, 30, 12, 9, f"fill {colour}"), write(x + 18, 39, _SAID[origin])]
            x += 40 + LETTER * len(_SAID[origin])
    return parts


def _limit(rows: Sequence[dict[str, Any]]) -> float | None:
    """Images per second at which the network would run at the machine's rate of matmuls."""
    shares = [row["images_per_s"] / row["gemm_share"] for row in rows if row["gemm_share"]]
    return sorted(shares)[len(shares) // 2] if shares else None
