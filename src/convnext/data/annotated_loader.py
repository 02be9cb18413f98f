"""Batches of samples in an order that depends on nothing but (seed, step), as `data/loader.py` has for images alone.

The order of epoch e is a permutation from (seed, e); step s takes its slice of it, and each rank its slots of that.
Masks travel between processes as bits: at full size they would be most of what is sent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.data.annotated import files_of
from convnext.data.annotated_policy import Key
from convnext.data.dataset import Change, DenseDataset, read_sample
from convnext.data.sample import Sample
from convnext.data.sampler import EachOnce
from convnext.data.slots import slots_of
from convnext.data.store import printable
from convnext.data.stores.shards import expect
from convnext.data.workers import Replacing, Share, choose_workers, eval_plan, read_ahead
from convnext.errors import DataError, reason_of

Train = Callable[[Sample, Key], Sample]  # such as partial(train_dense, config=...), called with the sample and its key


@dataclass(frozen=True)
class DenseBatch:
    """The images of one step on this rank. They differ in size: `transforms.stacked` makes one array of them."""

    samples: tuple[Sample, ...]
    indices: tuple[int, ...]  # into dataset.entries
    skipped: tuple[tuple[str, str], ...] = ()  # (path, reason) of images that broke while this batch was read


def train_dense_batches(
    dataset: DenseDataset,
    change: Train,
    *,
    batch: int,
    seed: int,
    steps: range,
    steps_per_epoch: int,
    slots: NDArray[np.int64] | None = None,
    world: int = 1,
    workers: int = 0,
    channels: int = 3,
    masks: bool = True,
    strict: bool = False,
) -> Iterator[DenseBatch]:
    """One batch for each of `steps`: the images of (N,) `slots`, those of this one of `world` processes (None: all).

    `batch` is that of all of them together, `change` what happens to each image.

    An image that breaks is replaced by the next one of the epoch's order and named in `skipped`; with `strict` it
    raises DataError. Raises DataError when no image can be read at all.
    """
    if not dataset.entries:
        raise DataError("there are no images to train on.")
    order = _Order(seed, steps_per_epoch, batch, slots_of(batch, (0, 1)) if slots is None else slots)
    reader = _TrainReader(dataset, change, order, channels, masks, strict)
    yield from _read(reader, steps, choose_workers(workers, len(dataset.entries), world), world)


def eval_dense_batches(
    dataset: DenseDataset,
    change: Change,
    *,
    batch: int,
    share: Share = (0, 1),
    workers: int = 0,
    channels: int = 3,
    masks: bool = True,
) -> Iterator[DenseBatch]:
    """Every image of this rank's share once, in order. Broken ones are left out and named in `skipped`.

    A batch can be short, and even empty, where images broke.
    """
    plan, world = eval_plan(len(dataset.entries), batch, share), share[1]
    own = sum(last - first for first, last in plan)
    reader = _EvalReader(dataset, change, channels, masks)
    yield from _read(reader, plan, choose_workers(workers, own, world), world)


@dataclass(frozen=True)
class _Order:
    """What decides which images a step takes."""

    seed: int
    steps_per_epoch: int
    batch: int
    slots: NDArray[np.int64]

    def places(self, step: int) -> tuple[int, list[int]]:
        """(epoch, positions in its order) of the images of a step on this rank."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return epoch, (place * self.batch + self.slots).tolist()


