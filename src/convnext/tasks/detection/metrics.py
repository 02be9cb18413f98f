"""What a detector found, in figures: COCO's average precision, and which detections are right.

A detection is right or false at an overlap of boxes of 0.5; the working point is the score where F1 is best.
Axes: D detections, M objects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.config import DetectionRecipe
from convnext.data.dataset import DenseDataset, upright
from convnext.data.formats.export import to_coco
from convnext.tasks.detection.coco_evaluation import Kind, Precision, average_precision
from convnext.tasks.detection.found import Found
from convnext.tasks.groups import GROUPS

_OVERLAP = 0.5
NOBODY, CROWD = -1, -2  # what a detection takes that takes no object
RIGHT, FALSE, UNCOUNTED = 1, 0, -1  # what a detection is; a crowd's are not counted


@dataclass(frozen=True)
class Outcomes:
    """What was found in each image of a data set that could be read, in its order."""

    indices: tuple[int, ...]  # into the dataset's entries
    found: tuple[Found, ...]
    losses: tuple[float, ...]  # of each image

    @staticmethod
    def join(parts: Sequence["Outcomes"]) -> "Outcomes":
        """Parts of a data set as one, in its order."""
        rows = sorted(
            (row for part in parts for row in zip(part.indices, part.found, part.losses, strict=True)),
            key=lambda row: row[0],
        )
        return Outcomes(*(tuple(column) for column in zip(*rows, strict=True))) if rows else Outcomes((), (), ())

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def loss(self) -> float:
        """The mean over the images."""
        return math.fsum(self.losses) / max(1, len(self.losses))

    def of_group(self, number: int) -> "Outcomes":
        """Those of the images of one of GROUPS groups."""
        chosen = [place for place, index in enumerate(self.indices) if index % GROUPS == number]
        found, losses = tuple(self.found[place] for place in chosen), tuple(self.losses[place] for place in chosen)
        return Outcomes(tuple(self.indices[place] for place in chosen), found, losses)

    def pairs(self) -> list[tuple[int, Found]]:
        """(place in the dataset's entries, what was found there) of each image."""
        return list(zip(self.indices, self.found, strict=True))


@dataclass(frozen=True)
class WorkingPoint:
    """The score from which on detections are shown, and what they are then."""

    score: float
    precision: float
    recall: float
    f1: float


def metrics(outcomes: Outcomes, dataset: DenseDataset, *, most: int = 100) -> dict[str, float]:
    """'box_ap', 'box_ap50', ..., 'mask_ap', ... and 'loss'; a figure without anything to find is left out.

    'box_ap' and 'mask_ap' are then 0. `most`: detections an image and class that count.
    """
    found = figures(precisions(outcomes, dataset, limits_of(most)), limits_of(most))
    kept = {name: value for name, value in found.items() if not math.isnan(value)}
    named = {name: kept.get(name, 0.0) for name in found if name in kept or name.endswith("_ap")}
    return named | {"loss": outcomes.loss}


def take(
    found: Found, boxes: NDArray[np.float64], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(D,) the place of the object that each detection takes, by falling score the best free one of its class.

    NOBODY where there is none; CROWD where it then lies by half or more in a crowd of its class, and does not count.
    """
    overlaps, inside = _overlaps(found.boxes.astype(np.float64), boxes)
    same = found.labels[:, None] == labels
    free = ~crowd
    taken = np.full(len(found), NOBODY, np.int64)
    for place in range(len(found)):
        fits = np.where(same[place] & free, overlaps[place], 0.0)
        if fits.size and fits.max() >= _OVERLAP:
            taken[place] = fits.argmax()
            free[taken[place]] = False
        elif (inside[place][same[place] & crowd] >= _OVERLAP).any():
            taken[place] = CROWD
    return taken


def _overlaps(
    boxes: NDArray[np.float64], objects: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(D, M) intersection over union, and the share of each box of (D, 4) that lies in each of (M, 4) objects."""
    sides = (
        np.minimum(boxes[:, None, i + 2], objects[:, i + 2]) - np.maximum(boxes[:, None, i], objects[:, i])
        for i in (0, 1)
    )
    width, height = (
        np.maximum(side, 0, out=side) for side in sides
    )  # by columns: 1,000 by 1,000 in three axes are slow
    shared = width * height
    own, others = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, objects))
    least = np.finfo(np.float64).tiny
    return shared / np.maximum(own[:, None] + others - shared, least), shared / np.maximum(own, least)[:, None]


