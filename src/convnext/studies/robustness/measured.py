"""What a suite asks of a network, and the one figure of it that a cell keeps: an error, from 0 to 1.

Of one label an image the share of images whose first class is wrong; of several 1 - mAP, over the classes that an image
is known to have, with unknown entries left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from convnext.config import ClassificationRecipe, Recipe
from convnext.data.labelled import Dataset
from convnext.errors import ConvNeXtError
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.several import metrics as several

Measure = Literal["top1", "map"]
ERRORS: dict[str, str] = {"top1": "top-1 error", "map": "1 - mAP"}  # measure -> what its error is called
TITLES: dict[str, str] = {"top1": "top-1", "map": "mAP"}


class Scorer(Protocol):
    """What a suite needs of a network: `deploy.classifier.ClassificationPredictor` has it."""

    @property
    def recipe(self) -> Recipe:
        """What it was trained by: its input and precision count here."""
        ...

    @property
    def source(self) -> Path:
        """The file of weights."""
        ...

    def outcomes(self, dataset: Dataset, how: Pass, *, only: Sequence[int] = ()) -> Outcomes:
        """One outcome a readable image."""
        ...

    def label_outcomes(self, dataset: Dataset, how: Pass) -> several.Outcomes:
        """The same where an image may have several labels."""
        ...


def measure_of(recipe: Recipe) -> Measure:
    """Which figure a network of `recipe` is judged by."""
    return "map" if isinstance(recipe, ClassificationRecipe) and recipe.labels == "multi" else "top1"


def measured(scorer: Scorer, dataset: Dataset, how: Pass, *, only: Sequence[int]) -> tuple[float, int]:
    """(error, images) of `dataset`. `only`: the classes that may be answered; of several labels each class is judged alone,
    so that those which nothing is known of are left out by their marks. Raises ConvNeXtError where no image has a label.
    """
    if measure_of(scorer.recipe) == "top1":
        found = scorer.outcomes(dataset, how, only=only)
        return float((found.rank > 0).mean()), len(found)
    told = scorer.label_outcomes(dataset, how)
    if not (told.marks == 1).any():
        raise ConvNeXtError("None of these images has a label of the run, so that there is no mAP. Name other data.")
    return 1 - several.mean_of_known(several.average_precisions(told)), len(told)
