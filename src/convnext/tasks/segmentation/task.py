"""Segmentation: how a batch of images and masks becomes a loss.

Axes: N images, C channels, H W pixel rows and columns, K classes. A label of 255 does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import RunOptions, SegmentationRecipe
from convnext.data.annotated_loader import DenseBatch
from convnext.data.annotated_transforms import fill_of, stacked
from convnext.data.opening import DenseSplits
from convnext.data.sample import IGNORE
from convnext.data.transforms import normalise
from convnext.engine.distributed import World
from convnext.errors import ConvNeXtError
from convnext.kernels.transfer import beside, sent
from convnext.tasks.annotated import AnnotatedTask
from convnext.tasks.balance import balance_of_pixels
from convnext.tasks.segmentation.facts import fingerprint
from convnext.tasks.segmentation.metrics import metrics
from convnext.tasks.segmentation.parts import Logits, resized
from convnext.tasks.segmentation.scoring import evaluate


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

    def tensors(self) -> tuple[Tensor, ...]:
        """Images and labels."""
        return self.x, self.labels


class Segmentation(AnnotatedTask):
    """The task that `engine.fit` trains when the data are images with masks of classes."""

    def __init__(self, model: nn.Module, recipe: SegmentationRecipe, options: RunOptions, splits: DenseSplits):
        super().__init__(model, recipe, options, splits, splits.train, fingerprint(splits.train, recipe))
        self.recipe, self.head = recipe, recipe.head
        self.metric: str = recipe.select.metric
        self.balance = balance_of_pixels(recipe.loss)
        shares = torch.tensor(recipe.loss.shares or [1] * self.head.classes)
        self.chance_loss = self.balance.of_knowing_nothing(shares) * (1 + self.head.aux_weight)

    def prepare(self, batch: DenseBatch, *, step: int, slots: NDArray[np.int64], device: torch.device) -> Labelled:
        """To the device, padded to one size, normalised; padding does not count."""
        config = self.recipe.input
        shown = stacked([sample.image for sample in batch.samples], config.multiple, fill_of(config))
        images = torch.from_numpy(shown)
        labels = np.full(images.shape[:3], IGNORE, np.uint8)
        for place, sample in enumerate(batch.samples):
            assert sample.semantic is not None, "every image of a segmentation dataset has a map"
            height, width = sample.semantic.shape
            labels[place, :height, :width] = sample.semantic
        x = normalise(sent(images, device), self.recipe.input)
        return Labelled(x, sent(torch.from_numpy(labels), device).long())

    def loss(self, network: nn.Module, piece: Labelled) -> dict[str, Tensor]:
        """'main' and 'auxiliary', times its weight: cross-entropy of both heads in float32, each a mean over all pixels,
        to which those that do not count bring 0; balanced as the recipe has it.

        As in the released code; and so micro-batches, whose images have different shares of such pixels, add up.
        """
        logits: Logits = network(piece.x)
        parts = {"main": self._cross_entropy(logits.main, piece.labels)}
        if logits.aux is not None:
            parts["auxiliary"] = self.head.aux_weight * self._cross_entropy(logits.aux, piece.labels)
        return parts

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = self.balance.logits(resized(logits.float(), labels.shape[-2:]))
        weight = None if self.balance.weights is None else beside(self.balance.weights, logits)
        return F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="sum") / labels.numel()

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """mIoU, mean accuracy, pixel accuracy and loss on the held-out images at one scale, in original pixels."""
        options = self.options
        shown: dict[str, Any] = {"workers": options.workers, "skipped": self.skipped, "progress": options.progress}
        return metrics(evaluate(model, self.val, self.recipe, world=world, **shown))

    def refuse(self, world: World) -> None:
        """Batch norms cannot learn from one image: the pool of one cell leaves one value a channel."""
        own = len(self.slots(world))
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