class _TrainReader:
    """step -> batch. Runs in the workers; a DataError is returned, so that it crosses to us as one line."""

    def __init__(
        self,
        dataset: DenseDataset,
        change: Train,
        order: _Order,
        channels: int,
        masks: bool,
        strict: bool,
    ):
        self.dataset, self.change, self.order = dataset, change, order
        self.channels, self.masks = channels, masks
        self.replacing = Replacing(dataset.entries, order.seed, EachOnce(len(dataset.entries), order.seed), strict)

    def __len__(self) -> int:
        return len(self.dataset.entries)

    def expect(self, items: Sequence[int]) -> None:
        """As `Reader` has it."""
        expect(
            self.dataset.store, lambda: [path for step in items for path in _files(self.dataset, self._indices(step))]
        )

    def _indices(self, step: int) -> list[int]:
        epoch, places = self.order.places(step)
        return [self.replacing.found(epoch, place)[2] for place in places]

    def __getitem__(self, step: int) -> "_Packed | DataError":
        epoch, places = self.order.places(step)
        found: list[tuple[int, Sample]] = []
        skipped: dict[str, str] = {}
        try:
            for place in places:
                found.append(self.replacing.read(epoch, place, skipped, self._sample))
        except DataError as error:
            return error
        return _packed([sample for _, sample in found], [index for index, _ in found], skipped)

    def _sample(self, index: int, key: tuple[int, ...]) -> Sample:
        how: dict[str, Any] = {"channels": self.channels, "masks": self.masks}
        return read_sample(self.dataset, index, **how, change=lambda sample: self.change(sample, key))


class _EvalReader:
    """(first, last) -> batch of those entries."""

    def __init__(self, dataset: DenseDataset, change: Change, channels: int, masks: bool):
        self.dataset, self.change, self.channels, self.masks = dataset, change, channels, masks

    def __len__(self) -> int:
        return len(self.dataset.entries)

    def expect(self, items: Sequence[tuple[int, int]]) -> None:
        """As `Reader` has it."""
        expect(self.dataset.store, lambda: [path for each in items for path in _files(self.dataset, range(*each))])

    def __getitem__(self, item: tuple[int, int]) -> "_Packed":
        samples: list[Sample] = []
        indices: list[int] = []
        skipped: dict[str, str] = {}
        for index in range(*item):
            try:
                how: dict[str, Any] = {"channels": self.channels, "masks": self.masks, "change": self.change}
                samples.append(read_sample(self.dataset, index, **how))
                indices.append(index)
            except (DataError, OSError) as error:
                skipped[printable(self.dataset.entries[index].path)] = reason_of(error)
        return _packed(samples, indices, skipped)


def _files(dataset: DenseDataset, indices: Sequence[int]) -> list[str]:
    """What `read_sample` reads of these."""
    return [path for index in indices for path in files_of(dataset.entries[index])]


@dataclass(frozen=True)
class _Packed:
    """A batch on its way between processes."""

    batch: DenseBatch  # without masks
    masks: tuple[tuple[np.ndarray, tuple[int, ...]] | None, ...]  # bits, shape


def _packed(samples: Sequence[Sample], indices: Sequence[int], skipped: dict[str, str]) -> _Packed:
    bare, masks = [], []
    for sample in samples:
        found, bits = sample.instances, None
        if found is not None and found.masks is not None:
            bits = (np.packbits(found.masks), found.masks.shape)
            found = replace(found, masks=None)
        semantic = None if sample.semantic is None else np.ascontiguousarray(sample.semantic)
        bare.append(replace(sample, image=np.ascontiguousarray(sample.image), instances=found, semantic=semantic))
        masks.append(bits)
    return _Packed(DenseBatch(tuple(bare), tuple(indices), tuple(skipped.items())), tuple(masks))


def _unpacked(packed: _Packed) -> DenseBatch:
    samples = []
    for sample, bits in zip(packed.batch.samples, packed.masks, strict=True):
        if bits is not None and sample.instances is not None:
            masks = np.unpackbits(bits[0], count=int(np.prod(bits[1]))).reshape(bits[1])
            sample = replace(sample, instances=replace(sample.instances, masks=masks))
        samples.append(sample)
    return replace(packed.batch, samples=tuple(samples))


def _read(reader: _TrainReader | _EvalReader, plan: Sequence[Any], workers: int, world: int) -> Iterator[DenseBatch]:
    """Arrays cross as bytes of a pipe, so that they need no shared memory and there is nothing to pin."""
    for packed in read_ahead(reader, plan, workers, 0, world, pin=False):
        yield _unpacked(packed)
