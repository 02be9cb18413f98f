"""What the data decide about a detector's recipe, and how a set of annotated images is known again."""

import hashlib
import math
from typing import Any

from convnext.config import DetectionRecipe
from convnext.data.annotated_preflight import DenseFindings
from convnext.data.dataset import DenseDataset

_FEW = 60  # objects of an image; with more, more than COCO's 100 detections are shown


def fitted(
    train: DenseDataset, findings: DenseFindings, name: str | None = None, metric: object = None
) -> dict[str, Any]:
    """No mask head where there are no masks, and room for half as many detections again as an image has objects."""
    changes: dict[str, Any] = {} if train.has_masks else {"head.masks": False}
    objects = max((int((~e.objects.crowd).sum()) for e in train.entries if e.objects is not None), default=0)
    return changes | ({"head.most": 100 * math.ceil(1.5 * objects / 100)} if objects > _FEW else {})


def shown_in_training(dataset: DenseDataset, recipe: DetectionRecipe) -> DenseDataset:
    """Those of the images that the recipe trains on: it may leave out what shows no object."""
    return dataset if recipe.input.empty else dataset.annotated()


def fingerprint(dataset: DenseDataset, recipe: DetectionRecipe) -> str:
    """A hash that tells the images and objects that the recipe trains on from others; the same on every machine."""
    digest = hashlib.sha256()
    for entry in shown_in_training(dataset, recipe).entries:
        digest.update(entry.path.encode("utf-8", "surrogateescape") + b"\n")
        if entry.objects is not None:
            for column in (entry.objects.boxes, entry.objects.labels, entry.objects.crowd):
                digest.update(column.tobytes())
    return digest.hexdigest()[:16]