def judge(
    found: Found, boxes: NDArray[np.float64], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """(D,) RIGHT where a detection takes an object, FALSE, or UNCOUNTED for those of a crowd."""
    return verdicts_of(take(found, boxes, labels, crowd))


def verdicts_of(taken: NDArray[np.int64]) -> NDArray[np.int8]:
    """(D,) what `judge` says, from what `take` returned."""
    return np.select([taken >= 0, taken == CROWD], [RIGHT, UNCOUNTED], FALSE).astype(np.int8)


def working_point(outcomes: Outcomes, judged: Sequence[NDArray[np.int8]], objects: int) -> WorkingPoint:
    """The score where F1 over all images and classes is best; 1 and zeros where nothing right was found."""
    scores = np.concatenate([np.zeros(0, np.float32), *(found.scores for found in outcomes.found)])
    verdicts = np.concatenate([np.zeros(0, np.int8), *judged])
    scores, verdicts = scores[verdicts != UNCOUNTED], verdicts[verdicts != UNCOUNTED]
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(verdicts[order] == RIGHT)
    last = np.append(np.diff(scores[order]) != 0, True)[: len(order)]  # all of one score come together
    f1 = np.where(last, 2 * right / (np.arange(1, len(order) + 1) + max(1, objects)), 0.0)
    if not f1.size or not f1.max():
        return WorkingPoint(1.0, 0.0, 0.0, 0.0)
    place = int(f1.argmax())
    return WorkingPoint(
        float(scores[order][place]), float(right[place] / (place + 1)), float(right[place] / objects), float(f1[place])
    )


def precisions(outcomes: Outcomes, dataset: DenseDataset, limits: Sequence[int]) -> dict[str, Precision]:
    """By boxes and, where both sides have them, by masks."""
    ground_truth = to_coco(dataset, outcomes.indices, {index: found.size for index, found in outcomes.pairs()})
    rows = [row for found in outcomes.found for row in found.rows(dataset.category_ids)]
    kinds: list[Kind] = ["box"]
    if dataset.has_masks and all(found.masks is not None for found in outcomes.found):
        kinds.append("mask")
    return {kind: average_precision(ground_truth, rows, dataset.category_ids, kind, limits) for kind in kinds}


def figures(by: dict[str, Precision], limits: Sequence[int]) -> dict[str, float]:
    """'box_ap', 'box_ap50', ..., 'mask_ap', ...; NaN where there is nothing to find."""
    return {
        f"{kind}_{name}": value for kind, precision in by.items() for name, value in precision.figures(limits).items()
    }


def objects_of(
    dataset: DenseDataset, index: int, found: Found
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """(M, 4) boxes in pixels, (M,) labels and (M,) crowd of one image."""
    objects = dataset.entries[index].objects
    if objects is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
    if dataset.entries[index].size == found.size[::-1] != found.size:
        objects = upright(dataset, index, found.size) or objects
    height, width = found.size
    boxes = objects.boxes * np.array([width, height] * 2) if objects.relative else objects.boxes
    return boxes, objects.labels, objects.crowd


def count_objects(dataset: DenseDataset, outcomes: Outcomes) -> int:
    """Objects in the images of `outcomes`, those of a crowd left out."""
    return sum(int((~objects_of(dataset, index, found)[2]).sum()) for index, found in outcomes.pairs())


def limits_of(most: int) -> tuple[int, ...]:
    """COCO's own for 100; rising, whatever `most` is."""
    return (*(limit for limit in (1, 10) if limit < most), most)


def limit_of(recipe: DetectionRecipe) -> int:
    """Detections an image and class that count in evaluation: COCO's 100, or more where the detector shows more."""
    return max(100, recipe.head.most)
