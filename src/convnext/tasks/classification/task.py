"""Image classification: how a batch becomes a loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ClassificationRecipe, RunOptions
from convnext.data.batch import Batch
from convnext.data.labelled import Splits, counts_of
from convnext.data.loader import steps_in_epoch, train_batches
from convnext.data.mix import mix
from convnext.data.slots import slots_of
from convnext.data.store import printable
from convnext.data.transforms import normalise
from convnext.engine.distributed import World
from convnext.engine.schedule import total_steps
from convnext.errors import ConvNeXtError
from convnext.kernels.transfer import sent
from convnext.tasks.balance import Balance, balance_of
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.metrics import metrics
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.scoring import evaluate
from convnext.tasks.skipped import note_skipped


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

    def tensors(self) -> tuple[Tensor, ...]:
        """Images and targets."""
        return self.x, self.targets


class Classification:
    """The task that `engine.fit` trains when the data are images in classes."""

    smaller, varies, exact = "a smaller --size (input.size_px)", "", True

    def __init__(self, model: nn.Module, recipe: ClassificationRecipe, options: RunOptions, splits: Splits):
        if splits.train.several != (recipe.labels == "multi"):
            held = "several labels" if splits.train.several else "one label"
            raise ConvNeXtError(
                f"recipe '{recipe.name}' has labels = '{recipe.labels}', and the data have {held} an image. Give a recipe of "
                "these, or its name; --labels says how data are to be read."
            )
        self.model, self.recipe, self.options = model, recipe, options
        self.given, self.drawn, self.columns = splits.given, splits.drawn, dict(splits.columns)
        self.train, self.val, self.val_share, self.fold = splits.train, splits.val, splits.val_share, splits.fold
        self.steps_per_epoch = steps_in_epoch(len(self.train.entries), recipe.optim.batch)
        self.metric: str = recipe.select.metric
        counts = torch.from_numpy(counts_of(self.train))
        sampled = recipe.loss.balance == "sampler"  # the batches are balanced then
        self.balance = Balance() if sampled else balance_of(recipe.loss, counts)
        self.chance_loss = self.balance.of_knowing_nothing(counts)
        self.skipped: dict[str, str] = {}  # path -> reason, of every image that broke

    def slots(self, world: World) -> NDArray[np.int64]:
        """Of the images of a step, those of this process: pairs where images are mixed."""
        augment = self.recipe.augment
        mixed = bool(augment.mixup or augment.cutmix)
        return slots_of(self.recipe.optim.batch, (world.rank, world.size), paired=mixed)

    def batches(self, steps: range, world: World) -> Iterator[Batch]:
        """This process's share of the batches of `steps`; a broken image is named once, counted and replaced."""
        batches = train_batches(
            self.train,
            self.recipe,
            steps=steps,
            steps_per_epoch=self.steps_per_epoch,
            size_at=self.size_at,
            slots=self.slots(world),
            world=world.size,
            workers=self.options.workers,
            cache=self.options.cache,
            strict=self.options.strict_images,
        )
        for batch in batches:
            note_skipped(batch.skipped, self.skipped)
            yield batch

    def size_at(self, step: int) -> int:
        """Side in pixels of the training crop at `step`: small first where the recipe is progressive."""
        done = step / total_steps(self.steps_per_epoch, self.recipe.schedule)
        for share, size_px in self.recipe.input.progressive:
            if done < share:
                return size_px
        return self.recipe.input.size_px

    def prepare(self, batch: Batch, *, step: int, slots: NDArray[np.int64], device: torch.device) -> Targeted:
        """To the device, normalised, mixed and with soft targets."""
        x, labels = normalise(sent(batch.images, device), self.recipe.input), sent(batch.labels, device)
        seed = (self.recipe.seed, step, 0)
        x, targets = mix(x, labels, len(self.train.classes), self.recipe.augment, seed, slots)
        return Targeted(x, self.balance.targets(targets, self.recipe.augment.smoothing))

    def loss(self, network: nn.Module, piece: Targeted) -> Tensor:
        """Cross-entropy against soft targets, in float32, mean over the images; balanced as the recipe has it."""
        return F.cross_entropy(self.balance.logits(network(piece.x).float()), piece.targets)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Top-1, top-5, loss and calibration error on the held-out images."""
        return metrics(evaluate(model, self.val, self.recipe, self.passing, world=world))

    @property
    def passing(self) -> Pass:
        """How the held-out images are looked at while it trains."""
        return Pass(self.options.workers, progress=self.options.progress, skipped=self.skipped)

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
            **({"drawn": self.drawn} if self.drawn else {}),
            **({"columns": self.columns} if self.columns else {}),
            **({} if self.fold is None else {"fold": list(self.fold)}),
            **({} if self.given is None else {"given": fingerprint(self.given)}),
        }
