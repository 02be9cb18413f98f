"""The roadmap on a person's own data: what was measured as chart, page and text."""

import json
from pathlib import Path
from typing import Any

from convnext import __version__
from convnext.drawing.canvas import EDGE
from convnext.drawing.markup import Html, table, tag
from convnext.drawing.numbers import GAP, NOTHING, short
from convnext.errors import ConvNeXtError
from convnext.files import write_text
from convnext.reports.page import page
from convnext.studies.roadmap.chart import NARROW, WIDTH, accuracy, caption, chart, label, narrow_chart
from convnext.studies.roadmap.text import left_last
from convnext.studies.roadmap.verdicts import Reading, method, read, summary

RESULTS = "roadmap.json"
_WIDTHS = ".slim { display: none } @media (max-width: 640px) { .slim { display: block } .wide { display: none } }"


def results_text(results: dict[str, Any]) -> str:
    """What roadmap.json holds as a table, with its reading."""
    readings = read(results)
    cells = []
    for one in readings:
        row, macs = one.row, short(one.row["macs"]).replace(GAP, "")
        here = [accuracy(row) or NOTHING, _points(one.delta, one.spread)]
        there = [f"{row['paper_top1']:.2f}", _points(one.paper_delta, one.paper_spread)]
        cells.append([row["name"], macs, *here, *there, one.verdict or ""])
    head = ["step", "MACs", "top-1, %", "change", "paper", "change there", "reading"]
    failed = [f"Failed: {name}: {reason}" for name, reason in results["failed"].items()]
    return "\n".join([caption(results), "", left_last(head, cells), "", summary(readings), method(results), *failed])


def write_roadmap(out: Path) -> tuple[Path, Path]:
    """Draw `out`/roadmap.json as roadmap.svg and roadmap.html beside it, and return their paths.

    Raises ConvNeXtError when there are no results, or the disk refuses.
    """
    source = out / RESULTS
    try:
        results = json.loads(source.read_text("utf-8"))
        drawing, written = chart(results), _page(results)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConvNeXtError(
            f"'{source}' holds no results of a roadmap. Give the folder that `convnext roadmap --train` wrote."
        ) from None
    write_text(out / "roadmap.svg", f"{drawing}\n")
    write_text(out / "roadmap.html", f"{written}\n")
    return out / "roadmap.svg", out / "roadmap.html"


def _page(results: dict[str, Any]) -> Html:
    readings = read(results)
    header = tag(
        "header",
        tag("p", "From ResNet to ConvNeXt, step by step", class_="over"),
        tag("h1", "The roadmap", tag("span", " on ", class_="on"), results["data"]),
    )
    drawing = [
        tag("style", Html(_WIDTHS)),
        tag("div", chart(results), class_="wide", style=f"max-width:{WIDTH + 2 * EDGE}px"),
        tag("div", narrow_chart(results), class_="slim", style=f"max-width:{1.25 * NARROW:g}px"),
    ]
    failed = [tag("li", f"{name}: {reason}") for name, reason in results["failed"].items()]
    return page(
        f"{results['data']}: from ResNet to ConvNeXt",
        header,
        tag(
            "main",
            tag("section", drawing, id="chart"),
            tag("section", tag("h2", "Reading"), _reading(readings, results), id="reading"),
            tag("section", tag("h2", "Failed runs"), tag("ul", failed), id="failed") if failed else None,
            tag("section", tag("h2", "Steps"), _steps(readings), _notes(results), id="steps"),
        ),
        tag("footer", f"Written by convnext {__version__} from roadmap.json."),
    )


def _reading(readings: list[Reading], results: dict[str, Any]) -> list[Html]:
    lead = tag("p", tag("b", summary(readings)), " ", method(results), class_="lead")
    cells: list[list[object]] = [
        [
            label(reading.row["name"]),
            accuracy(reading.row) or NOTHING,
            _points(reading.delta, reading.spread),
            _paper(reading),
            _points(reading.paper_delta, reading.paper_spread),
            reading.verdict or NOTHING,
        ]
        for reading in readings
    ]
    head: list[object] = ["Step", "Top-1 here, %", "Change, points", "Top-1 in the paper, %", "Change there", "Reading"]
    note = tag(
        "p",
        "The change is to the step before, for GELU to kernel 7. The paper trains at full width on ImageNet-1K; a smaller "
        "network, fewer images or fewer epochs may well turn a step's effect round, and that is what this table shows.",
        class_="note",
    )
    return [lead, table(head, cells, text_columns={0, 5}), note]


def _steps(readings: list[Reading]) -> Html:
    cells: list[list[object]] = []
    for reading in readings:
        row = reading.row
        likely = row["likely_gflops"]
        printed = f"{row['paper_gflops']:.2f}" + ("" if likely is None else f" (likely {likely:.2f})")
        minutes = f"{sum(run['minutes'] for run in row['runs']):.1f}" if row["runs"] else NOTHING
        cells.append([label(row["name"]), row["change"], short(row["params"]), short(row["macs"]), printed, minutes])
    head: list[object] = ["Step", "What changes", "Parameters", "MACs here", "GFLOPs in the paper", "Minutes"]
    return table(head, cells, text_columns={0, 1})


def _notes(results: dict[str, Any]) -> list[Html]:
    sentence = (
        "Every step is trained by the same recipe with AdamW and without EMA weights, and scored with its last "
        "weights. Only the first has ResNet's own optimizer (SGD, the rate a tenth after each third), for as many epochs. "
        "MACs and parameters are those of the networks trained here."
    )
    notes = [tag("p", sentence, class_="note")]
    if any(row["likely_gflops"] is not None for row in results["steps"]):
        sentence = (
            "Two cells of the paper's table 10 are most likely misprints; this is our reading, no erratum is known."
        )
        notes.append(tag("p", sentence, class_="note"))
    return notes


def _paper(reading: Reading) -> str:
    std = reading.row["paper_std"]
    return f"{reading.row['paper_top1']:.2f}" + ("" if std is None else f" ± {std:.2f}")


def _points(delta: float | None, spread: float | None) -> str:
    return NOTHING if delta is None else f"{delta:+.2f} ± {spread or 0:.2f}"
