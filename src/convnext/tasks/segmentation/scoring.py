"""A segmenter on annotated images: the class of every pixel, in original pixels, and the figures made of that."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import SegmentationRecipe
from convnext.data.dataset import DenseDataset
from convnext.data.sample import IGNORE, Sample
from convnext.data.store import printable
from convnext.engine.distributed import ALONE, World
from convnext.engine.shortage import explained_memory
from convnext.errors import DataError
from convnext.kernels.transfer import fetched, queued, sent
from convnext.tasks.annotated import one_by_one, smaller_in_evaluation
from convnext.tasks.finite import NotFinite
from convnext.tasks.groups import GROUPS
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.exact import labelled
from convnext.tasks.segmentation.inference import in_strips, log_probabilities_of, seen_logits
from convnext.tasks.segmentation.metrics import Judged, Outcomes, confusion
from convnext.tasks.segmentation.places import seen
from convnext.tasks.segmentation.report import report
from convnext.tasks.together import TOGETHER, alike, by_halves

Placed = tuple[int, Sample]  # place in the dataset, what is there


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
    device = next(model.parameters()).device
    with one_by_one(dataset, partial(seen, recipe.input), recipe, masks=True, **shown) as samples:
        groups_of_one_size = alike(samples, _sizes, TOGETHER if queued(device) else 1)
        asked = (pair for group in groups_of_one_size for pair in _asked(model, group, recipe, multi_scale))
        for (index, sample), packed in fetched(asked):
            assert sample.semantic is not None, "every image of a segmentation dataset has a mask"
            answer, loss = _unpacked(packed, sample)
            own = confusion(answer, sample.semantic, classes)
            groups[index % GROUPS] += own
            judged.append(Judged.of(index, own, loss, answer))
    whole = Outcomes.join(world.gather(Outcomes(groups.sum(0), tuple(judged), groups)))
    if not len(whole):
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return whole


def _sizes(placed: Placed) -> tuple[object, ...]:
    return placed[1].image.shape, placed[1].size


def _asked(
    model: nn.Module, group: Sequence[Placed], recipe: SegmentationRecipe, multi_scale: bool
) -> list[tuple[Placed, Tensor]]:
    """What the device makes of images of one size, in one piece for each; by halves where memory runs out.

    Batches round otherwise than single images: log-probabilities differ by 1e-5 at most in float32.
    """
    first = group[0][1]
    if in_strips(recipe, first.size, multi_scale=multi_scale):
        return [(placed, _of_strips(model, placed[1], recipe)) for placed in group]

    def answered(some: Sequence[Placed]) -> list[tuple[Placed, Tensor]]:
        images, memory = [sample.image for _, sample in some], smaller_in_evaluation(recipe.input)
        with explained_memory(some[0][1].path, memory) if len(some) == 1 else nullcontext():
            every = log_probabilities_of(model, images, recipe, first.size, multi_scale=multi_scale)
            return [(placed, _packed(scores, placed[1])) for placed, scores in zip(some, every, strict=True)]

    return by_halves(group, answered)


def _of_strips(model: nn.Module, sample: Sample, recipe: SegmentationRecipe) -> Tensor:
    """What `_packed` makes, of an image whose scores are not held at once."""
    with explained_memory(sample.path, smaller_in_evaluation(recipe.input)):
        logits = seen_logits(model, sample.image, recipe).cpu().numpy()
    found = labelled(logits, sample.size, _counted(sample, len(logits)))
    loss = torch.tensor([found.loss], dtype=torch.float64).view(torch.uint8)
    broken = torch.tensor([int(np.isnan(found.scores).any())], dtype=torch.uint8)
    return torch.cat([torch.from_numpy(found.mask).flatten(), loss, broken])


def _packed(scores: Tensor, sample: Sample) -> Tensor:
    """The bytes of the classes of all pixels, of the summed cross-entropy and of whether (K, H, W) scores are numbers."""
    labels = sent(torch.from_numpy(_counted(sample, len(scores))), scores.device).long()
    loss = F.nll_loss(scores[None], labels[None], ignore_index=IGNORE, reduction="none").double().sum()
    predicted = scores.argmax(0).to(torch.uint8).flatten()
    return torch.cat([predicted, loss[None].view(torch.uint8), scores.isnan().any()[None].to(torch.uint8)])


def _counted(sample: Sample, classes: int) -> NDArray[np.uint8]:
    """(H, W) ground truth, IGNORE where it is none of the classes."""
    assert sample.semantic is not None, "every image of a segmentation dataset has a mask"
    return np.where(sample.semantic < classes, sample.semantic, IGNORE).astype(np.uint8)


def _unpacked(packed: Tensor, sample: Sample) -> tuple[NDArray[np.uint8], float]:
    """(H, W) classes and the loss. Raises NotFinite, with the image's name."""
    whole: NDArray[np.uint8] = packed.numpy()
    if whole[-1]:  # of inf and of nan
        raise NotFinite(sample.path)
    return whole[:-9].reshape(sample.size), float(whole[-9:-1].copy().view(np.float64)[0])
