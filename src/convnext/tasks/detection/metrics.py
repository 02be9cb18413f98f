"""What a detector did: figures over all images, a table of classes, and the images it was most wrong about.

Average precision is COCO's. What is counted as right or false for a table or an image is decided at one score, where
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
from convnext.data.dense.masks import Rle, decode_mask, encode
from convnext.data.store import printable
from convnext.tasks.detection.boxes import covers, ious
from convnext.tasks.detection.coco_evaluation import Kind, Precision, average_precision
from convnext.tasks.detection.inference import Found
from convnext.tasks.preview import preview, preview_size

_OVERLAP = 0.5
_IOU50 = 0  # its place among COCO's overlaps
_CURVES = 3  # classes with the best and with the worst precision whose curves are kept
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
    found = _figures(_precisions(outcomes, dataset, _limits(most)), _limits(most))
    kept = {name: value for name, value in found.items() if not math.isnan(value)}
    return {name: kept.get(name, 0.0) for name in found if name in kept or name.endswith("_ap")} | {
        "loss": _loss(outcomes)
    }


def report(
    outcomes: Outcomes, dataset: DenseDataset, *, most: int = 100, worst: int = 24, drawn: int = 12
) -> dict[str, Any]:
    """Everything that `evaluation.json` holds of a detection run; a figure without anything to find is None.

    'details' is what only the page of a run needs, numbers rounded. 'curves': by 'box' and 'mask', precision at the 101
    recalls, mean over the classes, at an overlap of 0.5 ('ap50'), of 0.75 and of all ten. 'classes': the same at 0.5 for
    the three classes with the best and the three with the worst AP50. 'images': of the first `drawn` of 'worst' what
    is shown, {'path', 'index', 'size': [H, W], 'found': [{'box': x0 y0 x1 y1 in pixels, 'label', 'score', 'object': the
    place of the object that it takes, NOBODY or CROWD, 'mask': COCO's text of run lengths, or None}]}; masks are of the
    image's preview, whose longer side is 480 pixels at most.
    """
    by = _precisions(outcomes, dataset, _limits(most))
    takes = [take(found, *_objects(dataset, index, found)) for index, found in _pairs(outcomes)]
    judged = [_verdicts(taken) for taken in takes]
    point = working_point(outcomes, judged, _count(dataset, outcomes))
    mistaken = _worst(outcomes, dataset, judged, point.score)
    shown = [(outcomes.found[place], takes[place]) for place, _ in mistaken[:drawn]]
    rows = [row for _, row in mistaken[:worst]]
    per_class = _per_class(outcomes, dataset, by, judged, point.score)
    return {
        "task": "detection",
        "n": len(outcomes),
        **{name: _known(value) for name, value in _figures(by, _limits(most)).items()},
        "loss": _loss(outcomes),
        "most": most,
        "classes": list(dataset.classes),
        "category_ids": list(dataset.category_ids),
        "working_point": vars(point),
        "per_class": per_class,
        "worst": rows,
        "details": {
            "curves": {kind: {name: _rounded(row) for name, row in each.curves().items()} for kind, each in by.items()},
            "classes": {kind: _class_curves(each, per_class) for kind, each in by.items()},
            "images": [
                {"path": row["path"], "index": row["index"], **_shown(found, taken, point.score)}
                for row, (found, taken) in zip(rows, shown, strict=False)
            ],
        },
    }


def take(
    found: Found, boxes: NDArray[np.float64], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(D,) the place of the object that each detection takes, by falling score the best free one of its class.

    NOBODY where there is none; CROWD where it then lies by half or more in a crowd of its class, and does not count.
    """
    shown = torch.from_numpy(found.boxes.astype(np.float64))
    objects = torch.from_numpy(boxes)
    overlaps, inside = ious(shown, objects).numpy(), covers(shown, objects).numpy()  # (D, M)
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


def judge(
    found: Found, boxes: NDArray[np.float64], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """(D,) RIGHT where a detection takes an object, FALSE, or UNCOUNTED for those of a crowd."""
    return _verdicts(take(found, boxes, labels, crowd))


def _verdicts(taken: NDArray[np.int64]) -> NDArray[np.int8]:
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


def _precisions(outcomes: Outcomes, dataset: DenseDataset, limits: Sequence[int]) -> dict[str, Precision]:
    """By boxes and, where both sides have them, by masks."""
    ground_truth = to_coco(dataset, outcomes.indices)
    rows = [row for found in outcomes.found for row in found.rows(dataset.category_ids)]
    kinds: list[Kind] = ["box"]
    if dataset.has_masks and all(found.masks is not None for found in outcomes.found):
        kinds.append("mask")
    return {kind: average_precision(ground_truth, rows, dataset.category_ids, kind, limits) for kind in kinds}


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
    outcomes: Outcomes, dataset: DenseDataset, judged: Sequence[NDArray[np.int8]], score: float
) -> list[tuple[int, dict[str, Any]]]:
    """The images with mistakes, lowest F1 first, each with its place among the outcomes."""
    rows = []
    for place, (index, found) in enumerate(_pairs(outcomes)):
        chosen, verdicts = found.scores >= score, judged[place]
        right, false = int((chosen & (verdicts == RIGHT)).sum()), int((chosen & (verdicts == FALSE)).sum())
        missed = int((~_objects(dataset, index, found)[2]).sum()) - right
        if false or missed:
            f1 = 2 * right / (2 * right + false + missed)
            counts = {"f1": f1, "right": right, "false": false, "missed": missed}
            rows.append((place, {"path": printable(dataset.entries[index].path), "index": index, **counts}))
    return sorted(rows, key=lambda row: (row[1]["f1"], -row[1]["false"] - row[1]["missed"], row[1]["index"]))


def _shown(found: Found, taken: NDArray[np.int64], score: float) -> dict[str, Any]:
    """What of one image is drawn: its detections from `score` on."""
    size = preview_size(*found.size)
    return {
        "size": list(found.size),
        "found": [
            {
                "box": [round(edge, 1) for edge in found.boxes[place].tolist()],
                "label": int(found.labels[place]),
                "score": round(float(found.scores[place]), 4),
                "object": int(taken[place]),
                "mask": None if found.masks is None else _small(found.masks[place], size),
            }
            for place in np.flatnonzero(found.scores >= score).tolist()
        ],
    }


def _small(mask: Rle, size: tuple[int, int]) -> str:
    return encode(preview(decode_mask(mask), size)).counts.decode("ascii")


def _class_curves(precision: Precision, per_class: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Precision at the 101 recalls and an overlap of 0.5, from the class with the best AP50 to the worst.

    Of classes that are as good, those with most objects say most.
    """
    curves = precision.precision[_IOU50, :, :, 0, -1]  # (R, K)
    known = [label for label in range(len(per_class)) if (curves[:, label] > -1).all()]

    def ranked(sign: int) -> list[int]:
        return sorted(known, key=lambda label: (sign * curves[:, label].mean(), -per_class[label]["objects"], label))

    top = ranked(-1)[: max(_CURVES, (len(known) + 1) // 2) if len(known) <= 2 * _CURVES else _CURVES]
    bottom = [label for label in ranked(1) if label not in top][:_CURVES]
    return {per_class[label]["name"]: _rounded(curves[:, label].tolist()) for label in [*top, *reversed(bottom)]}


def _rounded(row: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in row]


def _objects(
    dataset: DenseDataset, index: int, found: Found
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """(M, 4) boxes in pixels, (M,) labels and (M,) crowd of one image."""
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
