"""What `evaluation.json` tells of a segmenter: figures, a table of classes, confusion, and the worst images."""

import math
from collections.abc import Sequence
from typing import Any

from convnext.tasks.groups import interval
from convnext.tasks.preview import as_text
from convnext.tasks.segmentation.metrics import Outcomes, mean_iou, metrics, never_predicted, per_class, ranked


def report(outcomes: Outcomes, names: tuple[str, ...], paths: Sequence[str], *, drawn: int = 12) -> dict[str, Any]:
    """Everything that `evaluation.json` holds of a segmentation run; `paths` are those of the dataset's images.

    'details' is what only the page of a run needs: 'images', for the first `drawn` of 'worst' the prediction, as
    {'path', 'index', 'map'}, where 'map' is a grey PNG of labels in base64, its longer side at most 480 pixels.
    """
    shown = [each for each in ranked(outcomes)[:drawn] if each.drawn]
    maps = [{"path": paths[each.index], "index": each.index, "map": as_text(each.drawn)} for each in shown]
    return {
        "task": "segmentation",
        "n": len(outcomes),
        **metrics(outcomes),
        **intervals(outcomes),
        "classes": list(names),
        "confusion": outcomes.table.tolist(),
        "per_class": per_class(outcomes.table, names),
        "never_predicted": never_predicted(outcomes.table, names),
        "worst": worst(outcomes, names, paths),
        "details": {"images": maps},
    }


def intervals(outcomes: Outcomes) -> dict[str, dict[str, tuple[float, float]]]:
    """'intervals': the 95 % interval of 'miou'; nothing of few images."""
    if outcomes.groups is None:
        return {}
    parts = [mean_iou(table) if table.any() else math.nan for table in outcomes.groups]
    found = interval(mean_iou(outcomes.table), parts, len(outcomes))
    return {"intervals": {"miou": found}} if found else {}


def worst(outcomes: Outcomes, names: tuple[str, ...], paths: Sequence[str], *, most: int = 24) -> list[dict[str, Any]]:
    """The images with the lowest mIoU of their own, and of each the pair of classes that cost most pixels."""
    return [
        {
            "path": paths[each.index],
            "index": each.index,
            "miou": each.miou,
            "pixel_accuracy": each.right / each.pixels,
            "label": names[each.label],
            "predicted": names[each.predicted],
            "pixels": each.confused,
            "share": each.confused / each.pixels,
        }
        for each in ranked(outcomes)[:most]
    ]
