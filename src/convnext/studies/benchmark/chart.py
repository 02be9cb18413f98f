"""The rows of a benchmark for people: a table for each batch, and a drawing that stands alone as an SVG file.

The drawing has a bar for each contender, ours in blue, with its slowest and fastest round, and a broken line where the
machine's matmuls would end. Positions are in units of the drawing, which scales as a whole.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import NOTHING
from convnext.reports.text import table

_HEAD = ("img/s", "of it", "lowest", "highest", "ms", "p90", "p99", "MB", "of GEMM", "of copy")
WIDTH = 960
_LABELS, _LEFT, _RIGHT, _RATIO = 196, 208, 700, 800  # end of the names, ends of the axis, end of the written ratio
_TOP, _HEADING, _ROW, _GAP, _BAR = 58, 30, 24, 26, 14
_FOOT, _EDGE = 8, 12
_KINDS = {"ours": "own", "engine": "engine", "peer": "peer", "other": "other"}
_SAID = {
    "ours": "ours",
    "engine": "our network in another runtime",
    "peer": "the same network elsewhere",
    "other": "others",
}
_STYLE = """
.bench { --page: #fff; --ink: #1a2127; --soft: #5a6570; --line: #d9dee3; --blue: #0b64a8; --orange: #bd5206;
  --grey: #7b8792; --faint: #9db9d0; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
@media screen and (prefers-color-scheme: dark) { .bench { --page: #12161a; --ink: #e6eaed; --soft: #9aa6b0;
  --line: #323a42; --blue: #62aef0; --orange: #f29a4a; --grey: #8d99a4; --faint: #46688a; } }
.bench .sheet { fill: var(--page); } .bench text { fill: var(--soft); font-size: 12px; }
.bench .title { fill: var(--ink); font-size: 15px; font-weight: 650; } .bench .panel { fill: var(--ink); font-size: 13px;
  font-weight: 650; } .bench .name, .bench .value { fill: var(--ink); } .bench .base { stroke: var(--line); }
.bench .own { fill: var(--blue); } .bench .engine { fill: var(--faint); } .bench .peer { fill: var(--grey); }
.bench .other { fill: var(--line); } .bench .whisker { stroke: var(--ink); stroke-width: 1.25; }
.bench .limit { stroke: var(--orange); stroke-width: 1.5; stroke-dasharray: 4 4; } .bench .note { fill: var(--orange); }
"""


def tables(rows: Sequence[dict[str, Any]], console: Console | None = None) -> str:
    """A table for each batch, fastest first; with a `console`, in colour and printed there, and '' is returned."""
    parts = []
    for batch in _batches(rows):
        head = ["contender", _HEAD[0], f"of {rows_of(rows, batch)[0]['reference']}", *_HEAD[2:]]
        cells = [(row["origin"], _cells(row)) for row in rows_of(rows, batch)]
        if console is None:
            parts.append(f"Batch {batch}\n" + table(head, [line for _, line in cells]))
            continue
        drawn = Table(title=f"Batch {batch}", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, name in enumerate(head):
            drawn.add_column(name, justify="right" if i else "left", no_wrap=True)
        for origin, line in cells:
            drawn.add_row(*line, style="bold cyan" if origin == "ours" else "dim" if origin == "other" else None)
        console.print(drawn)
        console.print()
    return "\n\n".join(parts)


def limits_text(machine: dict[str, Any]) -> str:
    """What the machine did beside them, in one line."""
    gemm = ", ".join(f"{rate:,.0f} GFLOP/s at batch {batch}" for batch, rate in machine["gemm_gflops"].items())
    copied = f"copying {machine['copy_gb_s']:.1f} GB/s" if machine["copy_gb_s"] else "copying not measured"
    return f"This machine: matmuls of these shapes {gemm or 'not measured'}; {copied} (read and written)."


def rows_of(rows: Sequence[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """The contenders of one batch, fastest first."""
    here = [row for row in rows if row["kind"] == "contender" and row["batch"] == batch]
    return sorted(here, key=lambda row: -row["images_per_s"])


def chart(rows: Sequence[dict[str, Any]], title: str) -> Html:
    """The drawing as one SVG element that brings its own style."""
    parts: list[object] = [_text(0, 18, title, "title", "start"), *_legend(rows)]
    y = float(_TOP)
    for batch in _batches(rows):
        drawn, height = _panel(rows_of(rows, batch), batch, y)
        parts += drawn
        y += height + _GAP
    height = y - _GAP + _FOOT
    sheet = tag("rect", class_="sheet", x=-_EDGE, y=-_EDGE, width=WIDTH, height=height + 2 * _EDGE)
    return tag(
        "svg",
        [tag("style", Html(_STYLE)), sheet, parts],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"{-_EDGE} {-_EDGE} {WIDTH} {height + 2 * _EDGE:g}",
        class_="bench",
        role="img",
        aria_label=title,
    )


def _panel(rows: list[dict[str, Any]], batch: int, top: float) -> tuple[list[object], float]:
    """The bars of one batch, and how high they stand together."""
    limit = _limit(rows)
    longest = max([max(row["rates"]) for row in rows] + [limit or 0.0])
    unit = (_RIGHT - _LEFT) / longest
    bottom = top + _HEADING + _ROW * len(rows)
    parts: list[object] = [_text(0, top + 12, f"batch {batch}", "panel", "start")]
    parts += [_text(_RIGHT + 62, top + 12, "images/s", "", "end")]
    parts += [_text(_RATIO + 128, top + 12, f"of {rows[0]['reference']}", "", "end")]
    for i, row in enumerate(rows):
        parts.append(_bar(row, top + _HEADING + i * _ROW, unit))
    if limit:
        x = _LEFT + unit * limit
        parts.append(tag("line", x1=_round(x), x2=_round(x), y1=top + 18, y2=bottom, class_="limit"))
        parts.append(_text(x - 6, top + 12, f"the machine's matmuls: {_rate(limit)}", "note", "end"))
    parts.append(tag("line", x1=_LEFT, x2=_LEFT, y1=top + _HEADING - 6, y2=bottom, class_="base"))
    return parts, bottom - top


def _bar(row: dict[str, Any], y: float, unit: float) -> Html:
    middle, ends = y + _ROW / 2, [_LEFT + unit * rate for rate in (min(row["rates"]), max(row["rates"]))]
    wide = _round(unit * row["images_per_s"])
    ratio = f"{row['ratio']:.2f}" + (
        f" ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if row["rounds"] > 1 else ""
    )
    sentence = (
        f"{row['name']}: {_rate(row['images_per_s'])} images/s, {row['latency_ms']:.1f} ms, {row['peak_mb']:.0f} MB"
    )
    return tag(
        "g",
        tag("title", sentence),
        _text(_LABELS, middle + 4, row["name"], "name", "end"),
        tag("rect", x=_LEFT, y=y + (_ROW - _BAR) / 2, width=wide, height=_BAR, rx=1.5, class_=_KINDS[row["origin"]]),
        tag("line", x1=_round(ends[0]), x2=_round(ends[1]), y1=middle, y2=middle, class_="whisker"),
        [tag("line", x1=_round(x), x2=_round(x), y1=middle - 3, y2=middle + 3, class_="whisker") for x in ends],
        _text(_RIGHT + 62, middle + 4, _rate(row["images_per_s"]), "value", "end"),
        _text(_RATIO + 128, middle + 4, ratio, "value", "end"),
    )


def _legend(rows: Sequence[dict[str, Any]]) -> list[Html]:
    there, parts, x = {row["origin"] for row in rows if row["kind"] == "contender"}, [], 0.0
    for origin, kind in _KINDS.items():
        if origin in there:
            parts.append(tag("rect", x=x, y=30, width=12, height=9, rx=1.5, class_=kind))
            parts.append(_text(x + 18, 39, _SAID[origin], "", "start"))
            x += 40 + 6.4 * len(_SAID[origin])
    return parts


def _limit(rows: Sequence[dict[str, Any]]) -> float | None:
    """Images per second at which the network would run at the machine's rate of matmuls."""
    shares = [row["images_per_s"] / row["gemm_share"] for row in rows if row["gemm_share"]]
    return sorted(shares)[len(shares) // 2] if shares else None


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [f"{row[name]:.0%}" if row[name] else NOTHING for name in ("gemm_share", "copy_share")]
    ratios = [f"{row[name]:.2f}" for name in ("ratio", "ratio_low", "ratio_high")]
    times = [f"{row[name]:.1f}" for name in ("latency_ms", "latency_p90_ms", "latency_p99_ms")]
    return [row["name"], _rate(row["images_per_s"]), *ratios, *times, f"{row['peak_mb']:,.0f}", *shares]


def _batches(rows: Sequence[dict[str, Any]]) -> list[int]:
    return sorted({row["batch"] for row in rows if row["kind"] == "contender"})


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _round(value: float) -> float:
    return round(value, 1)


def _text(x: float, y: float, content: str, class_: str, anchor: str) -> Html:
    return tag("text", content, x=round(x, 1), y=round(y, 1), class_=class_ or None, text_anchor=anchor)
