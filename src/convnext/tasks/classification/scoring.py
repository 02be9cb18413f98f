"""A classifier on labelled images: one outcome an image, and the figures made of them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from convnext.config import ClassificationRecipe, InputConfig
from convnext.data.evaluation import Change
from convnext.data.labelled import Dataset
from convnext.data.loader import eval_batches
from convnext.data.transforms import normalise
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import watched
from convnext.errors import DataError
from convnext.tasks.classification.inference import judged, logits, restricted
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.report import evaluation_of
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import note_skipped

# (network, (N, H, W, C) uint8 images, (N,) labels, (N,) indices, input) -> (N, C, H, W) normalised, made to mislead
Attacker = Callable[[nn.Module, Tensor, Tensor, Tensor, InputConfig], Tensor]


def evaluation(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    workers: int = 0,
    batch: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """What `evaluation.json` holds of a classifier; `batch` 0 follows the recipe, the others are those of `evaluate`."""
    outcomes = evaluate(
        model,
        dataset,
        recipe.input,
        batch=batch or eval_batch(recipe),
        workers=workers,
        world=world,
        skipped=skipped,
        progress=progress,
    )
    return evaluation_of(outcomes, dataset)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    config: InputConfig,
    *,
    batch: int,
    workers: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    change: Change | None = None,
    attack: Attacker | None = None,
    only: Sequence[int] = (),
    progress: bool = False,
) -> Outcomes:
    """What `model`, in its present mode and precision, makes of every readable image of `dataset`.

    `change` is done to each image after the crop, `attack` to each batch. `only`: the classes that may be answered,
    for data whose classes are a part of the model's; empty for all. `progress`: how far it is, is shown. Raises DataError
    when no image could be read.
    """
    device = next(model.parameters()).device
    parts = []
    share = (world.rank, world.size)
    batches = eval_batches(dataset, config, batch=batch, share=share, workers=workers, change=change)
    with watched(batches, len(dataset.entries) // world.size, shown=progress and world.first) as passing:
        for raw in passing:
            note_skipped(raw.skipped, skipped if skipped is not None else {})
            if len(raw.labels):
                images = raw.images.to(device)
                x = attack(model, images, raw.labels, raw.indices, config) if attack else normalise(images, config)
                parts.append(judged(restricted(logits(model, x), only), raw.labels, raw.indices))
    parts = [part for gathered in world.gather(parts) for part in gathered]
    if not parts:
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return Outcomes.join(parts)


def eval_batch(recipe: ClassificationRecipe) -> int:
    """Images per forward pass in evaluation; no gradients, so more fit than in training."""
    return min(256, max(16, 3 * recipe.optim.batch // 2))
