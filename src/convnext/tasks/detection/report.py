"""What `evaluation.json` tells of a detector: figures, a table of classes, and the images it was most wrong about.

Right, false and missed are counted at the working point: the score where F1 is best. Axes: D detections, M objects,
R recalls, K classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.dataset import DenseDataset
from convnext.data.store import printable
from convnext.tasks.detection.coco_evaluation import Precision
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.metrics import (
    FALSE,
    RIGHT,
    UNCOUNTED,
    Outcomes,
    count_objects,
    figures,
    limits_of,
    objects_of,
    precisions,
    take,
    verdicts_of,
    working_point,
)
from convnext.tasks.groups import FEWEST, GROUPS, interval
from convnext.tasks.preview import preview_of, preview_size

_IOU50 = 0  # its place among COCO's overlaps
_CURVES = 3  # classes with the best and with the worst precision whose curves are kept


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
    by = precisions(outcomes, dataset, limits_of(most))
    takes = [take(found, *objects_of(dataset, index, found)) for index, found in outcomes.pairs()]
    judged = [verdicts_of(taken) for taken in takes]
    point = working_point(outcomes, judged, count_objects(dataset, outcomes))
    mistaken = _worst(outcomes, dataset, judged, point.score)
    shown = [(outcomes.found[place], takes[place]) for place, _ in mistaken[:drawn]]
    rows = [row for _, row in mistaken[:worst]]
    per_class = _per_class(outcomes, dataset, by, judged, point.score)
    return {
        "task": "detection",
        "n": len(outcomes),
        **{name: _known(value) for name, value in figures(by, limits_of(most)).items()},
        "loss": _known(outcomes.loss),  # of an exported file nothing is known
        **_intervals(outcomes, dataset, by, most),
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


def _intervals(
    outcomes: Outcomes, dataset: DenseDataset, by: dict[str, Precision], most: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """'intervals': the 95 % intervals of 'box_ap' and 'mask_ap'; nothing of few images."""
    if len(outcomes) < FEWEST:
        return {}
    limits = limits_of(most)
    whole = figures(by, limits)
    groups = [figures(precisions(outcomes.of_group(place), dataset, limits), limits) for place in range(GROUPS)]
    names = [f"{kind}_ap" for kind in by]
    found = {
        name: interval(whole[name], [each.get(name, math.nan) for each in groups], len(outcomes)) for name in names
    }
    known = {name: each for name, each in found.items() if each}
    return {"intervals": known} if known else {}


def _per_class(
    outcomes: Outcomes,
    dataset: DenseDataset,
    by: dict[str, Precision],
    judged: Sequence[NDArray[np.int8]],
    score: float,
) -> list[dict[str, Any]]:
    """AP of each class, and at the working point how many of its objects and detections there are, and how many right."""
    objects, shown, right = (np.zeros(len(dataset.classes), np.int64) for _ in range(3))
    for (index, found), verdicts in zip(outcomes.pairs(), judged, strict=True):
        _, labels, crowd = objects_of(dataset, index, found)
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
    for place, (index, found) in enumerate(outcomes.pairs()):
        chosen, verdicts = found.scores >= score, judged[place]
        right, false = int((chosen & (verdicts == RIGHT)).sum()), int((chosen & (verdicts == FALSE)).sum())
        missed = int((~objects_of(dataset, index, found)[2]).sum()) - right
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
                "mask": None if found.masks is None else preview_of(found.masks[place], size).counts.decode(),
            }
            for place in np.flatnonzero(found.scores >= score).tolist()
        ],
    }


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


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
