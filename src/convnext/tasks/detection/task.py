"""Detection: how a batch of annotated images becomes a loss.

Axes: N images, C channels, H W pixel rows and columns of the padded batch, M objects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnext.config import DetectionRecipe, RunOptions
from convnext.data.annotated_loader import DenseBatch
from convnext.data.opening import DenseSplits
from convnext.engine.distributed import World
from convnext.errors import ConvNeXtError
from convnext.tasks.annotated import AnnotatedTask
from convnext.tasks.detection.coco_evaluation import library
from convnext.tasks.detection.facts import fingerprint, shown_in_training
from convnext.tasks.detection.inference import annotated
from convnext.tasks.detection.metrics import limit_of, metrics
from convnext.tasks.detection.scoring import evaluate
from convnext.tasks.detection.types import Images, Targets


@dataclass(frozen=True)
class Annotated:
    """Images ready for the network with the objects in each."""

    images: Images
    targets: tuple[Targets, ...]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, size: int) -> Sequence["Annotated"]:
        """Pieces of at most `size` images, padded as they are together."""
        parts = [slice(first, first + size) for first in range(0, len(self), size)]
        return [Annotated(Images(self.images.x[p], self.images.sizes[p]), self.targets[p]) for p in parts]

    def tensors(self) -> tuple[Tensor, ...]:
        """Images and what each target has."""
        return self.images.x, *(part for each in self.targets for part in each.parts())


class Detection(AnnotatedTask):
    """The task that `engine.fit` trains when the data are images with boxes, and masks where they are known."""

    varies = "which boxes match decides how many a detector learns from"
    chance_loss = math.inf  # a sum of parts that each begin elsewhere: no value tells that nothing is learnt

    def __init__(self, model: nn.Module, recipe: DetectionRecipe, options: RunOptions, splits: DenseSplits):
        library()  # missing, it is missed now and not at the first evaluation
        if recipe.head.masks and not splits.train.has_masks:
            raise ConvNeXtError("head.masks = true, but the objects have boxes alone. Set --head.masks false.")
        train = shown_in_training(splits.train, recipe)
        super().__init__(model, recipe, options, splits, train, fingerprint(train, recipe))
        self.recipe, self.head, self.masks = recipe, recipe.head, recipe.head.masks
        outlined = self.masks and splits.val.has_masks
        self.metric: str = recipe.select.metric or ("mask_ap" if outlined else "box_ap")
        if self.metric.startswith("mask") and not outlined:
            raise ConvNeXtError(
                f"select.metric = '{self.metric}' needs outlines of the held-out objects and head.masks = true. Take "
                f"--metric {self.metric.replace('mask', 'box')}."
            )

    def prepare(self, batch: DenseBatch, *, step: int, slots: NDArray[np.int64], device: torch.device) -> Annotated:
        """To the device, padded to one size, normalised, with boxes and masks in pixels of the padded images."""
        return Annotated(*annotated(batch.samples, self.recipe, device))

    def loss(self, network: nn.Module, piece: Annotated) -> dict[str, Tensor]:
        """All parts, each a mean over the samples of the images together, as in the released code.

        Which anchors and proposals are sampled follows from the step's own random numbers, so micro-batches draw others.
        """
        parts: dict[str, Tensor] = network(piece.images, piece.targets)
        return parts

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """COCO's figures by boxes and by masks, and the loss, on the held-out images in original pixels."""
        options = self.options
        shown: dict[str, Any] = {"workers": options.workers, "skipped": self.skipped, "progress": options.progress}
        outcomes = evaluate(model, self.val, self.recipe, world=world, **shown)
        found = metrics(outcomes, self.val, most=limit_of(self.recipe))
        return {self.metric: 0.0, **found}  # without anything to find there is no such figure

    def describe(self) -> dict[str, Any]:
        """As for every annotated task, and COCO's number of each class."""
        return {**super().describe(), "category_ids": list(self.train.category_ids)}

    def refuse(self, world: World) -> None:
        """Statistics of all processes are gathered by GPUs alone."""
        norms = self.head.box_head == "convolutional" and self.head.head_norm == "sync"
        if norms and world.size > 1 and next(self.model.parameters()).device.type == "cpu":
            raise ConvNeXtError(
                "head.head_norm = 'sync' needs GPUs when there are several processes. Set --head.head_norm group."
            )
