"""What the data decide about a classifier's recipe, and how a set of images is known again."""

from typing import Any

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset
from convnext.data.preflight import Findings
from convnext.tasks.classification.balance import balanced
from convnext.tasks.digest import digest


def fitted(train: Dataset, name: str | None = None) -> dict[str, Any]:
    """What is done about uneven classes, in a recipe that is named; one that is given as a value says it itself."""
    return balanced(train, name) if name else {}


def fingerprint(dataset: Dataset, recipe: ClassificationRecipe | None = None) -> str:
    """A hash that tells this set of images from another; the same on every machine."""
    listing = "\n".join(f"{entry.path}\t{entry.label}" for entry in dataset.entries)
    return digest(listing)


def counts(dataset: Dataset, findings: Findings, part: str) -> dict[str, Any]:
    """'n' images, and of each class 'per_class'."""
    per_class = dict.fromkeys(dataset.classes, 0)
    for entry in dataset.entries:
        per_class[dataset.classes[entry.label]] += 1
    return {"n": len(dataset.entries), "per_class": per_class}
