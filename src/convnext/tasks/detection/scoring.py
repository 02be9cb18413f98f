"""A detector on annotated images: what it finds in each, in original pixels, and the figures made of that."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import DetectionRecipe
from convnext.data.annotated_policy import eval_dense
from convnext.data.dataset import DenseDataset
from convnext.data.sample import Sample
from convnext.engine.distributed import ALONE, World
from convnext.engine.given import summed
from convnext.engine.shortage import explained_memory
from convnext.errors import DataError
from convnext.kernels.transfer import fetched, packed, unpacked
from convnext.tasks.annotated import one_by_one, smaller_in_evaluation
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.inference import annotated, in_original, named
from convnext.tasks.detection.metrics import Outcomes, limit_of
from convnext.tasks.detection.report import report
from convnext.tasks.detection.types import Detections
from convnext.tasks.result import Evaluation


def evaluation(model: nn.Module, dataset: DenseDataset, recipe: DetectionRecipe, **ways: Any) -> Evaluation:
    """What `evaluation.json` holds of a detector; `ways` are those of `evaluate`."""
    outcomes = evaluate(model, dataset, recipe, **ways)
    return Evaluation.of("detection", report(outcomes, dataset, most=limit_of(recipe)))


def evaluate(
    model: Any,
    dataset: DenseDataset,
    recipe: DetectionRecipe,
    *,
    workers: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    progress: bool = False,
) -> Outcomes:
    """What `model`, in its present mode and precision, finds in every readable image, one at a time.

    `progress`: how far it is, is shown. Raises DataError when no image could be read, and TrainingError where memory
    runs out.
    """
    device = next(model.parameters()).device
    indices: list[int] = []
    found: list[Found] = []
    losses: list[float] = []
    shown: dict[str, Any] = {"workers": workers, "world": world, "skipped": skipped, "progress": progress}
    change = partial(eval_dense, config=recipe.input)

    def asked(index: int, sample: Sample) -> tuple[tuple[int, Sample, list[Tensor]], Tensor]:
        generator = torch.Generator(device).manual_seed(index)
        with explained_memory(sample.path, smaller_in_evaluation(recipe.input)):
            images, targets = annotated([sample], recipe, device)
            with named(sample):
                parts, (detections,) = model.judge(images, targets, generator)
            answer = [*detections.parts(), summed(parts)]
            return (index, sample, answer), packed(answer)

    with one_by_one(dataset, change, recipe, masks=recipe.head.masks, **shown) as samples:
        for (index, sample, like), held in fetched(asked(*each) for each in samples):
            *detections, loss = unpacked(held, like)
            found.append(in_original(Detections(*detections), sample))
            indices.append(index)
            losses.append(float(loss))
    whole = Outcomes.join(world.gather(Outcomes(tuple(indices), tuple(found), tuple(losses))))
    if not len(whole):
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return whole
