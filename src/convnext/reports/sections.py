"""The sections of a run report: functions from the run's files to markup. Each may assume that its file is there."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.drawing import charts
from convnext.drawing.charts import Line
from convnext.drawing.markup import Html, join, table, tag
from convnext.drawing.numbers import GAP, NOTHING, count, finite, percent, plain
from convnext.reports.run_files import RunFiles
from convnext.tasks.classification.metrics import TITLES, wilson

_MOST_ROWS = 40  # of a table of classes; the rest folds away
MANY = 1000  # classes; beyond, those that a table does not show are lines of plain text
WEIGHTS = {
    "raw": ("raw weights", "blue"),
    "ema": ("EMA weights", "orange"),
    "probe": ("a probe of the frozen network", "grey"),
    "mixed": ("mixed weights", "grey"),
    "adjusted": ("adjusted for rare classes", "grey"),
    "finetuned": ("fine-tuned weights", "grey"),
}


@dataclass(frozen=True)
class Score:
    """A chart of figures that evaluation logs: its title, and the name of each figure beside others ('' for one)."""

    title: str
    figures: dict[str, str]  # key of a row -> what the legend adds to the weights
    rate: bool = True


TOP1 = Score("Validation top-1", {"top1": ""})


def chosen_by(files: RunFiles) -> str:
    """The figure that chose the best weights of a classifier."""
    found = ((files.recipe or {}).get("select") or {}).get("metric")
    return found if found in TITLES else "top1"


def bounded(found: Mapping[str, Any], figure: str) -> Html | None:
    """Where a figure and its 95 % interval lie; nothing where no interval is known, as of few images."""
    limits = interval_of(found, figure)
    if not limits:
        return None
    line = f"95{GAP}% interval {between(limits)}"
    return join([charts.interval(limits[0], found[figure], limits[1]), tag("p", line, class_="below")])


def interval_of(found: Mapping[str, Any], figure: str) -> tuple[float, float] | None:
    """The 95 % interval of a figure of an evaluation: of shares of the images by their number, else as it was measured."""
    if figure in ("top1", "top5"):
        return wilson(found[figure], found["n"]) if found.get("n") else None
    low, high = (found.get("intervals") or {}).get(figure) or (None, None)
    return (low, high) if finite(low) and finite(high) else None


def between(limits: tuple[float, float]) -> str:
    """'88.0 to 93.6 %'."""
    return f"{100 * limits[0]:.1f} to {percent(limits[1])}"


def curves(files: RunFiles, scores: Sequence[Score] = (TOP1,)) -> Html:
    """Loss, what evaluation found, learning rate and speed over the epochs, or the steps where the recipe counts those."""
    drawn, unit = [], files.unit
    x, loss = columns(files.train, unit, "loss")
    if len(x):
        drawn.append(charts.line_chart("Training loss", _smoothed(x, loss), x_name=unit))
    for score in scores:
        lines = []
        for place, (figure, what) in enumerate(score.figures.items()):
            for weights, (name, colour) in WEIGHTS.items():
                x, y = columns([row for row in files.evals if row.get("weights") == weights], unit, figure)
                named = f"{what}, {name}" if what else name
                if len(x):
                    lines.append(Line(named, f"{colour} dashed" if place else colour, x, y, dots=True))
        if lines:
            drawn.append(charts.line_chart(score.title, lines, rate=score.rate, x_name=unit))
    x, lr = columns(files.train, unit, "lr")
    if len(x):
        drawn.append(charts.line_chart("Learning rate", [Line("lr", "blue", x, lr)], zero=True, x_name=unit))
    x, rate = columns(files.timings, "step", "images_per_s")
    if len(x) > 1:
        drawn.append(charts.line_chart("Training images per second", _smoothed(x, rate), zero=True, x_name="step"))
    if not drawn:
        return note("No row of metrics.jsonl can be drawn yet.")
    return tag("div", drawn, class_="pair")


def data(files: RunFiles, unit: str = "", shown: Callable[[object], str] = count) -> Html:
    """How much there is of each class, what the check before training found, and what had to be skipped.

    `unit` is what is counted where it is not images; `shown` writes such a number.
    """
    found = files.data or {}
    names = found["classes"]
    counted = {"train": found["train"]} if files.crosswise else found  # each of them was held out once
    parts = {part: counted[part]["per_class"] for part in ("train", "val") if counted.get(part)}
    most = {part: max((n.get(name, 0) for name in names), default=0) or 1 for part, n in parts.items()}
    head: list[object] = ["Class", *[cell for part in parts for cell in (f"{_part(part)} {unit}".strip(), "")]]
    order = sorted(names, key=lambda name: -parts["train"].get(name, 0)) if "train" in parts else names
    rows: list[list[object]] = []
    for name in order:
        row: list[object] = [tag("span", name, class_="name")]
        for part, colour in zip(parts, ("blue", "grey"), strict=False):
            n = parts[part].get(name, 0)
            row += [shown(n), charts.bar(n / most[part], colour)]
        rows.append(row)
    sizes = [f"{count(counted[part]['n'])} images for {_part(part).lower()}" for part in parts]
    once = f", each of them held out once, in {count(files.crosswise)} parts" if files.crosswise else ""
    lead = tag(
        "p",
        f"{count(len(names))} {'class' if len(names) == 1 else 'classes'}; {', '.join(sizes)}{once}.",
        class_="lead",
    )
    return join([lead, folded(head, rows, "roomy"), _findings(found.get("findings")), _skipped(found.get("skipped"))])


def recipe(files: RunFiles) -> Html:
    """Every field, group by group."""
    values = files.recipe or {}
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    groups = {"recipe": top, **{key: value for key, value in values.items() if isinstance(value, dict)}}
    tables = []
    for name, group in groups.items():
        rows = [(key, value) for key, value in _leaves(group)]
        tables.append(tag("div", tag("h3", name), _fields(rows)) if rows else None)
    return tag("div", tables, class_="columns")


def environment(files: RunFiles) -> Html:
    """Versions and machine."""
    return _fields([(key, value) for key, value in _leaves(files.environment or {})])


def folded(head: list[object], rows: list[list[object]], class_: str) -> Html:
    """A table of classes; where there are many, all but the first twenty wait for a click."""
    shown, more = (rows, []) if len(rows) <= _MOST_ROWS else (rows[: _MOST_ROWS // 2], rows[_MOST_ROWS // 2 :])
    first = table(head, shown, class_=class_)
    if not more:
        return first
    if len(rows) > MANY:
        return join([first, _listing(head, rows)])
    title = tag("summary", f"The other {count(len(more))} classes")
    return join([first, tag("details", title, table(head, more, class_=class_))])


def _listing(head: list[object], rows: list[list[object]]) -> Html:
    """Every class in a line of its own, by name, in a box that scrolls: the browser's search finds one among thousands."""
    titles = [str(cell) for cell in head if cell]
    lines = sorted("  ".join(_bare(cell) for cell, title in zip(row, head, strict=True) if title) for row in rows)
    lead = f"All {count(len(rows))} classes by name: {', '.join(titles)}. The browser's search finds one."
    return join([tag("p", lead, class_="lead"), tag("pre", Html("\n".join(lines)), class_="listing")])


