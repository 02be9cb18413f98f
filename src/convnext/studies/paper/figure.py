"""Accuracy against cost, after Figure 1 of arXiv 2201.03545: a bubble a network, its area the number of parameters.

Two panels from the paper's own tables: trained on ImageNet-1K at 224 px, pretrained on 22K at 384 px. One drawing that
stands alone as an SVG file and inside a page.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from convnext.drawing.canvas import LETTER, canvas, curve, dot, line, titled, write
from convnext.drawing.markup import Html, tag
from convnext.drawing.numbers import GAP
from convnext.drawing.scales import scale
from convnext.errors import ConvNeXtError
from convnext.files import refuse_unusable, write_bytes
from convnext.recipes.sizes import SIZES
from convnext.reports.page import page
from convnext.studies.paper.published import PAPER, Row, tables

WIDTH, HEIGHT = 1080, 520
_TOP, _FLOOR = 112, 452  # upper and lower end of the plots
_RADIUS = 0.98  # of a network of one million parameters, so that 937 M fit
_FAMILIES = {  # family: (colour, beginnings of its names), drawn from first to last
    "ResNet": ("hollow", ("ResNet", "R-")),
    "ViT, DeiT": ("grey", ("ViT", "DeiT")),
    "Swin": ("orange", ("Swin",)),
    "ConvNeXt": ("blue", ("ConvNeXt",)),
}


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
        x = scale(self.x_ends, (self.left, self.right), log=True)(gmacs)
        return x, scale(self.y_ends, (_FLOOR, _TOP))(top1)


def write_bubbles(out: str | Path) -> Path:
    """Write the drawing to `out`: '.svg' the drawing alone, '.html' a page with its numbers. Raises ConvNeXtError."""
    path = Path(out)
    if path.suffix.lower() not in (".svg", ".html"):
        raise ConvNeXtError(f"'{out}' ends in '{path.suffix}': the figure is written as .svg or .html.")
    refuse_unusable(path)
    drawing = bubble_chart()
    text = drawing if path.suffix.lower() == ".svg" else page("Accuracy against cost", _body(drawing))
    try:
        write_bytes(path, f"{text}\n".encode())
    except OSError as error:
        raise ConvNeXtError(f"'{out}' cannot be written: {error.strerror}.") from None
    return path


def bubble_chart() -> Html:
    """The drawing as one SVG element that brings its own style."""
    return canvas(
        WIDTH,
        HEIGHT,
        "Top-1 accuracy of ConvNeXt, Swin, ViT and ResNet against multiply-accumulates",
        write(0, 16, "ImageNet accuracy against multiply-accumulates", "title"),
        write(0, 36, f"Numbers as printed in {PAPER}, tables 1, 10 and 11"),
        write(WIDTH, HEIGHT, "multiply-accumulates of one image, logarithmic", anchor="end"),
        _legend(),
        [_panel(panel) for panel in panels()],
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
    parts = [write(panel.left, _TOP - 16, panel.title, "panel")]
    for value in range(panel.y_ends[0], panel.y_ends[1] + 1):
        y = panel.place(panel.x_ends[0], value)[1]
        parts.append(line(panel.left, y, panel.right, y, "axis" if value == panel.y_ends[0] else "grid"))
        said = f"{value}{GAP}%" if value == panel.y_ends[1] else value
        parts.append(write(panel.left - 8, y + 4, said, anchor="end"))
    for tick in panel.x_ticks:
        x = panel.place(tick, panel.y_ends[0])[0]
        parts.append(line(x, _FLOOR, x, _FLOOR + 5, "axis"))
        said = f"{tick}{GAP}G" if tick == panel.x_ticks[0] else tick
        parts.append(write(x, _FLOOR + 20, said, anchor="middle"))
    for family, (colour, _) in _FAMILIES.items():
        parts += _family(panel, [p for p in panel.points if p.family == family], colour)
    return parts


def _family(panel: Panel, points: list[Point], colour: str) -> list[Html]:
    """A family's bubbles from small to large, joined by a line; names where no line runs."""
    places = [panel.place(p.gmacs, p.top1) for p in points]
    parts = [curve(places, f"curve joined thin {'grey dashed' if colour == 'hollow' else colour}")]
    for point, (x, y) in zip(points, places, strict=True):
        radius = _radius(point.params_m)
        says = f"{point.label}: {point.top1:g} %, {point.gmacs:g} GMACs, {point.params_m:g} M parameters"
        parts.append(titled(says, dot(x, y, radius, f"bubble {colour}")))
        if colour == "blue":
            parts.append(write(x + 4, y - radius - 5, point.label, "outlined", "end"))
        else:
            parts.append(write(x - 4, y + radius + 13, point.label, "outlined"))
    return parts


def _legend() -> list[Html]:
    parts, x = [], 0.0
    for family, (colour, _) in reversed(_FAMILIES.items()):
        parts += [dot(x + 6, 58, 6, f"bubble {colour}"), write(x + 18, 62, family)]
        x += 40 + LETTER * len(family)
    x = WIDTH - 268.0
    parts.append(write(x - 20, 62, "parameters", anchor="end"))
    for params_m in (25, 100, 400):
        radius = _radius(params_m)
        parts.append(dot(x + radius, 58, radius, "ring"))
        parts.append(write(x + 2 * radius + 6, 62, f"{params_m}{GAP}M"))
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
