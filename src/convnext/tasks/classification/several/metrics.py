"""What a classifier did on images that may have several labels, and the figures made of it. No torch here.

A mark is 1 where an image has a class, 0 where it has not, and UNKNOWN where nobody says: that entry counts nowhere.
Axes: N images, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.labelled import UNKNOWN

FOLDS = 5  # of the images, where thresholds that they chose are to judge them
FEW = 5  # images of a class, below which its own threshold would say little: it takes the common one
MIDDLE = 0.5  # the threshold where nothing is known

Scores = NDArray[np.float32]
Marks = NDArray[np.int8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """One row an image, in dataset order."""

    index: NDArray[np.int64]  # (N,) into the dataset's entries
    marks: Marks  # (N, K)
    score: Scores  # (N, K) probability of each class
    loss: NDArray[np.float32]  # (N,) binary cross-entropy, the mean over the classes that are known

    @staticmethod
    def of(
        logits: NDArray[np.floating[Any]], marks: NDArray[np.integer[Any]], indices: NDArray[np.int64]
    ) -> "Outcomes":
        """From (N, K) logits and marks of the images at `indices` of the dataset."""
        z, known = logits.astype(np.float64), marks != UNKNOWN
        each = np.where(known, np.logaddexp(0, z) - np.where(marks == 1, z, 0), 0)
        loss = each.sum(1) / np.maximum(1, known.sum(1))
        return Outcomes(indices, marks.astype(np.int8), probabilities(logits), loss.astype(np.float32))

    @staticmethod
    def join(parts: Sequence["Outcomes"]) -> "Outcomes":
        """All parts as one, in dataset order, each image once."""
        names = list(Outcomes.__dataclass_fields__)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        _, order = np.unique(columns["index"], return_index=True)
        return Outcomes(**{name: column[order] for name, column in columns.items()})

    def at(self, places: NDArray[np.int64]) -> "Outcomes":
        """Those of the images at `places`."""
        return Outcomes(*(getattr(self, name)[places] for name in Outcomes.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.index)


def probabilities(logits: NDArray[np.floating[Any]]) -> Scores:
    """(N, K) logits -> (N, K) probabilities, each class for itself."""
    found: Scores = np.exp(-np.logaddexp(0, -logits.astype(np.float64))).astype(np.float32)
    return found


def metrics(outcomes: Outcomes, thresholds: Floats | None = None) -> dict[str, float]:
    """Mean average precision, F1 over the classes and over all entries, exact matches (rates), and the loss.

    `thresholds`: (K,) or (N, K); None: `crossfitted`. A class that no image is known to have is in no mean.
    """
    thresholds = crossfitted(outcomes) if thresholds is None else thresholds
    aps, rows = average_precisions(outcomes), Counts.of(outcomes, thresholds)
    held = rows.images > 0
    known = outcomes.marks != UNKNOWN
    same = ((outcomes.score >= thresholds) == (outcomes.marks == 1)) | ~known
    return {
        "map": _mean(aps[held]),
        "macro_f1": _mean(rows.f1[held]),
        "micro_f1": _f1(rows.hits.sum(), rows.images.sum(), rows.predicted.sum()),
        "exact": float(same.all(1).mean()) if len(outcomes) else 0.0,
        "baseline_map": _mean((rows.images / np.maximum(1, known.sum(0)))[held]),  # of an order that knows nothing
        "loss": float(outcomes.loss.astype(np.float64).mean()) if len(outcomes) else 0.0,
    }


@dataclass(frozen=True)
class Counts:
    """(K,) of each class, where it is known: images that have it, that are said to, and both."""

    images: NDArray[np.int64]
    predicted: NDArray[np.int64]
    hits: NDArray[np.int64]

    @classmethod
    def of(cls, outcomes: Outcomes, thresholds: Floats) -> "Counts":
        """At these thresholds: a score that reaches its class's is an answer."""
        has, told = outcomes.marks == 1, (outcomes.score >= thresholds) & (outcomes.marks != UNKNOWN)
        return cls(*(which.sum(0).astype(np.int64) for which in (has, told, has & told)))

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,); 0 of a class that was never predicted."""
        return self.hits / np.maximum(1, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,); 0 of a class without images."""
        return self.hits / np.maximum(1, self.images)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) harmonic mean of both."""
        return 2 * self.hits / np.maximum(1, self.images + self.predicted)


def average_precisions(outcomes: Outcomes) -> NDArray[np.float64]:
    """(K,) of each class, NaN without an image that has it: the mean precision over its images, from the highest score on.

    Images of one score come together, as in scikit-learn's `average_precision_score`.
    """
    found = np.full(outcomes.marks.shape[1], np.nan)
    for label in range(len(found)):
        hits, told, _ = _cuts(outcomes.score[:, label], outcomes.marks[:, label])
        if len(hits) and hits[-1]:
            gained = np.diff(hits, prepend=0) / hits[-1]
            found[label] = float((gained * hits / told).sum())
    return found


def mean_of_known(values: NDArray[np.float64]) -> float:
    """The mean of those that are no NaN; NaN where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def fitted_thresholds(outcomes: Outcomes) -> Floats:
    """(K,) of each class the threshold with the best F1 on these images, halfway to the next score below.

    A class with fewer than FEW images that have it, or that have it not, takes that of all entries together, and of fewer
    than FEW entries of either kind the MIDDLE.
    """
    known = outcomes.marks != UNKNOWN
    every = outcomes.marks[known]
    common = _best_cut(outcomes.score[known], every) if _enough(every) else MIDDLE
    found = np.full(outcomes.marks.shape[1], common)
    for label in range(len(found)):
        marks = outcomes.marks[:, label]
        if _enough(marks):
            found[label] = _best_cut(outcomes.score[:, label], marks)
    return found


def crossfitted(outcomes: Outcomes) -> Floats:
    """(N, K): for each image the thresholds that fit those of the other folds, so that none chooses what judges it."""
    fold = np.random.default_rng(0).permutation(len(outcomes)) % FOLDS
    found = np.full(outcomes.marks.shape, MIDDLE)
    for number in range(FOLDS):
        if (fold == number).any():
            found[fold == number] = fitted_thresholds(outcomes.at(np.flatnonzero(fold != number)))
    return found


def _enough(marks: Marks) -> bool:
    return bool(min((marks == 1).sum(), (marks == 0).sum()) >= FEW)


def _best_cut(score: Scores, marks: Marks) -> float:
    hits, told, at = _cuts(score, marks)
    if not len(hits) or not hits[-1]:
        return MIDDLE
    place = int(np.argmax(2 * hits / (told + hits[-1])))
    below = float(at[place + 1]) if place + 1 < len(at) else 0.0
    return (float(at[place]) + below) / 2


def _cuts(score: Scores, marks: Marks) -> tuple[NDArray[np.int64], NDArray[np.int64], Scores]:
    """(right answers, answers, score) at each different score from the highest on, of the known entries of (N,) marks."""
    known = marks != UNKNOWN
    score, has = score[known], marks[known] == 1
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(has[order])
    last = np.flatnonzero(np.diff(score, append=-1.0))
    return hits[last], last + 1, score[last]


def _f1(hits: Any, images: Any, predicted: Any) -> float:
    return float(2 * hits / max(1, images + predicted))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
