"""A classifier of several labels on labelled images: one outcome an image, and the figures made of them."""

from typing import Any

from torch import nn

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset
from convnext.engine.distributed import ALONE, World
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.conclusion import GIVEN, HELD_OUT, NOTHING, TEST, Wanted
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.scoring import answers
from convnext.tasks.classification.several.metrics import Outcomes
from convnext.tasks.classification.several.report import evaluation_of
from convnext.tasks.classification.several.thresholds import KEY, Thresholds
from convnext.tasks.result import Evaluation


def evaluation(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    thresholds: Thresholds | None = None,
    wanted: Wanted = NOTHING,
    measured: str = GIVEN,
    world: World = ALONE,
    **how: Any,
) -> Evaluation:
    """What `evaluation.json` holds; `thresholds`, `wanted` and `measured` as in `evaluation_of`, `how` as in `Pass`."""
    asked: dict[str, Any] = {"wanted": wanted, "measured": measured}
    return evaluation_of(evaluate(model, dataset, recipe, Pass(**how), world=world), dataset, thresholds, **asked)


def final(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    judged: tuple[Dataset, Answers] | None = None,
    wanted: Wanted = NOTHING,
    test: Dataset | None = None,
    **how: Any,
) -> Evaluation:
    """`evaluation` at the end of a run, where these images choose the thresholds.

    `judged`: images and what was answered to them, in place of `dataset`; `test`: images that decided nothing, for what is
    `wanted`.
    """
    asked: dict[str, Any] = {"wanted": wanted if test is None else NOTHING, "measured": HELD_OUT}
    if judged is None:
        found = evaluation(model, dataset, recipe, **asked, **how)
    else:
        data, answered = judged
        found = evaluation_of(_outcomes(answered), data, **asked)
    if test is None or not wanted:
        return found
    own = Thresholds.of(found.about, len(dataset.classes), "evaluation.json")
    told = evaluation(model, test, recipe, thresholds=own, wanted=wanted, measured=TEST, **how)
    return found.with_about(**{name: told.about[name] for name in (KEY, "promise")})


def evaluate(
    model: nn.Module, dataset: Dataset, recipe: ClassificationRecipe, how: Pass, *, world: World = ALONE
) -> Outcomes:
    """What `model`, in its present mode and precision, makes of every readable image of `dataset`.

    Raises DataError when no image could be read.
    """
    return _outcomes(answers(model, dataset, recipe, how, world=world))


def _outcomes(found: Answers) -> Outcomes:
    return Outcomes.of(found.logits, found.label, found.index)
