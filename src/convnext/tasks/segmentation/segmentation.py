"""Segmentation: how a batch of images and maps becomes a loss, and how a network is scored in original pixels.

Axes: N images, C channels, H W pixel rows and columns, K classes. A label of 255 does not count.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import AnnotatedInput, RunOptions, SegmentationRecipe, TaskRecipe, expect
from convnext.data.annotated_loader import DenseBatch, eval_dense_batches, train_dense_batches
from convnext.data.annotated_policy import eval_dense, in_training
from convnext.data.annotated_transforms import stacked
from convnext.data.dataset import DenseDataset
from convnext.data.loader import steps_in_epoch
from convnext.data.sample import IGNORE, Sample
from convnext.data.transforms import normalise
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import watched
from convnext.engine.update import explained_memory
from convnext.errors import ConvNeXtError, DataError
from convnext.tasks.annotated import smaller_in_evaluation, smaller_in_training
from convnext.tasks.classification import note_skipped
from convnext.tasks.detection.backbone import Backbone
from convnext.tasks.segmentation.inference import logits_of, multi_scale_probabilities
from convnext.tasks.segmentation.metrics import Judged, Outcomes, confusion, metrics
from convnext.tasks.segmentation.upernet import Logits, UperNet, resized


@dataclass(frozen=True)
class Labelled:
    """Images ready for the network with a class for every pixel."""

    x: Tensor  # (N, C, H, W) normalised
    labels: Tensor  # (N, H, W) int64

    def __len__(self) -> int:
        return len(self.x)

    def split(self, size: int) -> Sequence["Labelled"]:
        """Pieces of at most `size` images."""
        return [Labelled(*pair) for pair in zip(self.x.split(size), self.labels.split(size), strict=True)]


class Segmentation:
    """The task that `engine.fit` trains when the data are images with label maps."""

    metric = "miou"
    exact = False  # norms may see the images of a micro-batch alone

    def __init__(
        self,
        model: nn.Module,
        recipe: SegmentationRecipe,
        options: RunOptions,
        train: DenseDataset,
        val: DenseDataset,
        val_share: float | None = None,
    ):
        recipe = expect(recipe, SegmentationRecipe)
        self.head, self.smaller = recipe.head, smaller_in_training(recipe.input)
        self.model, self.recipe, self.options = model, recipe, options
        self.train, self.val, self.val_share = train, val, val_share
        self.steps_per_epoch = steps_in_epoch(len(train.entries), recipe.optim.batch)
        self.chance_loss = math.log(self.head.classes) * (1 + self.head.aux_weight)
        self.skipped: dict[str, str] = {}  # path -> reason, of every image that broke

    def batches(self, steps: range, world: World) -> Iterator[DenseBatch]:
        """This process's share of the batches of `steps`; a broken image is named once, counted and replaced."""
        self._refuse_single(world)
        batches = train_dense_batches(
            self.train,
            in_training(self.recipe.input, self.recipe.augment),
            batch=self.recipe.optim.batch,
            seed=self.recipe.seed,
            steps=steps,
            steps_per_epoch=self.steps_per_epoch,
            share=(world.rank, world.size),
            workers=self.options.workers,
            channels=len(self.recipe.input.mean),
            strict=self.options.strict_images,
        )
        for batch in batches:
            note_skipped(batch, self.skipped)
            yield batch

    def prepare(self, batch: DenseBatch, *, step: int, rank: int, device: torch.device) -> Labelled:
        """To the device, padded to one size, normalised; padding does not count."""
        images = torch.from_numpy(stacked([sample.image for sample in batch.samples], self.recipe.input.multiple))
        labels = np.full(images.shape[:3], IGNORE, np.uint8)
        for place, sample in enumerate(batch.samples):
            assert sample.semantic is not None, "every image of a segmentation dataset has a map"
            height, width = sample.semantic.shape
            labels[place, :height, :width] = sample.semantic
        x = normalise(images.to(device, non_blocking=True), self.recipe.input)
        return Labelled(x, torch.from_numpy(labels).to(device, non_blocking=True).long())

    def loss(self, network: nn.Module, piece: Labelled) -> dict[str, Tensor]:
        """'main' and 'auxiliary', times its weight: cross-entropy of both heads in float32, each a mean over all pixels,
        to which those that do not count bring 0.

        As in the released code; and so micro-batches, whose images have different shares of such pixels, add up.
        """
        logits: Logits = network(piece.x)
        parts = {"main": _cross_entropy(logits.main, piece.labels)}
        if logits.aux is not None:
            parts["auxiliary"] = self.head.aux_weight * _cross_entropy(logits.aux, piece.labels)
        return parts

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """mIoU, mean accuracy, pixel accuracy and loss on the held-out images at one scale, in original pixels."""
        outcomes = evaluate(
            model,
            self.val,
            self.recipe,
            workers=self.options.workers,
            world=world,
            skipped=self.skipped,
            progress=self.options.progress,
        )
        return metrics(outcomes)

    def names(self, batch: DenseBatch) -> list[str]:
        """The files that a batch was made of."""
        return [sample.path for sample in batch.samples]

    def describe(self) -> dict[str, Any]:
        """Class names, the fingerprint of the training set, and what share was held out of it."""
        return {
            "task": "segmentation",
            "classes": list(self.train.classes),
            "images": fingerprint(self.train),
            **({} if self.val_share is None else {"val_share": self.val_share}),
        }

    def _refuse_single(self, world: World) -> None:
        """Batch norms cannot learn from one image: the pool of one cell leaves one value a channel."""
        own = self.recipe.optim.batch // world.size
        micro = min(own, self.options.micro_batch or own)
        together = 1 if self.head.norm == "batch" else world.size
        device = next(self.model.parameters()).device.type
        if self.head.norm == "sync" and world.size > 1 and device == "cpu":
            raise ConvNeXtError(
                "head.norm = 'sync' needs GPUs when there are several processes. Set --head.norm group."
            )
        if self.head.norm in ("batch", "sync") and (own % micro or micro) * together == 1:
            raise ConvNeXtError(
                f"head.norm = '{self.head.norm}' needs two images or more in each forward pass, and there is one "
                f"(batch {own}, {micro} at a time). Set --head.norm group, or raise optim.batch or --micro-batch."
            )


