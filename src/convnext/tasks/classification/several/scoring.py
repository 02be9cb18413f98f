"""A classifier of several labels on labelled images: one outcome an image, and the figures made of them."""

from typing import Any

from torch import nn

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset
from convnext.engine.distributed import ALONE, World
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.scoring import answers, eval_batch
from convnext.tasks.classification.several.metrics import Outcomes
from convnext.tasks.classification.several.report import evaluation_of
from convnext.tasks.classification.several.thresholds import Thresholds
from convnext.tasks.result import Evaluation


def evaluation(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    thresholds: Thresholds | None = None,
    **how: Any,
) -> Evaluation:
    """What `evaluation.json` holds; `thresholds` None: these images choose them. `how`: as of `evaluate`."""
    return evaluation_of(evaluate(model, dataset, recipe, **how), dataset, thresholds)


def final(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    judged: tuple[Dataset, Answers] | None = None,
    **how: Any,
) -> Evaluation:
    """`evaluation` at the end of a run, where these images choose the thresholds.

    `judged`: images and what was answered to them, in place of `dataset`.
    """
    if judged is None:
        return evaluation(model, dataset, recipe, **how)
    data, found = judged
    return evaluation_of(_outcomes(found), data)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    batch: int = 0,
    workers: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    progress: bool = False,
) -> Outcomes:
    """What `model`, in its present mode and precision, makes of every readable image of `dataset`.

    `batch` 0 follows the recipe. Raises DataError when no image could be read.
    """
    how: dict[str, Any] = {"workers": workers, "world": world, "skipped": skipped, "progress": progress}
    return _outcomes(answers(model, dataset, recipe.input, batch=batch or eval_batch(recipe), **how))


def _outcomes(found: Answers) -> Outcomes:
    return Outcomes.of(found.logits, found.label, found.index)
