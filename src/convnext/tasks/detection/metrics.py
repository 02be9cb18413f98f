"""What a detector did: figures over all pictures, a table of classes, and the pictures it was most wrong about.

Average precision is COCO's. What is counted as right or false for a table or a picture is decided at one score, where
F1 is best, and at an overlap of boxes of 0.5. Axes: D detections, M objects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnext.data.dense.dataset import DenseDataset
from convnext.data.dense.export import to_coco
from convnext.data.store import printable
from convnext.tasks.detection.boxes import covers, ious
from convnext.tasks.detection.coco_evaluation import Kind, Precision, average_precision
from convnext.tasks.detection.inference import Found

_OVERLAP = 0.5
RIGHT, FALSE, UNCOUNTED = 1, 0, -1  # what a detection is; a crowd's are not counted


@dataclass(frozen=True)
class Outcomes:
    """What was found in each picture of a data set that could be read, in its order."""

    indices: tuple[int, ...]  # into the dataset's entries
    found: tuple[Found, ...]
    losses: tuple[float, ...]  # of each picture

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


@dataclass(frozen=True)
class WorkingPoint:
    """The score from which on detections are shown, and what they are then."""

    score: float
    precision: float
    recall: float
    f1: float


def metrics(outcomes: Outcomes, dataset: DenseDataset, *, most: int = 100) -> dict[str, float]:
    """'box_ap', 'box_ap50', ..., 'mask_ap', ... and 'loss'; a figure without anything to find is left out.

    'box_ap' and 'mask_ap' are then 0. `most`: detections a picture and class that count.
    """
    found = _figures(_precisions(outcomes, dataset, _limits(most)), _limits(most))
    kept = {name: value for name, value in found.items() if not math.isnan(value)}
    return {name: kept.get(name, 0.0) for name in found if name in kept or name.endswith("_ap")} | {
        "loss": _loss(outcomes)
    }


def report(outcomes: Outcomes, dataset: DenseDataset, *, most: int = 100, worst: int = 24) -> dict[str, Any]:
    """Everything that `evaluation.json` holds of a detection run; a figure without anything to find is None."""
    truth = to_coco(dataset, outcomes.indices)
    by = _precisions(outcomes, dataset, _limits(most), truth)
    judged = [judge(found, *_objects(dataset, index, found)) for index, found in _pairs(outcomes)]
    point = working_point(outcomes, judged, _count(dataset, outcomes))
    return {
        "task": "detection",
        "n": len(outcomes),
        **{name: _known(value) for name, value in _figures(by, _limits(most)).items()},
        "loss": _loss(outcomes),
        "most": most,
        "classes": list(dataset.classes),
        "category_ids": list(dataset.category_ids),
        "working_point": vars(point),
        "per_class": _per_class(outcomes, dataset, by, judged, point.score),
        "curves": {kind: precision.curves() for kind, precision in by.items()},
        "worst": _worst(outcomes, dataset, truth, judged, point.score)[:worst],
    }


def judge(
    found: Found, boxes: NDArray[np.float64], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """(D,) RIGHT, FALSE or UNCOUNTED: by falling score, each detection takes the best free object of its class.

    One that takes none and lies by half or more in a crowd of its class does not count.
    """
    shown = torch.from_numpy(found.boxes.astype(np.float64))
    objects = torch.from_numpy(boxes)
    overlaps, inside = ious(shown, objects).numpy(), covers(shown, objects).numpy()  # (D, M)
    same = found.labels[:, None] == labels
    free = ~crowd
    verdicts = np.zeros(len(found), np.int8)
    for place in range(len(found)):
        fits = np.where(same[place] & free, overlaps[place], 0.0)
        if fits.size and fits.max() >= _OVERLAP:
            free[fits.argmax()] = False
            verdicts[place] = RIGHT
        elif (inside[place][same[place] & crowd] >= _OVERLAP).any():
            verdicts[place] = UNCOUNTED
    return verdicts


def working_point(outcomes: Outcomes, judged: Sequence[NDArray[np.int8]], objects: int) -> WorkingPoint:
    """The score where F1 over all pictures and classes is best; 1 and zeros where nothing right was found."""
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


def _precisions(
    outcomes: Outcomes, dataset: DenseDataset, limits: Sequence[int], truth: dict[str, Any] | None = None
) -> dict[str, Precision]:
    """By boxes and, where both sides have them, by masks."""
    truth = to_coco(dataset, outcomes.indices) if truth is None else truth
    rows = [row for found in outcomes.found for row in found.rows(dataset.category_ids)]
    kinds: list[Kind] = ["box"]
    if dataset.has_masks and all(found.masks is not None for found in outcomes.found):
        kinds.append("mask")
    return {kind: average_precision(truth, rows, dataset.category_ids, kind, limits) for kind in kinds}


def _figures(by: dict[str, Precision], limits: Sequence[int]) -> dict[str, float]:
    return {
        f"{kind}_{name}": value for kind, precision in by.items() for name, value in precision.figures(limits).items()
    }


def _per_class(
    outcomes: Outcomes,
    dataset: DenseDataset,
    by: dict[str, Precision],
    judged: Sequence[NDArray[np.int8]],
    score: float,
) -> list[dict[str, Any]]:
    """AP of each class, and at the working point how many of its objects and detections there are, and how many right."""
    objects, shown, right = (np.zeros(len(dataset.classes), np.int64) for _ in range(3))
    for (index, found), verdicts in zip(_pairs(outcomes), judged, strict=True):
        _, labels, crowd = _objects(dataset, index, found)
        np.add.at(objects, labels[~crowd], 1)
        chosen = (found.scores >= score) & (verdicts != UNCOUNTED)
        np.add.at(shown, found.labels[chosen], 1)
        np.add.at(right, found.labels[chosen & (verdicts == RIGHT)], 1)
    figures = {f"{kind}_{key}": row for kind, each in by.items() for key, row in each.per_class().items()}
    return [
        {
            "name": name,
            "objects": int(objects[label]),
            **{key: _known(row[label]) for key, row in figures.items()},
            "precision": float(right[label] / shown[label]) if shown[label] else None,
            "recall": float(right[label] / objects[label]) if objects[label] else None,
        }
        for label, name in enumerate(dataset.classes)
    ]


def _worst(
    outcomes: Outcomes,
    dataset: DenseDataset,
    truth: dict[str, Any],
    judged: Sequence[NDArray[np.int8]],
    score: float,
) -> list[dict[str, Any]]:
    """The pictures with mistakes, lowest F1 first, each with its objects and what is shown of it, in COCO's form."""
    annotations: dict[int, list[dict[str, Any]]] = {}
    for row in truth["annotations"]:
        annotations.setdefault(row["image_id"], []).append(row)
    rows = []
    for (index, found), verdicts in zip(_pairs(outcomes), judged, strict=True):
        chosen = found.scores >= score
        right, false = int((chosen & (verdicts == RIGHT)).sum()), int((chosen & (verdicts == FALSE)).sum())
        missed = int((~_objects(dataset, index, found)[2]).sum()) - right
        if false or missed:
            rows.append(
                {
                    "path": printable(dataset.entries[index].path),
                    "index": index,
                    "f1": 2 * right / (2 * right + false + missed),
                    "right": right,
                    "false": false,
                    "missed": missed,
                    "truth": annotations.get(found.image_id, []),
                    "found": found.above(score).rows(dataset.category_ids),
                }
            )
    return sorted(rows, key=lambda row: (row["f1"], -row["false"] - row["missed"], row["index"]))


def _objects(
    dataset: DenseDataset, index: int, found: Found
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """(M, 4) boxes in pixels, (M,) labels and (M,) crowd of one picture."""
    objects = dataset.entries[index].objects
    if objects is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
    height, width = found.size
    boxes = objects.boxes * np.array([width, height] * 2) if objects.relative else objects.boxes
    return boxes, objects.labels, objects.crowd


def _pairs(outcomes: Outcomes) -> list[tuple[int, Found]]:
    return list(zip(outcomes.indices, outcomes.found, strict=True))


def _count(dataset: DenseDataset, outcomes: Outcomes) -> int:
    return sum(int((~_objects(dataset, index, found)[2]).sum()) for index, found in _pairs(outcomes))


def _limits(most: int) -> tuple[int, ...]:
    """COCO's own for 100; rising, whatever `most` is."""
    return (*(limit for limit in (1, 10) if limit < most), most)


def _loss(outcomes: Outcomes) -> float:
    return math.fsum(outcomes.losses) / max(1, len(outcomes.losses))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