def _bare(cell: object) -> str:
    """A cell without its tags, still escaped."""
    return re.sub("<[^>]*>", "", join(cell))


def note(sentence: str) -> Html:
    """A quiet line in place of what cannot be shown."""
    return tag("p", sentence, class_="note")


def _smoothed(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[Line]:
    if len(x) <= 8:  # too few to smooth
        return [Line("as logged", "blue", x, y, dots=True)]
    return [Line("as logged", "faint", x, y), Line("smoothed", "blue", x, charts.smooth(y))]


def _findings(found: list[str] | None) -> Html | None:
    if found is None:
        return None
    if not found:
        return tag("p", "The check before training found nothing to complain about.", class_="lead")
    return join([tag("h3", "Found before training"), tag("ul", [tag("li", line) for line in found], class_="findings")])


def _skipped(skipped: dict[str, str] | None) -> Html | None:
    if not skipped:
        return None
    title = tag("h3", f"Skipped images ({count(len(skipped))})")
    rows: list[list[object]] = [[tag("span", path, class_="path"), reason] for path, reason in skipped.items()]
    first = table(["Image", "Reason"], rows[:20], text_columns={0, 1})
    more = tag(
        "details", tag("summary", f"The other {count(len(rows) - 20)}"), table([], rows[20:], text_columns={0, 1})
    )
    return join([title, first, more if len(rows) > 20 else None])


def _part(name: str) -> str:
    return {"train": "Training", "val": "Validation"}.get(name, name)


def _leaves(group: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in group.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def _fields(rows: list[tuple[str, Any]]) -> Html:
    body = [tag("tr", tag("th", key, scope="row"), tag("td", _value(value))) for key, value in rows]
    return tag("table", tag("tbody", body), class_="fields")


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inner(v) for v in value) or "none"
    if isinstance(value, float):
        return plain(value, 6)
    return str(value) if value != "" else NOTHING


def _inner(value: Any) -> str:
    return f"({_value(value)})" if isinstance(value, list | tuple | dict) else _value(value)


def columns(rows: list[dict[str, Any]], x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two columns by rising x, the last row of each x; rows without both numbers are left out."""
    points = {row[x]: row[y] for row in rows if finite(row.get(x)) and finite(row.get(y))}
    order = sorted(points)
    return np.array(order, np.float64), np.array([points[position] for position in order], np.float64)
