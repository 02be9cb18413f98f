"""What detection and segmentation do alike: batches of annotated images, one image after the other, how they get smaller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from convnext.config import AnnotatedInput, DetectionRecipe, RunOptions, SegmentationRecipe
from convnext.data.annotated_loader import DenseBatch, eval_dense_batches, train_dense_batches
from convnext.data.annotated_policy import in_training
from convnext.data.annotated_preflight import DenseFindings
from convnext.data.dataset import DenseDataset
from convnext.data.loader import steps_in_epoch
from convnext.data.opening import DenseSplits
from convnext.data.sample import Sample
from convnext.data.slots import slots_of
from convnext.engine.distributed import World
from convnext.engine.records import watched
from convnext.tasks.skipped import note_skipped


class AnnotatedTask:
    """The part of an `engine.task.Task` that does not depend on what is learnt of annotated images."""

    exact = False  # what a network makes of a micro-batch may depend on the images beside it
    varies = ""
    masks = True  # whether the masks of objects are read

    def __init__(
        self,
        model: nn.Module,
        recipe: DetectionRecipe | SegmentationRecipe,
        options: RunOptions,
        splits: DenseSplits,
        train: DenseDataset,
        images: str,
    ):
        self.model, self.options = model, options
        self.train, self.val, self.val_share, self.fold = train, splits.val, splits.val_share, splits.fold
        self.drawn = splits.drawn
        self.images = images  # the fingerprint of `train`
        self.smaller = smaller_in_training(recipe.input)
        self.steps_per_epoch = steps_in_epoch(len(train.entries), recipe.optim.batch)
        self.skipped: dict[str, str] = {}  # path -> reason, of every image that broke
        self._chosen = recipe

    def slots(self, world: World) -> NDArray[np.int64]:
        """Of the images of a step, those of this process."""
        return slots_of(self._chosen.optim.batch, (world.rank, world.size))

    def batches(self, steps: range, world: World) -> Iterator[DenseBatch]:
        """This process's share of the batches of `steps`; a broken image is named once, counted and replaced."""
        self.refuse(world)
        recipe = self._chosen
        batches = train_dense_batches(
            self.train,
            in_training(recipe.input, recipe.augment),
            batch=recipe.optim.batch,
            seed=recipe.seed,
            steps=steps,
            steps_per_epoch=self.steps_per_epoch,
            slots=self.slots(world),
            world=world.size,
            workers=self.options.workers,
            channels=len(recipe.input.mean),
            masks=self.masks,
            strict=self.options.strict_images,
        )
        for batch in batches:
            note_skipped(batch.skipped, self.skipped)
            yield batch

    def refuse(self, world: World) -> None:
        """Raise ConvNeXtError for a head that cannot learn on these devices."""

    def names(self, batch: DenseBatch) -> list[str]:
        """The files that a batch was made of."""
        return [sample.path for sample in batch.samples]

    def describe(self) -> dict[str, Any]:
        """Class names, the fingerprint of the training set, and what share was held out of it."""
        return {
            "task": self._chosen.task,
            "classes": list(self.train.classes),
            "images": self.images,
            **({} if self.val_share is None else {"val_share": self.val_share}),
            **({"drawn": self.drawn} if self.drawn else {}),
            **({} if self.fold is None else {"fold": list(self.fold)}),
        }


@contextmanager
def one_by_one(
    dataset: DenseDataset,
    change: Callable[[Sample], Sample],
    recipe: DetectionRecipe | SegmentationRecipe,
    *,
    masks: bool,
    workers: int,
    world: World,
    skipped: dict[str, str] | None,
    progress: bool,
) -> Iterator[Iterator[tuple[int, Sample]]]:
    """(place in the dataset, sample) of this process's share of the images that can be read; the others are noted.

    `progress`: how far it is, is shown.
    """
    batches = eval_dense_batches(
        dataset,
        change,
        batch=1,
        share=(world.rank, world.size),
        workers=workers,
        channels=len(recipe.input.mean),
        masks=masks,
    )
    with watched(batches, len(dataset.entries) // world.size, shown=progress and world.first) as passing:
        yield _samples(passing, skipped if skipped is not None else {})


def _samples(batches: Iterator[DenseBatch], skipped: dict[str, str]) -> Iterator[tuple[int, Sample]]:
    for batch in batches:
        note_skipped(batch.skipped, skipped)
        yield from zip(batch.indices, batch.samples, strict=True)


def counts(dataset: DenseDataset, findings: DenseFindings, part: str) -> dict[str, Any]:
    """'n' images; of each class 'per_class', objects or pixels of masks, and 'images', those that show it."""
    return {"n": len(dataset.entries), "per_class": findings.per_class[part], "images": findings.images[part]}


def smaller_in_training(config: AnnotatedInput) -> str:
    """How training images become smaller, and what they are now."""
    least, most = min(config.short_px), max(config.short_px)
    short = f"smaller images: `--input.short_px` (now {least if least == most else f'{least} to {most}'})"
    return f"{short} or `--input.crop_px` (now {config.crop_px or 'no crop'})"


def smaller_in_evaluation(config: AnnotatedInput) -> str:
    """The same for the images of evaluation."""
    return f"a smaller `--input.eval_short_px` (now {config.eval_short_px})"
