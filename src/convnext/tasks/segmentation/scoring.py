"""A segmenter on annotated images: the class of every pixel, in original pixels, and the figures made of that."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import SegmentationRecipe
from convnext.data.dataset import DenseDataset
from convnext.data.sample import IGNORE
from convnext.data.store import printable
from convnext.engine.distributed import ALONE, World
from convnext.engine.update import explained_memory
from convnext.errors import DataError
from convnext.tasks.annotated import one_by_one, smaller_in_evaluation
from convnext.tasks.finite import NotFinite
from convnext.tasks.groups import GROUPS
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.inference import log_probabilities
from convnext.tasks.segmentation.metrics import Judged, Outcomes, confusion
from convnext.tasks.segmentation.places import seen
from convnext.tasks.segmentation.report import report


def evaluation(model: nn.Module, dataset: DenseDataset, recipe: SegmentationRecipe, **ways: Any) -> Evaluation:
    """What `evaluation.json` holds of a segmenter; `ways` are those of `evaluate`."""
    outcomes = evaluate(model, dataset, recipe, **ways)
    paths = [printable(entry.path) for entry in dataset.entries]
    return Evaluation.of("segmentation", report(outcomes, dataset.classes, paths))


def evaluate(
    model: nn.Module,
    dataset: DenseDataset,
    recipe: SegmentationRecipe,
    *,
    workers: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    multi_scale: bool = False,
    progress: bool = False,
) -> Outcomes:
    """What `model`, in its present mode and precision, makes of every readable image, in its original pixels.

    `multi_scale`: the scales of the recipe with flips, the whole image at once. `progress`: how far it is, is shown.
    Raises DataError when no image could be read, and TrainingError where memory runs out.
    """
    classes = recipe.head.classes
    groups = np.zeros((GROUPS, classes, classes), np.int64)
    judged: list[Judged] = []
    shown: dict[str, Any] = {"workers": workers, "world": world, "skipped": skipped, "progress": progress}
    with one_by_one(dataset, partial(seen, recipe.input), recipe, masks=True, **shown) as samples:
        for index, sample in samples:
            assert sample.semantic is not None, "every image of a segmentation dataset has a mask"
            with explained_memory(sample.path, smaller_in_evaluation(recipe.input)):
                scores = log_probabilities(model, sample.image, recipe, sample.size, multi_scale=multi_scale)
                if bool(scores.isnan().any()):  # of inf and of nan
                    raise NotFinite(sample.path)
                predicted, loss = scores.argmax(0), _loss(scores, sample.semantic)
            answer = predicted.cpu().numpy().astype(np.uint8)
            own = confusion(answer, sample.semantic, classes)
            groups[index % GROUPS] += own
            judged.append(Judged.of(index, own, loss, answer))
    whole = Outcomes.join(world.gather(Outcomes(groups.sum(0), tuple(judged), groups)))
    if not len(whole):
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return whole


def _loss(scores: Tensor, ground_truth: NDArray[np.uint8]) -> float:
    """The sum of one image's pixels' cross-entropy."""
    labels = torch.from_numpy(ground_truth.astype(np.int64)).to(scores.device)
    return float(F.nll_loss(scores[None], labels[None], ignore_index=IGNORE, reduction="none").double().sum())
