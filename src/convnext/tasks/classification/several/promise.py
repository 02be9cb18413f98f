"""A promise where an image may have several labels: for each class the score from which on its answers are right often enough.

Each class is a question of its own, so each has a threshold of its own, found as for one label an image (`promise`): of the
images whose score reaches it, the promised share has the class at least, with 95 % confidence. No torch here.
Axes: K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convnext.data.labelled import UNKNOWN
from convnext.errors import number_of
from convnext.tasks.classification import promise
from convnext.tasks.classification.several.metrics import Outcomes

_NAMED = 5  # classes in a sentence


@dataclass(frozen=True)
class LabelsPromise:
    """Of the images whose score of a class reaches its value, `accuracy` have that class at least."""

    accuracy: float
    values: tuple[float | None, ...]  # (K,); None: these images show none
    n: int  # images that it was measured on
    part: str  # what they were: 'held out', which also chose the weights, 'test' or 'given'

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "values": list(self.values)}


def promised(outcomes: Outcomes, accuracy: float, part: str) -> LabelsPromise:
    """What the images of `part` show for each class; entries that nobody knows have no say."""
    values = tuple(promise.threshold_of(*_known(outcomes, label), accuracy) for label in range(outcomes.marks.shape[1]))
    return LabelsPromise(accuracy, values, len(outcomes), part)


def told(outcomes: Outcomes, found: LabelsPromise, names: Sequence[str]) -> dict[str, Any]:
    """What evaluation.json says of a promise: how it does on these images, and of a class without one what would be needed."""
    rows = []
    for label, name in enumerate(names):
        score, has = _known(outcomes, label)
        value = found.values[label]
        given = score >= (2.0 if value is None else value)
        row = {"name": name, "threshold": value, "known": len(score), "sure": int(given.sum())}
        row["right"] = float(has[given].mean()) if given.any() else None
        if value is None:
            row["wanted"] = promise.wanted(score, has, found.accuracy)
        rows.append(row)
    least = promise.least(found.accuracy)
    about = {"accuracy": found.accuracy, "confidence": promise.CONFIDENCE, "n": found.n, "part": found.part}
    return about | {"kept": any(value is not None for value in found.values), "least": least, "classes": rows}


def labels_promise_text(about: Mapping[str, Any]) -> str:
    """What evaluation.json says of a promise, in sentences for people."""
    rows = about["classes"]
    able, unable = ([row for row in rows if (row["threshold"] is not None) == there] for there in (True, False))
    promise_of = f"Promise of {100 * about['accuracy']:g} %, for each class"
    images = f"{about['n']:,} {promise.PARTS.get(about['part'], 'images')}"
    named = [
        f"{row['name']} from {row['threshold']:.3f} on ({row['sure']:,} here"
        + ("" if row["right"] is None else f", {row['right']:.1%} right")
        + ")"
        for row in able
    ]
    shown = f"{images} show it of {number_of(len(able), 'class', 'classes')} of {len(rows)}"
    lines = [f"{promise_of}: {shown}{': ' * bool(named)}{_some(named)}."]
    if unable:
        lacking = [f"{row['name']}{_way(row['wanted'], row['known'])}" for row in unable]
        lines.append(
            f"Not of {_some(lacking)}; it takes {about['least']:,} images named with a class at least, all rightly."
        )
    if about["kept"] and about["part"] == "held out":
        lines.append("They also chose the weights: a part 'test' would be a better judge.")
    return " ".join(lines)


def _way(wanted: int | None, known: int) -> str:
    if wanted is None:
        return " (even its surest answers are not right that often)"
    return f" (about {wanted:,} images would do)" if wanted > known else " (more images would do)"


def _some(named: Sequence[str]) -> str:
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"{', '.join(named[:_NAMED])}{more}"


def _known(outcomes: Outcomes, label: int) -> tuple[np.ndarray, np.ndarray]:
    """(score, whether it has the class) of the images of which that is known."""
    known = outcomes.marks[:, label] != UNKNOWN
    return outcomes.score[known, label], outcomes.marks[known, label] == 1