def build_segmenter(recipe: TaskRecipe) -> UperNet:
    """The freshly initialised UperNet of a recipe for segmentation. Raises ConvNeXtError for a recipe of another task."""
    chosen = expect(recipe, SegmentationRecipe)
    return UperNet(Backbone(chosen.model), chosen.head)


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
    table = np.zeros((classes, classes), np.int64)
    judged: list[Judged] = []
    batches = eval_dense_batches(
        dataset,
        partial(_shown, recipe.input),
        batch=1,
        share=(world.rank, world.size),
        workers=workers,
        channels=len(recipe.input.mean),
    )
    with watched(batches, len(dataset.entries) // world.size, shown=progress and world.first) as passing:
        for batch in passing:
            note_skipped(batch, skipped if skipped is not None else {})
            for index, sample in zip(batch.indices, batch.samples, strict=True):
                assert sample.semantic is not None, "every image of a segmentation dataset has a map"
                with explained_memory(sample.path, smaller_in_evaluation(recipe.input)):
                    scores = log_probabilities(model, sample.image, recipe, sample.size, multi_scale=multi_scale)
                    predicted, loss = scores.argmax(0), _loss(scores, sample.semantic)
                answer = predicted.cpu().numpy().astype(np.uint8)
                own = confusion(answer, sample.semantic, classes)
                table += own
                judged.append(Judged.of(index, own, loss, answer))
    whole = Outcomes.join(world.gather(Outcomes(table, tuple(judged))))
    if not len(whole):
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return whole


def predict(
    model: nn.Module, image: NDArray[np.uint8], recipe: SegmentationRecipe, *, multi_scale: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(H, W, C) uint8 of any size -> (H, W) classes and (H, W) their probabilities, as evaluation sees it."""
    size = (image.shape[0], image.shape[1])
    shown = _shown(recipe.input, Sample(image, None, None, "", 0, size))
    scores, labels = log_probabilities(model, shown.image, recipe, size, multi_scale=multi_scale).max(0)
    return labels.to(torch.uint8).cpu().numpy(), scores.exp().cpu().numpy()


def log_probabilities(
    model: nn.Module,
    image: NDArray[np.uint8],
    recipe: SegmentationRecipe,
    size: tuple[int, int],
    *,
    multi_scale: bool = False,
) -> Tensor:
    """(H, W, C) uint8 at the size of evaluation -> (K, *size) float32."""
    device = next(model.parameters()).device
    x = normalise(torch.from_numpy(np.ascontiguousarray(image))[None].to(device), recipe.input)
    if multi_scale:
        return multi_scale_probabilities(model, x, recipe.head, size)[0].log()
    return logits_of(model, x, recipe.head, size)[0].log_softmax(0)


def fingerprint(dataset: DenseDataset) -> str:
    """A hash that tells this set of images and maps from another; the same on every machine."""
    listing = [f"{entry.path}\t{entry.semantic}" for entry in dataset.entries]
    text = "\n".join([*listing, ",".join(map(str, dataset.values))])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _shown(config: AnnotatedInput, sample: Sample) -> Sample:
    """The image as evaluation sees it, with its map as it was: answers are brought to the map, not the reverse."""
    return replace(eval_dense(replace(sample, semantic=None), config), semantic=sample.semantic)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    logits = resized(logits.float(), labels.shape[-2:])
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / labels.numel()


def _loss(scores: Tensor, ground_truth: NDArray[np.uint8]) -> float:
    """The sum of one image's pixels' cross-entropy."""
    labels = torch.from_numpy(ground_truth.astype(np.int64)).to(scores.device)
    return float(F.nll_loss(scores[None], labels[None], ignore_index=IGNORE, reduction="none").double().sum())
