"""Which classes are taken for which: the pairs of an evaluation, and their section of a report.

An evaluation of up to 1,000 classes has a table, 'confusion'; of more, [row, column, count] of each pair that occurs,
'confusion_triples'. Rows are the ground truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnext.drawing import charts
from convnext.drawing.markup import Html, join, table, tag
from convnext.drawing.numbers import count, percent, short
from convnext.reports.run_files import RunFiles
from convnext.reports.sections import note

_MOST_MAPPED = 30  # classes of a heat map
_MOST_COUNTED = 15  # classes of a heat map with numbers on its cells


@dataclass(frozen=True)
class Pairs:
    """M pairs of classes that occur, by ground truth, then prediction."""

    row: NDArray[np.int64]  # (M,) the ground truth
    column: NDArray[np.int64]  # (M,) what was predicted
    count: NDArray[np.int64]  # (M,) images or pixels
    classes: int

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> "Pairs":
        """What `evaluation.json` holds. Raises ValueError, TypeError or LookupError where it holds something else."""
        classes = len(evaluation["classes"])
        if "confusion_triples" in evaluation:
            row, column, many = np.asarray(evaluation["confusion_triples"], np.int64).reshape(-1, 3).T
        else:
            counts = np.asarray(evaluation["confusion"], np.int64)
            if counts.shape != (classes, classes):
                raise ValueError("no table of these classes")
            row, column = np.nonzero(counts)
            many = counts[row, column]
        if len(row) and not (min(row.min(), column.min()) >= 0 and max(row.max(), column.max()) < classes):
            raise ValueError("no pairs of these classes")
        return cls(row, column, many, classes)

    def table(self) -> NDArray[np.int64]:
        """(K, K); for few classes."""
        table = np.zeros((self.classes, self.classes), np.int64)
        table[self.row, self.column] = self.count
        return table

    def wrong(self, most: int) -> list[tuple[int, int, int, float]]:
        """(ground truth, prediction, count, share of its class) of the `most` frequent mistakes."""
        totals = np.zeros(self.classes, np.int64)
        np.add.at(totals, self.row, self.count)
        places = np.flatnonzero(self.row != self.column)
        places = places[np.argsort(-self.count[places], kind="stable")][:most]
        return [
            (int(i), int(j), int(n), float(n / totals[i]))
            for i, j, n in zip(self.row[places], self.column[places], self.count[places], strict=True)
            if n
        ]


def confusion(files: RunFiles, unit: str = "image") -> Html:
    """A heat map where the classes are few, and the pairs most often confused; `unit` is what the table counts."""
    evaluation = files.evaluation or {}
    names, found = evaluation["classes"], Pairs.of(evaluation)
    pairs = _pairs(names, found.wrong(24 if len(names) > _MOST_MAPPED else 10), unit)
    if len(names) > _MOST_MAPPED:
        sentence = f"{count(len(names))} classes are too many to draw, so these are the pairs most often confused."
        return join([tag("p", sentence, class_="lead"), pairs])
    written: Literal["counts", "shares"] = "counts" if unit == "image" else "shares"
    drawing = charts.heat_map(names, found.table(), numbers=written if len(names) <= _MOST_COUNTED else None)
    right = tag("div", tag("h3", "Most often confused"), pairs)
    return tag("div", drawing, right, class_="beside" if len(names) <= _MOST_COUNTED else "below-each-other")


def _pairs(names: list[str], found: list[tuple[int, int, int, float]], unit: str) -> Html:
    if not found:
        return note(f"No {unit} was taken for another class.")
    largest = max(n for _, _, n, _ in found)
    rows: list[list[object]] = []
    for i, j, n, share in found:
        pair = [tag("span", names[i], class_="name"), " → ", tag("span", names[j], class_="name")]
        many = count(n) if unit == "image" else short(n)
        rows.append([pair, many, percent(share), charts.bar(n / largest, "orange")])
    return table(["Ground truth → prediction", f"{unit.capitalize()}s", "Of its class", ""], rows, class_="short")
