"""Image classification: how a batch becomes a loss, and how a network is scored on labelled images."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ClassificationRecipe, InputConfig, RunOptions
from convnext.data.annotated_loader import DenseBatch
from convnext.data.batch import Batch
from convnext.data.evaluation import Change
from convnext.data.labelled import Dataset, Splits
from convnext.data.loader import eval_batches, steps_in_epoch, train_batches
from convnext.data.mix import mix
from convnext.data.opening import open_splits
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.data.transforms import normalise
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import info, warn, watched
from convnext.engine.schedule import total_steps
from convnext.engine.update import out_of_memory
from convnext.errors import DataError
from convnext.tasks.evaluation import Outcomes, metrics

# (network, (N, H, W, C) uint8 images, (N,) labels, (N,) indices, input) -> (N, C, H, W) normalised, made to mislead
Attacker = Callable[[nn.Module, Tensor, Tensor, Tensor, InputConfig], Tensor]


@dataclass(frozen=True)
class Targeted:
    """Images ready for the network with what they should give."""

    x: Tensor  # (N, C, H, W) normalised
    targets: Tensor  # (N, K) probabilities

    def __len__(self) -> int:
        return len(self.x)

    def split(self, size: int) -> Sequence["Targeted"]:
        """Pieces of at most `size` images."""
        return [Targeted(*pair) for pair in zip(self.x.split(size), self.targets.split(size), strict=True)]


class Classification:
    """The task that `engine.fit` trains when the data are images in classes."""

    metric = "top1"
    smaller, exact = "a smaller --size (input.size_px)", True

    def __init__(self, model: nn.Module, recipe: ClassificationRecipe, options: RunOptions, splits: Splits):
        self.model, self.recipe, self.options = model, recipe, options
        self.train, self.val, self.val_share = splits.train, splits.val, splits.val_share
        self.steps_per_epoch = steps_in_epoch(len(self.train.entries), recipe.optim.batch)
        self.chance_loss = math.log(len(self.train.classes))
        self.skipped: dict[str, str] = {}  # path -> reason, of every image that broke

    def batches(self, steps: range, world: World) -> Iterator[Batch]:
        """This process's share of the batches of `steps`; a broken image is named once, counted and replaced."""
        batches = train_batches(
            self.train,
            self.recipe,
            steps=steps,
            steps_per_epoch=self.steps_per_epoch,
            size_at=self.size_at,
            share=(world.rank, world.size),
            workers=self.options.workers,
            cache=self.options.cache,
            strict=self.options.strict_images,
        )
        for batch in batches:
            note_skipped(batch, self.skipped)
            yield batch

    def size_at(self, step: int) -> int:
        """Side in pixels of the training crop at `step`: small first where the recipe is progressive."""
        done = step / total_steps(self.steps_per_epoch, self.recipe.schedule)
        for share, size_px in self.recipe.input.progressive:
            if done < share:
                return size_px
        return self.recipe.input.size_px

    def prepare(self, batch: Batch, *, step: int, rank: int, device: torch.device) -> Targeted:
        """To the device, normalised, mixed and with soft targets."""
        x = normalise(batch.images.to(device, non_blocking=True), self.recipe.input)
        labels = batch.labels.to(device, non_blocking=True)
        seed = (self.recipe.seed, step, rank)
        return Targeted(*mix(x, labels, len(self.train.classes), self.recipe.augment, seed))

    def loss(self, network: nn.Module, piece: Targeted) -> Tensor:
        """Cross-entropy against soft targets, in float32, mean over the images."""
        return F.cross_entropy(network(piece.x).float(), piece.targets)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Top-1, top-5, loss and calibration error on the held-out images."""
        outcomes = evaluate(
            model,
            self.val,
            self.recipe.input,
            batch=eval_batch(self.recipe),
            workers=self.options.workers,
            world=world,
            skipped=self.skipped,
            progress=self.options.progress,
        )
        return metrics(outcomes)

    def names(self, batch: Batch) -> list[str]:
        """The files that a batch was made of."""
        return [printable(self.train.entries[i].path) for i in batch.indices.tolist()]

    def describe(self) -> dict[str, Any]:
        """Class names, the fingerprint of the training set, and how it was parted from the held-out one."""
        return {
            "task": "classification",
            "classes": list(self.train.classes),
            "images": fingerprint(self.train),
            "val_share": self.val_share,
        }


def held_out(data: Source, metadata: Mapping[str, Any]) -> Dataset | None:
    """What a run, by its checkpoint's `metadata`, held out of `data` when it parted this one folder itself; else None.

    The rest of the folder it has learnt by heart, so a score on that says nothing.
    """
    if metadata.get("val_share") is None:
        return None
    with contextlib.suppress(DataError):  # data that could not be trained on may well be evaluated on
        splits = open_splits(data, val_share=metadata["val_share"], seed=metadata["recipe"]["seed"])
        if fingerprint(splits.train) == metadata["images"]:
            held, learnt = len(splits.val.entries), len(splits.train.entries)
            info(f"The run was trained on {learnt:,} of these images: scoring the {held:,} that it held out.")
            return splits.val
    return None


def fingerprint(dataset: Dataset) -> str:
    """A hash that tells this set of images from another; the same on every machine."""
    listing = "\n".join(f"{entry.path}\t{entry.label}" for entry in dataset.entries)
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:16]


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
            note_skipped(raw, skipped if skipped is not None else {})
            if len(raw.labels):
                images = raw.images.to(device)
                x = attack(model, images, raw.labels, raw.indices, config) if attack else normalise(images, config)
                parts.append(Outcomes.of(restricted(_logits(model, x), only), raw.labels, raw.indices))
    parts = [part for gathered in world.gather(parts) for part in gathered]
    if not parts:
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return Outcomes.join(parts)


def restricted(logits: Tensor, only: Sequence[int]) -> Tensor:
    """(N, K) logits with every class that is not in `only` at minus infinity; as they are where `only` is empty."""
    if not only:
        return logits
    out = torch.full_like(logits, -torch.inf)
    out[:, list(only)] = logits[:, list(only)]
    return out


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    """`model(x)`, by halves where the whole does not fit in memory: evaluation must not end a run that trains."""
    try:
        return model(x)
    except Exception as error:
        if not out_of_memory(error) or len(x) == 1:
            raise
    return torch.cat([_logits(model, half) for half in x.chunk(2)])


def note_skipped(batch: Batch | DenseBatch, skipped: dict[str, str]) -> None:
    """Say each broken image once, and keep it with its reason."""
    for path, reason in batch.skipped:
        if path not in skipped:
            skipped[path] = reason
            warn(f"Skipped '{printable(path)}': {reason}")


def eval_batch(recipe: ClassificationRecipe) -> int:
    """Images per forward pass in evaluation; no gradients, so more fit than in training."""
    return min(256, max(16, 3 * recipe.optim.batch // 2))
