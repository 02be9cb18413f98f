"""What a classifier did on labelled images: one outcome an image, and the figures made of them. No torch here.

Axes: N images, K classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

MOST_IN_TABLE = 1000  # classes whose confusion is written as a table: at 10,000 one takes 286 MB of JSON
TITLES = {  # figures that may choose the best weights, as people call them
    "top1": "top-1",
    "top5": "top-5",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
JOINED = 64  # batches
Part = TypeVar("Part")
BINS = 15  # of the calibration error (Guo et al. 2017, arXiv 1706.04599)


@dataclass(frozen=True)
class Outcomes:
    """One row an image, in dataset order; K classes. Nothing here grows with K, so millions of images fit."""

    index: NDArray[np.int64]  # into the dataset's entries
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    rank: NDArray[np.int64]  # classes that score above the true one; 0: right
    score: NDArray[np.float32]  # probability of the predicted class
    label_score: NDArray[np.float32]  # probability of the true class
    loss: NDArray[np.float32]  # cross-entropy

    @staticmethod
    def of(
        p: NDArray[np.float32], log_p: NDArray[np.float32], labels: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> "Outcomes":
        """From (N, K) probabilities, their logarithms, and (N,) labels of the images at `indices` of the dataset."""
        rows = np.arange(len(labels))
        predicted, true_log_p = log_p.argmax(1), log_p[rows, labels]
        # Ties go against the true class unless it is the one predicted: a constant output is no top-1 hit.
        above = (log_p >= true_log_p[:, None]).sum(1) - 1
        rank = np.where(predicted == labels, 0, np.maximum(above, 1))
        return Outcomes(indices, labels, predicted, rank, p[rows, predicted], p[rows, labels], -true_log_p)

    @staticmethod
    def join(parts: list["Outcomes"]) -> "Outcomes":
        """All parts as one, in dataset order, each image once."""
        names = list(Outcomes.__dataclass_fields__)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        _, order = np.unique(columns["index"], return_index=True)
        return Outcomes(**{name: column[order] for name, column in columns.items()})

    def __len__(self) -> int:
        return len(self.index)


def joined(parts: Iterable[Part], join: Callable[[list[Part]], Part]) -> Iterator[Part]:
    """`parts` in their order, JOINED of them as one.

    Small arrays that are made between the large ones of a batch and outlive them keep that memory from being used again:
    of 20,000 images in 20,000 classes all logits' worth of it, 1.6 GB.
    """
    rest = iter(parts)
    while group := list(islice(rest, JOINED)):
        yield join(group)


def metrics(outcomes: Outcomes) -> dict[str, float]:
    """Top-1, top-5, balanced accuracy and macro F1 (rates), cross-entropy and expected calibration error."""
    balanced_accuracy, macro_f1 = over_classes(outcomes)
    return {
        "top1": float((outcomes.rank == 0).mean()),
        "top5": float((outcomes.rank < 5).mean()),
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "loss": float(outcomes.loss.astype(np.float64).mean()),
        "ece": _calibration_error(calibration(outcomes), len(outcomes)),
    }


def over_classes(outcomes: Outcomes) -> tuple[float, float]:
    """(mean recall of the classes that have images, mean F1 of those that have images or were predicted); 0 of no image.

    As scikit-learn's `balanced_accuracy_score` and `f1_score(average="macro")` count them.
    """
    if not len(outcomes):
        return 0.0, 0.0
    classes = int(max(outcomes.label.max(), outcomes.predicted.max())) + 1
    images, predicted = (np.bincount(column, minlength=classes) for column in (outcomes.label, outcomes.predicted))
    hits = np.bincount(outcomes.label[outcomes.label == outcomes.predicted], minlength=classes)
    seen, told = images > 0, images + predicted > 0
    return float((hits[seen] / images[seen]).mean()), float((2 * hits[told] / (images + predicted)[told]).mean())


def wilson(rate: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a rate seen on n images (Wilson 1927), or of another `z`; (0, 1) when nothing was seen."""
    if n < 1:
        return 0.0, 1.0
    z2 = z**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return (0.0 if rate == 0 else centre - half), (1.0 if rate == 1 else centre + half)  # rounding must not miss these


def calibration(outcomes: Outcomes) -> list[dict[str, float]]:
    """Equal bins of confidence with their images, mean confidence and accuracy."""
    right = outcomes.rank == 0
    which = np.minimum((outcomes.score * BINS).astype(int), BINS - 1)
    rows = []
    for i in range(BINS):
        inside = which == i
        n = int(inside.sum())
        rows.append(
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "n": n,
                "confidence": float(outcomes.score[inside].astype(np.float64).mean()) if n else 0.0,
                "accuracy": float(right[inside].mean()) if n else 0.0,
            }
        )
    return rows


@dataclass(frozen=True)
class Confusion:
    """How many images of a class got which answer: M pairs of the K x K that there may be, by row, then column."""

    row: NDArray[np.int64]  # (M,) the ground truth
    column: NDArray[np.int64]  # (M,) what was predicted
    count: NDArray[np.int64]  # (M,) 1 or more
    classes: int

    def to_dict(self) -> dict[str, list[list[int]]]:
        """'confusion', K rows of K counts, or of many classes 'confusion_triples': [row, column, count] of each pair."""
        if self.classes > MOST_IN_TABLE:
            return {"confusion_triples": np.stack([self.row, self.column, self.count], 1).tolist()}
        table = np.zeros((self.classes, self.classes), np.int64)
        table[self.row, self.column] = self.count
        return {"confusion": table.tolist()}


def confusion(outcomes: Outcomes, classes: int) -> Confusion:
    """The pairs of ground truth and prediction; memory is that of the images, whatever the number of classes."""
    pairs, counts = np.unique(outcomes.label * classes + outcomes.predicted, return_counts=True)
    return Confusion(pairs // classes, pairs % classes, counts.astype(np.int64), classes)


def per_class(found: Confusion, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class, 0 where it was never seen or predicted, and the recall's 95 % interval."""
    hits, ground_truth, predicted = (np.zeros(len(names), np.int64) for _ in range(3))
    right = found.row == found.column
    hits[found.row[right]] = found.count[right]
    np.add.at(ground_truth, found.row, found.count)
    np.add.at(predicted, found.column, found.count)
    rows = []
    for i, name in enumerate(names):
        precision = float(hits[i] / predicted[i]) if predicted[i] else 0.0
        recall = float(hits[i] / ground_truth[i]) if ground_truth[i] else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits[i] else 0.0
        low, high = wilson(recall, int(ground_truth[i]))
        row = {"name": name, "n": int(ground_truth[i]), "precision": precision, "recall": recall, "f1": f1}
        rows.append(row | {"recall_low": low, "recall_high": high})
    return rows


def baselines(found: Confusion) -> dict[str, float]:
    """'baseline_top1', the share of the images that are of the commonest class, and 'chance', that of a guess."""
    images = np.zeros(found.classes, np.int64)
    np.add.at(images, found.row, found.count)
    return {"baseline_top1": float(images.max() / max(1, images.sum())), "chance": 1 / found.classes}


def never_predicted(found: Confusion, names: tuple[str, ...]) -> list[str]:
    """The classes that some images are of and none is taken for."""
    return [names[i] for i in np.setdiff1d(found.row, found.column)]


def _calibration_error(bins: list[dict[str, float]], n: int) -> float:
    return float(sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / n) if n else 0.0
