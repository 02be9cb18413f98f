"""Accuracy against cost, after Figure 1 of arXiv 2201.03545: a bubble a network, its area the number of parameters.

Two panels from the paper's own tables: trained on ImageNet-1K at 224 px, pretrained on 22K at 384 px. One drawing that
stands alone as an SVG file and inside a page; positions are in units of the drawing, which scales as a whole.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import GAP
from convnext.errors import ConvNeXtError
from convnext.recipes.sizes import SIZES
from convnext.reports.page import page
from convnext.studies.paper.published import PAPER, Row, tables

WIDTH, HEIGHT = 1080, 520
_TOP, _FLOOR = 112, 452  # upper and lower end of the plots
_RADIUS = 0.98  # of a network of one million parameters, so that 937 M fit
_EDGE = 16  # empty, all round
_FAMILIES = {  # family: (colour class, beginnings of its names), drawn from first to last
    "ResNet": ("resnet", ("ResNet", "R-")),
    "ViT, DeiT": ("vit", ("ViT", "DeiT")),
    "Swin": ("swin", ("Swin",)),
    "ConvNeXt": ("own", ("ConvNeXt",)),
}
_STYLE = """
.bubbles { --page: #fff; --ink: #1a2127; --soft: #5a6570; --line: #d9dee3; --grid: #e9edf0; --blue: #0b64a8;
  --orange: #bd5206; --grey: #7b8792; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
@media screen and (prefers-color-scheme: dark) { .bubbles { --page: #12161a; --ink: #e6eaed; --soft: #9aa6b0;
  --line: #323a42; --grid: #252c33; --blue: #62aef0; --orange: #f29a4a; --grey: #8d99a4; } }
.bubbles .sheet { fill: var(--page); } .bubbles text { fill: var(--soft); font-size: 12px; }
.bubbles .title { fill: var(--ink); font-size: 15px; font-weight: 650; }
.bubbles .panel { fill: var(--ink); font-size: 13px; font-weight: 650; }
.bubbles .lines { stroke: var(--grid); } .bubbles .base { stroke: var(--line); }
.bubbles .bubble { fill-opacity: 0.55; stroke-width: 1.25; } .bubbles .path { fill: none; stroke-width: 1.5; }
.bubbles .size { fill: none; stroke: var(--soft); }
.bubbles .own { fill: var(--blue); stroke: var(--blue); } .bubbles .swin { fill: var(--orange); stroke: var(--orange); }
.bubbles .vit { fill: var(--grey); stroke: var(--grey); } .bubbles .resnet { fill: var(--page); stroke: var(--grey); }
.bubbles .path.own, .bubbles .path.swin, .bubbles .path.vit, .bubbles .path.resnet { fill: none; stroke-opacity: 0.6; }
.bubbles .path.resnet { stroke-dasharray: 4 3; } .bubbles .name { fill: var(--ink); font-size: 11px;
  paint-order: stroke; stroke: var(--page); stroke-width: 3; stroke-linejoin: round; }
"""


@dataclass(frozen=True)
class Point:
    """One network in one panel."""

    family: str
    label: str
    gmacs: float
    top1: float  # percent
    params_m: float


@dataclass(frozen=True)
class Panel:
    """One plot: its points, its place and its axes; x is logarithmic."""

    title: str
    points: tuple[Point, ...]
    left: float
    right: float
    x_ticks: tuple[int, ...]
    x_ends: tuple[float, float]
    y_ends: tuple[int, int]

    def place(self, gmacs: float, top1: float) -> tuple[float, float]:
        """Where a value lies in the drawing."""
        low, high = map(math.log, self.x_ends)
        x = self.left + (self.right - self.left) * (math.log(gmacs) - low) / (high - low)
        bottom, top = self.y_ends
        return round(x, 1), round(_FLOOR - (_FLOOR - _TOP) * (top1 - bottom) / (top - bottom), 1)


def write_bubbles(out: str | Path) -> Path:
    """Write the drawing to `out`: '.svg' the drawing alone, '.html' a page with its numbers. Raises ConvNeXtError."""
    path = Path(out)
    if path.suffix.lower() not in (".svg", ".html"):
        raise ConvNeXtError(f"'{out}' ends in '{path.suffix}': the figure is written as .svg or .html.")
    drawing = bubble_chart()
    text = drawing if path.suffix.lower() == ".svg" else page("Accuracy against cost", _body(drawing))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConvNeXtError(f"'{out}' cannot be written: {error.strerror}.") from None
    return path


def bubble_chart() -> Html:
    """The drawing as one SVG element that brings its own style."""
    box = f"{-_EDGE} {-_EDGE} {WIDTH + 2 * _EDGE} {HEIGHT + 2 * _EDGE}"
    sheet = tag("rect", class_="sheet", x=-_EDGE, y=-_EDGE, width=WIDTH + 2 * _EDGE, height=HEIGHT + 2 * _EDGE)
    title = _text(0, 16, "ImageNet accuracy against multiply-accumulates", "title", "start")
    source = _text(0, 36, f"Numbers as printed in {PAPER}, tables 1, 10 and 11", "", "start")
    note = _text(WIDTH, HEIGHT, "multiply-accumulates of one image, logarithmic", "", "end")
    inside = [tag("style", Html(_STYLE)), sheet, title, source, note, _legend(), [_panel(p) for p in panels()]]
    return tag(
        "svg",
        inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=box,
        class_="bubbles",
        role="img",
        aria_label="Top-1 accuracy of ConvNeXt, Swin, ViT and ResNet against multiply-accumulates",
    )


def panels() -> tuple[Panel, Panel]:
    """ImageNet-1K at 224 px, and 22K pretraining at 384 px (the largest ResNet at 480)."""
    rows = tables()["1"].rows
    small = [_point(row) for row in rows if row.trained_on == "1K" and row.size_px == 224]
    small += [_resnet("10", "ResNet-50", "resnet50"), _resnet("11", "ResNet-200", "resnet200")]
    large = [_point(row) for row in rows if row.trained_on == "22K" and (row.size_px or 0) >= 384]
    return (
        Panel("ImageNet-1K, 224 px", _known(small), 40, 490, (4, 8, 16, 32), (3.2, 46), (78, 85)),
        Panel(
            "ImageNet-22K, then 1K at 384 px",
            _known(large),
            610,
            1070,
            (10, 20, 50, 100, 200, 500, 1000),
            (9, 1300),
            (83, 89),
        ),
    )


def _known(points: list[Point | None]) -> tuple[Point, ...]:
    return tuple(sorted((p for p in points if p), key=lambda p: (list(_FAMILIES).index(p.family), p.gmacs)))


def _point(row: Row) -> Point | None:
    """A row of table 1, where its family is drawn."""
    family = next((name for name, (_, starts) in _FAMILIES.items() if row.label.startswith(starts)), None)
    numbers = [row.values[key] for key in ("gmacs", "top1", "params_m")]
    gmacs, top1, params = (float(number) for number in numbers if number is not None)
    return Point(family, row.label, gmacs, top1, params) if family else None


def _resnet(table: str, label: str, model: str) -> Point:
    """ResNet under the modern recipe, which table 1 leaves out."""
    row = next(row for row in tables()[table].rows if row.label == "resnet")
    gmacs, top1 = row.values["gmacs"], row.values["top1"]
    return Point("ResNet", label, float(gmacs or 0), float(top1 or 0), round(SIZES[model][0] / 1e6, 1))


def _panel(panel: Panel) -> list[Html]:
    parts = [_text(panel.left, _TOP - 16, panel.title, "panel", "start")]
    for value in range(panel.y_ends[0], panel.y_ends[1] + 1):
        y = panel.place(panel.x_ends[0], value)[1]
        line = "base" if value == panel.y_ends[0] else "lines"
        parts.append(tag("line", x1=panel.left, x2=panel.right, y1=y, y2=y, class_=line))
        parts.append(_text(panel.left - 8, y + 4, f"{value}{GAP}%" if value == panel.y_ends[1] else value, "", "end"))
    for tick in panel.x_ticks:
        x = panel.place(tick, panel.y_ends[0])[0]
        parts.append(tag("line", x1=x, x2=x, y1=_FLOOR, y2=_FLOOR + 5, class_="base"))
        parts.append(_text(x, _FLOOR + 20, f"{tick}{GAP}G" if tick == panel.x_ticks[0] else tick, "", "middle"))
    for family, (colour, _) in _FAMILIES.items():
        parts += _family(panel, [p for p in panel.points if p.family == family], colour)
    return parts


def _family(panel: Panel, points: list[Point], colour: str) -> list[Html]:
    """A family's bubbles from small to large, joined by a line; names where no line runs."""
    places = [panel.place(p.gmacs, p.top1) for p in points]
    parts = [tag("polyline", points=" ".join(f"{x},{y}" for x, y in places), class_=f"path {colour}")]
    for point, (x, y) in zip(points, places, strict=True):
        radius = _radius(point.params_m)
        says = f"{point.label}: {point.top1:g} %, {point.gmacs:g} GMACs, {point.params_m:g} M parameters"
        parts.append(tag("g", tag("title", says), tag("circle", cx=x, cy=y, r=radius, class_=f"bubble {colour}")))
        if colour == "own":
            parts.append(_text(x + 4, y - radius - 5, point.label, "name", "end"))
        else:
            parts.append(_text(x - 4, y + radius + 13, point.label, "name", "start"))
    return parts


def _legend() -> list[Html]:
    parts, x = [], 0.0
    for family, (colour, _) in reversed(_FAMILIES.items()):
        parts.append(tag("circle", cx=x + 6, cy=58, r=6, class_=f"bubble {colour}"))
        parts.append(_text(x + 18, 62, family, "", "start"))
        x += 34 + 6.7 * len(family)
    x = WIDTH - 268.0
    parts.append(_text(x - 20, 62, "parameters", "", "end"))
    for params_m in (25, 100, 400):
        radius = _radius(params_m)
        parts.append(tag("circle", cx=x + radius, cy=58, r=radius, class_="size"))
        parts.append(_text(x + 2 * radius + 6, 62, f"{params_m}{GAP}M", "", "start"))
        x += 2 * radius + 58
    return parts


def _body(drawing: Html) -> list[Html]:
    """The page around the drawing: a heading, and the same numbers as a table for each panel."""
    parts = [tag("h1", "Accuracy against cost"), tag("figure", drawing)]
    for panel in panels():
        head = tag("tr", [tag("th", name) for name in ("network", "GMACs", "parameters (M)", "top-1 (%)")])
        ranked = sorted(panel.points, key=lambda p: -p.top1)
        lines = [[p.label, _decimal(p.gmacs), f"{p.params_m:g}", _decimal(p.top1)] for p in ranked]
        body = [tag("tr", [tag("td", cell) for cell in line]) for line in lines]
        parts.append(tag("section", tag("h2", panel.title), tag("table", tag("thead", head), tag("tbody", body))))
    return parts


def _decimal(value: float) -> str:
    """'83.0' and '15.01': at least one decimal."""
    written = f"{value:g}"
    return written if "." in written else f"{written}.0"


def _radius(params_m: float) -> float:
    return round(_RADIUS * math.sqrt(params_m), 1)


def _text(x: float, y: float, content: object, class_: str, anchor: str) -> Html:
    return tag("text", content, x=round(x, 1), y=round(y, 1), class_=class_ or None, text_anchor=anchor)
