"""Average precision as COCO defines it (cocodataset.org/#detection-eval), through faster-coco-eval.

Axes: T = 10 overlaps from 0.5 to 0.95, R = 101 recalls from 0 to 1, K classes, A = 4 ranges of area, L limits of
detections an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnext.extras import needs

Numbers = NDArray[np.float64]
Kind = Literal["box", "mask"]

_IOU_TYPES = {"box": "bbox", "mask": "segm"}
_AREAS = ("", "_small", "_medium", "_large")  # all; below 32 x 32; below 96 x 96; larger
_IOU50, _IOU75 = 0, 5  # places of 0.5 and 0.75 among the overlaps


@dataclass(frozen=True)
class Precision:
    """What COCO's evaluation makes of one set of detections, by boxes or by masks."""

    precision: Numbers  # (T, R, K, A, L), -1 where there is nothing to find
    recall: Numbers  # (T, K, A, L), likewise

    def figures(self, limits: Sequence[int]) -> dict[str, float]:
        """COCO's twelve: 'ap', 'ap50', 'ap75', 'ap_small', ..., 'ar_1', 'ar_10', 'ar', 'ar_small', ...; NaN for none.

        `limits` are those that were evaluated; 'ar' is that of the last.
        """
        found = {"ap": _mean(self.precision[:, :, :, 0, -1])}
        found["ap50"] = _mean(self.precision[_IOU50, :, :, 0, -1])
        found["ap75"] = _mean(self.precision[_IOU75, :, :, 0, -1])
        found |= {f"ap{name}": _mean(self.precision[:, :, :, i, -1]) for i, name in enumerate(_AREAS) if name}
        found |= {f"ar_{limit}": _mean(self.recall[:, :, 0, i]) for i, limit in enumerate(limits[:-1])}
        return found | {f"ar{name}": _mean(self.recall[:, :, i, -1]) for i, name in enumerate(_AREAS)}

    def per_class(self) -> dict[str, list[float]]:
        """'ap', 'ap50' and 'ap75' of each class; NaN where there is nothing to find."""
        all_areas = self.precision[:, :, :, 0, -1]  # (T, R, K)
        parts = {"ap": all_areas, "ap50": all_areas[_IOU50], "ap75": all_areas[_IOU75]}
        classes = range(self.precision.shape[2])
        return {name: [_mean(part[..., label]) for label in classes] for name, part in parts.items()}

    def curves(self) -> dict[str, list[float]]:
        """Precision at the 101 recalls, mean over the classes: at an overlap of 0.5, of 0.75, and of all ten."""
        there = self.precision[:, :, :, 0, -1]  # (T, R, K)
        there = there[:, :, (there > -1).all((0, 1))]
        if not there.shape[-1]:
            return {}
        over_classes = there.mean(-1)  # (T, R)
        rows = {"ap50": over_classes[_IOU50], "ap75": over_classes[_IOU75], "ap": over_classes.mean(0)}
        return {name: row.tolist() for name, row in rows.items()}


def library() -> Any:
    """faster-coco-eval, an extra. Raises MissingPackage where it is not installed."""
    return needs("faster_coco_eval", "Scoring detections")


def average_precision(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    kind: Kind,
    limits: Sequence[int] = (1, 10, 100),
) -> Precision:
    """Evaluate rows of a COCO result file against a COCO annotation file's content; neither is changed.

    `category_ids` is COCO's number of each class, whose order the answer has. `limits`: detections an image and class,
    rising; the last decides the average precision. By masks, an object without one is its box, and the size of a
    detection is that of its mask. Raises MissingPackage where faster-coco-eval is not installed.
    """
    coco = library()
    known = coco.COCO({**ground_truth, "annotations": [_copied(row, kind) for row in ground_truth["annotations"]]})
    found = known.loadRes([_copied(row, kind) for row in detections])
    judge = coco.COCOeval_faster(known, found, iouType=_IOU_TYPES[kind])
    judge.params.maxDets = list(limits)
    judge.evaluate()
    judge.accumulate()
    counts = (len(judge.params.iouThrs), len(judge.params.recThrs), len(category_ids), len(_AREAS), len(limits))
    order = np.argsort(np.argsort(category_ids))  # they are evaluated by number
    precision = np.asarray(judge.eval["precision"], np.float64).reshape(counts)
    recall = np.asarray(judge.eval["recall"], np.float64).reshape(counts[:1] + counts[2:])
    return Precision(precision[:, :, order], recall[:, order])


def _copied(row: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A row that the evaluation may write to. With a box beside it, a detection's mask would be sized by the box."""
    copied = dict(row)
    if kind == "mask":
        copied.setdefault("segmentation", _rectangle(row["bbox"]))
        if "score" in row:
            del copied["bbox"]
    return copied


def _rectangle(box: Sequence[float]) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x, y + height, x + width, y + height, x + width, y]]


def _mean(values: Numbers) -> float:
    """Over those that are there."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")
