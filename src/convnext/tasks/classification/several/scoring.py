"""A classifier of several labels on labelled images: one outcome an image, and the figures made of them."""

from typing import Any

from torch import nn

from convnext.config import ClassificationRecipe
from convnext.data.labelled import Dataset
from convnext.data.loader import eval_batches
from convnext.data.transforms import normalise
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import watched
from convnext.errors import DataError
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.inference import logits, require_finite
from convnext.tasks.classification.scoring import eval_batch
from convnext.tasks.classification.several.metrics import Outcomes
from convnext.tasks.classification.several.report import evaluation_of
from convnext.tasks.classification.several.thresholds import Thresholds
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import note_skipped


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
    data, answers = judged
    return evaluation_of(Outcomes.of(answers.logits, answers.label, answers.index), data)


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
    device, parts = next(model.parameters()).device, []
    share = (world.rank, world.size)
    batches = eval_batches(dataset, recipe.input, batch=batch or eval_batch(recipe), share=share, workers=workers)
    with watched(batches, len(dataset.entries) // world.size, shown=progress and world.first) as passing:
        for raw in passing:
            note_skipped(raw.skipped, skipped if skipped is not None else {})
            if len(raw.labels):
                out = logits(model, normalise(raw.images.to(device), recipe.input)).float()
                require_finite(out, [dataset.entries[index].path for index in raw.indices.tolist()])
                parts.append(Outcomes.of(out.cpu().numpy(), raw.labels.numpy(), raw.indices.numpy()))
    parts = [part for gathered in world.gather(parts) for part in gathered]
    if not parts:
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return Outcomes.join(parts)
