"""What `evaluation.json` tells of a classifier: figures, tables of classes and of confusion, and the most wrong images."""

from typing import Any

import numpy as np

from convnext.data.labelled import Dataset
from convnext.data.store import printable
from convnext.tasks.classification.metrics import (
    Outcomes,
    baselines,
    calibration,
    confusion,
    metrics,
    never_predicted,
    per_class,
)
from convnext.tasks.result import Evaluation


def evaluation_of(outcomes: Outcomes, dataset: Dataset) -> Evaluation:
    """The evaluation that the outcomes of a network on `dataset` make."""
    paths = [printable(entry.path) for entry in dataset.entries]
    return Evaluation.of("classification", report(outcomes, dataset.classes, paths))


def report(outcomes: Outcomes, names: tuple[str, ...], paths: list[str], *, worst: int = 24) -> dict[str, Any]:
    """Everything that `evaluation.json` holds of a classifier; `paths` are those of the dataset's entries."""
    confused = confusion(outcomes, len(names))
    wrong = np.flatnonzero(outcomes.rank > 0)
    wrong = wrong[np.argsort(outcomes.label_score[wrong], kind="stable")][:worst]
    return {
        "task": "classification",
        "n": len(outcomes),
        **metrics(outcomes),
        **baselines(confused),
        "classes": list(names),
        **confused.to_dict(),
        "per_class": per_class(confused, names),
        "never_predicted": never_predicted(confused, names),
        "calibration": calibration(outcomes),
        "worst": [
            {
                "path": paths[outcomes.index[i]],
                "label": names[outcomes.label[i]],
                "predicted": names[outcomes.predicted[i]],
                "score": float(outcomes.score[i]),
                "label_score": float(outcomes.label_score[i]),
            }
            for i in wrong
        ],
    }
