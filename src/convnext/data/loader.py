"""Batches in an order that depends on nothing but (seed, step): any number of workers, any restart, the same images.

The order of epoch e follows from (seed, e) (`sampler`); step s takes its slice of it, and each rank its slots of that.
One DataLoader serves all the steps, so that reading ahead runs on through the end of an epoch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import ClassificationRecipe, InputConfig
from convnext.data.augment import prepared
from convnext.data.bands import kind_of_pixels, read_pixels
from convnext.data.batch import Batch
from convnext.data.cache import ImageCache, make_cache
from convnext.data.decode import Opened
from convnext.data.evaluation import Change, shown
from convnext.data.jpeg import is_jpeg, reduction
from convnext.data.labelled import Dataset
from convnext.data.sampler import order_for
from convnext.data.slots import slots_of
from convnext.data.stores.shards import expect
from convnext.data.transforms import crop_and_augment, crop_box, least_px, scaled_box, view_chances
from convnext.data.workers import Replacing, Share, choose_workers, eval_plan, local_ranks, read_ahead
from convnext.errors import DataError


def steps_in_epoch(count: int, batch: int) -> int:
    """Whole batches in `count` images, the rest dropped; one where there are fewer images than a batch."""
    return max(1, count // batch)


def train_batches(
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    steps: range,
    steps_per_epoch: int,
    size_at: Callable[[int], int],
    slots: NDArray[np.int64] | None = None,
    world: int = 1,
    workers: int = 0,
    cache: Literal["auto", "off", "on"] = "auto",
    strict: bool = False,
) -> Iterator[Batch]:
    """One batch for each of `steps`: the images of (N,) `slots`, those of this one of `world` processes (None: all).

    `size_at` gives the pixels of each step.

    An image that breaks is replaced by the next one of the epoch's order and named in `skipped`; with `strict` it
    raises DataError. Raises DataError when no image can be read at all.
    """
    if not dataset.entries:
        raise DataError("there are no images to train on.")
    own = slots_of(recipe.optim.batch, (0, 1)) if slots is None else slots
    plan = [(step, size_at(step)) for step in steps]
    for size_px in sorted({size_px for _, size_px in plan}):
        if recipe.augment.rand_augment:
            prepared(recipe.augment.rand_augment, size_px, recipe.input.mean)  # once, before the workers fork
    channels = len(recipe.input.mean)
    kept = make_cache(dataset, recipe.input, cache, local_ranks(world))
    reader = _TrainReader(dataset, recipe, steps_per_epoch, own, kept, strict)
    largest = max((size_px for _, size_px in plan), default=1) ** 2 * channels * len(own)
    largest *= kind_of_pixels(recipe.input).itemsize
    yield from read_ahead(reader, plan, choose_workers(workers, len(dataset.entries), world), largest, world)


def eval_batches(
    dataset: Dataset,
    config: InputConfig,
    *,
    batch: int,
    share: Share = (0, 1),
    workers: int = 0,
    change: Change | None = None,
) -> Iterator[Batch]:
    """Every image of this rank's share once, in order. Broken ones are left out and named in `skipped`.

    A batch can be short, and even empty, where images broke. `change`, such as a corruption, comes after the crop.
    """
    plan, world = eval_plan(len(dataset.entries), batch, share), share[1]
    own = sum(last - first for first, last in plan)
    size = config.eval_size_px**2 * len(config.mean) * batch * kind_of_pixels(config).itemsize
    reader = _EvalReader(dataset, config, change)
    yield from read_ahead(reader, plan, choose_workers(workers, own, world), size, world)


class _TrainReader:
    """(step, size) -> Batch. Runs in the workers; a DataError is returned, so that it crosses to us as one line."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: ClassificationRecipe,
        steps_per_epoch: int,
        slots: NDArray[np.int64],
        cache: ImageCache | None,
        strict: bool,
    ):
        self.dataset, self.recipe, self.steps_per_epoch = dataset, recipe, steps_per_epoch
        self.slots, self.cache = slots, cache
        self.channels = len(recipe.input.mean)
        order = order_for(dataset.labels(), recipe.seed, balanced=recipe.loss.balance == "sampler")
        self.replacing = Replacing(dataset.entries, recipe.seed, order, strict)

    def __len__(self) -> int:
        return len(self.dataset.entries)

    def expect(self, items: Sequence[tuple[int, int]]) -> None:
        """As `Reader` has it; of images in the cache nothing is read."""
        expect(self.dataset.store, lambda: [path for step, _ in items for path in self._paths(step)])

    def _paths(self, step: int) -> list[str]:
        epoch, start = self._start(step)
        indices = [self.replacing.found(epoch, start + slot)[2] for slot in self.slots.tolist()]
        unread = [index for index in indices if self.cache is None or self.cache.header(index) is None]
        return [self.dataset.entries[index].path for index in unread]

    def _start(self, step: int) -> tuple[int, int]:
        """(epoch, position in its order of the first image) of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return epoch, place * self.recipe.optim.batch

    def __getitem__(self, item: tuple[int, int]) -> Batch | DataError:
        step, size_px = item
        epoch, start = self._start(step)
        images = np.empty((len(self.slots), size_px, size_px, self.channels), kind_of_pixels(self.recipe.input))
        indices: list[int] = []
        skipped: dict[str, str] = {}
        try:
            for i, slot in enumerate(self.slots.tolist()):
                index, images[i] = self.replacing.read(
                    epoch, start + slot, skipped, lambda index, key: self._image(index, key, size_px)
                )
                indices.append(index)
        except DataError as error:
            return error
        return _batch(self.dataset, torch.from_numpy(images), indices, skipped)

    def _image(self, index: int, key: tuple[int, ...], size_px: int) -> np.ndarray:
        augment, config = self.recipe.augment, self.recipe.input
        header = self.cache.header(index) if self.cache else None
        opened = image = None
        if header is None:
            data = self.dataset.store.read(self.dataset.entries[index].path)
            if is_jpeg(data) and not config.bands:  # its size decides how much of it to decode
                opened = Opened(data)
                header = opened.header
            else:
                image = read_pixels(data, config)
                header = (image.shape[0], image.shape[1], False)
        height, width, reducible = header
        sampled = view_chances(key, augment)
        box = crop_box(height, width, augment.scale, augment.ratio, sampled)
        least = least_px(height, width, box, size_px)
        divisor = reduction(height, width, least) if reducible else 1
        kept = self.cache.get(index, divisor) if self.cache and image is None else None
        if kept is not None:
            image = kept
        elif image is None:
            opened = opened or Opened(self.dataset.store.read(self.dataset.entries[index].path))
            image = opened.pixels(channels=self.channels, least_px=least)
        if self.cache and kept is None:
            self.cache.put(index, divisor, image, header)
        box = scaled_box(box, height, width, image.shape[0], image.shape[1])
        return crop_and_augment(image, box, size_px, augment, config, sampled)


class _EvalReader:
    """(first, last) -> Batch of those entries."""

    def __init__(self, dataset: Dataset, config: InputConfig, change: Change | None):
        self.dataset, self.config, self.change = dataset, config, change

    def __len__(self) -> int:
        return len(self.dataset.entries)

    def expect(self, items: Sequence[tuple[int, int]]) -> None:
        """As `Reader` has it."""
        expect(self.dataset.store, lambda: [self.dataset.entries[at].path for each in items for at in range(*each)])

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        found = shown(self.dataset, self.config, range(*item), self.change)
        return _batch(self.dataset, torch.from_numpy(found.images), found.indices, found.skipped)


def _batch(dataset: Dataset, images: Tensor, indices: Sequence[int], skipped: dict[str, str]) -> Batch:
    labels = torch.from_numpy(dataset.labels(indices))
    return Batch(images, labels, torch.tensor(indices, dtype=torch.int64), tuple(skipped.items()))
