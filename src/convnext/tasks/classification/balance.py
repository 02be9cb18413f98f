"""What the numbers of images of the classes decide: whether training makes up for them, how, and what is said of it.

Axes: K classes.
"""

from typing import Any

import numpy as np

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset, counts_of
from convnext.data.store import printable
from convnext.recipes import FITTED
from convnext.tasks.classification.metrics import TITLES

UNEVEN = 3.0  # largest class over smallest; above, training makes up for it
AUTO = "logits"  # benchmarks/balance.py
OF_IMAGES = ("top1", "top5")  # figures to which every image counts alike, of whatever class
_SEVERAL = {  # --balance where an image may have several labels -> what is said of it
    "none": "",
    "sampler": "Classes: training sees the images of each as often, by the rarest class that they have (--balance sampler).",
    "weights": "Classes: an image that has one counts for it by the effective number of such images (--balance weights).",
}


def unevenness(counts: np.ndarray) -> float:
    """The largest class over the smallest of (K,) images of each; classes without any do not count."""
    held = counts[counts > 0]
    return float(held.max() / held.min()) if len(held) else 1.0


def balanced(train: Dataset, name: str, metric: object = None) -> dict[str, Any]:
    """The fields of the recipe called `name` that uneven classes change, for a person who asks for the best by `metric`.

    A published recipe is trained as it was published. Which of its weights are the best is not published. A figure that
    counts images is the highest for a network that knows how many each class has.
    """
    if unevenness(counts_of(train)) <= UNEVEN or metric in OF_IMAGES:
        return {}
    treated = {"loss.balance": AUTO} if name in FITTED["classification"] else {}
    return {**treated, "select.metric": "balanced_accuracy"}


def balance_line(recipe: ClassificationRecipe, train: Dataset) -> str:
    """What is done about uneven classes, as one sentence; '' where they are even and nothing is done."""
    counts = counts_of(train)
    uneven = unevenness(counts)
    if recipe.labels == "multi":
        return _SEVERAL[recipe.loss.balance]
    way = {
        "none": "they count by their images (--balance none)",
        "sampler": "training sees each as often (--balance sampler)",
        "weights": "each counts by its effective number of images (--balance weights)",
        "logits": "training adds their shares to the logits (--balance logits)",
    }[recipe.loss.balance]
    if uneven <= UNEVEN:
        return "" if recipe.loss.balance == "none" else f"Classes: {way}."
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    named = [f"'{printable(train.classes[i])}' {int(counts[i]):,}" for i in (most, least)]
    many, chosen = f"{' and '.join(named)} images, {uneven:.0f} to 1", TITLES[recipe.select.metric]
    return f"Uneven classes ({many}): {way}, and {chosen} chooses the best weights."
