"""What a segmenter did: a confusion table of pixels, and the figures made of it.

K classes; a table is (K, K) counts of pixels, rows are the ground truth. Pixels labelled 255 do not count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.tasks.preview import preview, preview_size, to_png

Table = NDArray[np.int64]
TITLES = {"miou": "mIoU", "mean_accuracy": "mean accuracy", "pixel_accuracy": "pixel accuracy"}


@dataclass(frozen=True)
class Judged:
    """What one image came to; `index` is its place in the dataset."""

    index: int
    pixels: int  # that count
    right: int  # of them
    miou: float  # over the classes of this image alone
    loss: float  # cross-entropy, summed over the pixels that count
    label: int  # the most frequent error: pixels of this class
    predicted: int  # were given that one
    confused: int  # this many times
    drawn: bytes = b""  # the prediction as a small PNG of labels, where it is kept

    @staticmethod
    def of(index: int, table: Table, loss: float, predicted: NDArray[np.uint8] | None = None) -> "Judged":
        """From the image's own confusion table, and the (H, W) labels that it was given."""
        wrong = table.copy()
        np.fill_diagonal(wrong, 0)
        label, predicted_label = divmod(int(wrong.argmax()), len(table))
        drawn = b"" if predicted is None else to_png(preview(predicted, preview_size(*predicted.shape)))
        figures = (int(table.sum()), int(table.trace()), mean_iou(table), loss)
        return Judged(index, *figures, label, predicted_label, int(wrong[label, predicted_label]), drawn)


@dataclass(frozen=True)
class Outcomes:
    """All images together, and what is worth knowing of each."""

    table: Table
    images: tuple[Judged, ...]
    groups: Table | None = (
        None  # (GROUPS, K, K): that of the images of each group; None: they were not dealt into groups
    )

    @staticmethod
    def join(parts: Sequence["Outcomes"]) -> "Outcomes":
        """The sum of parts of a dataset, in its order."""
        table: Table = np.sum([part.table for part in parts], axis=0, dtype=np.int64)
        images = [image for part in parts for image in part.images]
        dealt = [part.groups for part in parts if part.groups is not None]
        groups: Table | None = np.sum(dealt, axis=0, dtype=np.int64) if len(dealt) == len(parts) > 0 else None
        return Outcomes(table, tuple(sorted(images, key=lambda image: image.index)), groups)

    def __len__(self) -> int:
        return len(self.images)


def confusion(predicted: NDArray[Any], ground_truth: NDArray[Any], classes: int) -> Table:
    """(H, W) predicted labels and (H, W) true ones -> (K, K). A label beyond the classes does not count, as IGNORE."""
    counted = ground_truth < classes
    cells = ground_truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def iou(table: Table) -> NDArray[np.float64]:
    """(K,) intersection over union; NaN for a class that is neither there nor predicted."""
    hits = table.diagonal()
    return _share(hits, table.sum(0) + table.sum(1) - hits)


def accuracy(table: Table) -> NDArray[np.float64]:
    """(K,) share of each class's pixels that were given it; NaN for a class that is not there."""
    return _share(table.diagonal(), table.sum(1))


def mean_iou(table: Table) -> float:
    """Mean over the classes that occur in the ground truth or in the answer; 0 where there are none."""
    return _mean(iou(table))


def metrics(outcomes: Outcomes) -> dict[str, float]:
    """'miou', 'mean_accuracy', 'pixel_accuracy' over the pixels of all images, and 'loss', their mean cross-entropy."""
    table = outcomes.table
    pixels = max(1, int(table.sum()))
    return {
        "miou": mean_iou(table),
        "mean_accuracy": _mean(accuracy(table)),
        "pixel_accuracy": float(table.trace() / pixels),
        "loss": math.fsum(image.loss for image in outcomes.images) / pixels,
    }


def per_class(table: Table, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """{'name', 'pixels', 'iou', 'accuracy', 'precision'} of every class; None where a figure has no pixels to be of."""
    figures = {"iou": iou(table), "accuracy": accuracy(table), "precision": accuracy(table.T)}
    return [
        {
            "name": name,
            "pixels": int(table[i].sum()),
            **{key: None if np.isnan(values[i]) else float(values[i]) for key, values in figures.items()},
        }
        for i, name in enumerate(names)
    ]


def never_predicted(table: Table, names: tuple[str, ...]) -> list[str]:
    """The classes that some pixels are of and none is taken for."""
    shown, taken = table.sum(1), table.sum(0)
    return [name for i, name in enumerate(names) if shown[i] and not taken[i]]


def ranked(outcomes: Outcomes) -> list[Judged]:
    """The images with pixels that count, the worst first."""
    return sorted((each for each in outcomes.images if each.pixels), key=lambda each: (each.miou, each.index))


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[~np.isnan(values)].mean()) if (~np.isnan(values)).any() else 0.0
