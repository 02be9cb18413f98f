"""What the data decide about a classifier's recipe, and how a set of images is known again."""

from typing import Any

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset, counts_of
from convnext.data.preflight import Findings
from convnext.tasks.classification.balance import balanced
from convnext.tasks.digest import digest

SEVERAL = {"labels": "multi", "loss.kind": "bce", "select.metric": "map"}  # what a recipe is where images have several


def fitted(train: Dataset, findings: Findings, name: str | None = None, metric: object = None) -> dict[str, Any]:
    """What several labels an image or uneven classes ask of a recipe that is named; one that is a value says it itself."""
    if not name:
        return {}
    return SEVERAL if train.several else balanced(train, name, metric)


def fingerprint(dataset: Dataset, recipe: ClassificationRecipe | None = None) -> str:
    """A hash that tells this set of images from another; the same on every machine."""
    said = (entry.label if entry.marks is None else ",".join(map(str, entry.marks)) for entry in dataset.entries)
    listing = "\n".join(f"{entry.path}\t{label}" for entry, label in zip(dataset.entries, said, strict=True))
    return digest(listing)


def counts(dataset: Dataset, findings: Findings, part: str) -> dict[str, Any]:
    """'n' images, and of each class 'per_class'."""
    return {
        "n": len(dataset.entries),
        "per_class": dict(zip(dataset.classes, counts_of(dataset).tolist(), strict=True)),
    }
