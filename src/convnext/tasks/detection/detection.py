"""Detection: how a batch of annotated images becomes a loss, and how a network is scored in original pixels.

Axes: N images, C channels, H W pixel rows and columns of the padded batch, M objects.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import DetectionRecipe, DetectorHeadConfig, RunOptions, TaskRecipe, expect
from convnext.data.annotated_loader import DenseBatch, eval_dense_batches, train_dense_batches
from convnext.data.annotated_policy import eval_dense, in_training
from convnext.data.dataset import DenseDataset
from convnext.data.loader import steps_in_epoch
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import watched
from convnext.engine.update import explained_memory, summed
from convnext.errors import ConvNeXtError, DataError
from convnext.tasks.annotated import smaller_in_evaluation, smaller_in_training
from convnext.tasks.classification import note_skipped
from convnext.tasks.detection.coco_evaluation import library
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.inference import Found, images_of, in_original, targets_of
from convnext.tasks.detection.metrics import Outcomes, metrics
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


class Detection:
    """The task that `engine.fit` trains when the data are images with boxes, and masks where they are known."""

    exact = False  # micro-batches sample other proposals
    chance_loss = math.inf  # a sum of parts that each begin elsewhere: no value tells that nothing is learnt

    def __init__(
        self,
        model: nn.Module,
        recipe: DetectionRecipe,
        options: RunOptions,
        train: DenseDataset,
        val: DenseDataset,
        val_share: float | None = None,
    ):
        library()  # missing, it is missed now and not at the first evaluation
        recipe = expect(recipe, DetectionRecipe)
        self.head, self.smaller = recipe.head, smaller_in_training(recipe.input)
        if self.head.masks and not train.has_masks:
            raise ConvNeXtError("head.masks = true, but the objects have boxes alone. Set --head.masks false.")
        self.model, self.recipe, self.options = model, recipe, options
        self.train = shown_in_training(train, recipe)
        self.val, self.val_share = val, val_share
        self.metric = "mask_ap" if self.head.masks and val.has_masks else "box_ap"
        self.steps_per_epoch = steps_in_epoch(len(self.train.entries), recipe.optim.batch)
        self.skipped: dict[str, str] = {}  # path -> reason, of every image that broke

    def batches(self, steps: range, world: World) -> Iterator[DenseBatch]:
        """This process's share of the batches of `steps`; a broken image is named once, counted and replaced."""
        _refuse_sync(self.head, next(self.model.parameters()).device, world)
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
            masks=self.head.masks,
            strict=self.options.strict_images,
        )
        for batch in batches:
            note_skipped(batch, self.skipped)
            yield batch

    def prepare(self, batch: DenseBatch, *, step: int, rank: int, device: torch.device) -> Annotated:
        """To the device, padded to one size, normalised, with boxes and masks in pixels of the padded images."""
        images = images_of(batch.samples, self.recipe, device)
        return Annotated(images, tuple(targets_of(sample.instances, device) for sample in batch.samples))

    def loss(self, network: nn.Module, piece: Annotated) -> dict[str, Tensor]:
        """All parts, each a mean over the samples of the images together, as in the released code.

        Which anchors and proposals are sampled follows from the step's own random numbers, so micro-batches draw others.
        """
        parts: dict[str, Tensor] = network(piece.images, piece.targets)
        return parts

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """COCO's figures by boxes and by masks, and the loss, on the held-out images in original pixels."""
        outcomes = evaluate(
            model,
            self.val,
            self.recipe,
            workers=self.options.workers,
            world=world,
            skipped=self.skipped,
            progress=self.options.progress,
        )
        return metrics(outcomes, self.val, most=limit_of(self.recipe))

    def names(self, batch: DenseBatch) -> list[str]:
        """The files that a batch was made of."""
        return [sample.path for sample in batch.samples]

    def describe(self) -> dict[str, Any]:
        """Class names, COCO's number of each, the fingerprint of the training set, and what share was held out of it."""
        return {
            "task": "detection",
            "classes": list(self.train.classes),
            "category_ids": list(self.train.category_ids),
            "images": fingerprint(self.train),
            **({} if self.val_share is None else {"val_share": self.val_share}),
        }


def build_detector(recipe: TaskRecipe) -> Detector:
    """The freshly initialised detector of a recipe for detection. Raises ConvNeXtError for a recipe of another task."""
    chosen = expect(recipe, DetectionRecipe)
    return Detector(chosen.model, chosen.head)


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
    batches = eval_dense_batches(
        dataset,
        partial(eval_dense, config=recipe.input),
        batch=1,
        share=(world.rank, world.size),
        workers=workers,
        channels=len(recipe.input.mean),
        masks=recipe.head.masks,
    )
    with watched(batches, len(dataset.entries) // world.size, shown=progress and world.first) as passing:
        for batch in passing:
            note_skipped(batch, skipped if skipped is not None else {})
            for index, sample in zip(batch.indices, batch.samples, strict=True):
                generator = torch.Generator(device).manual_seed(index)
                with explained_memory(sample.path, smaller_in_evaluation(recipe.input)):
                    images, targets = images_of([sample], recipe, device), targets_of(sample.instances, device)
                    parts, detections = model.judge(images, [targets], generator)
                    found.append(in_original(detections[0], sample))
                indices.append(index)
                losses.append(float(summed(parts)))
    whole = Outcomes.join(world.gather(Outcomes(tuple(indices), tuple(found), tuple(losses))))
    if not len(whole):
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return whole


def limit_of(recipe: DetectionRecipe) -> int:
    """Detections an image and class that count in evaluation: COCO's 100, or more where the detector shows more."""
    return max(100, recipe.head.most)


def shown_in_training(dataset: DenseDataset, recipe: DetectionRecipe) -> DenseDataset:
    """Those of the images that the recipe trains on: it may leave out what shows no object."""
    return dataset if recipe.input.empty else dataset.annotated()


def fingerprint(dataset: DenseDataset) -> str:
    """A hash that tells this set of images and objects from another; the same on every machine."""
    digest = hashlib.sha256()
    for entry in dataset.entries:
        digest.update(entry.path.encode("utf-8", "surrogateescape") + b"\n")
        if entry.objects is not None:
            for column in (entry.objects.boxes, entry.objects.labels, entry.objects.crowd):
                digest.update(column.tobytes())
    return digest.hexdigest()[:16]


def _refuse_sync(head: DetectorHeadConfig, device: torch.device, world: World) -> None:
    """Statistics of all processes are gathered by GPUs alone."""
    if head.box_head == "convolutional" and head.head_norm == "sync" and world.size > 1 and device.type == "cpu":
        raise ConvNeXtError(
            "head.head_norm = 'sync' needs GPUs when there are several processes. Set --head.head_norm group."
        )
