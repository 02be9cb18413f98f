"""The section of a classifier's classes: how well each is found, and which are never predicted."""

from typing import Any

from convnext.drawing import charts
from convnext.drawing.markup import Html, join, tag
from convnext.drawing.numbers import GAP, NOTHING, count, percent
from convnext.reports.baseline import never_line
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import folded


def per_class(files: RunFiles) -> Html:
    """Precision, recall and F1 of each class, the worst first."""
    rows = sorted((files.evaluation or {})["per_class"], key=lambda row: (row["f1"], row["recall"], row["name"]))
    cells: list[list[object]] = [
        [
            tag("span", row["name"], class_="name"),
            count(row["n"]),
            percent(row["precision"]),
            percent(row["recall"]),
            _between(row),
            percent(row["f1"]),
            charts.bar(row["f1"]),
        ]
        for row in rows
    ]
    head: list[object] = ["Class", "Images", "Precision", "Recall", f"95{GAP}% interval", "F1", ""]
    never = never_line(files.evaluation or {})
    return join([tag("p", never, class_="lead warning") if never else "", folded(head, cells, "dense")])


def _between(row: dict[str, Any]) -> str:
    """The interval of a recall; nothing of a class without images."""
    if not row["n"] or "recall_low" not in row:
        return NOTHING
    return f"{100 * row['recall_low']:.0f} to {percent(row['recall_high'], 0)}"
