"""The order of a class-balanced run: every class as often, no image of a large class twice before all came once."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext.config import ConvNeXtConfig, override
from convnext.data.labelled import Dataset, Entry
from convnext.data.loader import train_batches
from convnext.data.opening import open_splits, recognise
from convnext.data.sampler import EachClassAlike, EachOnce, order_for
from convnext.data.slots import slots_of
from convnext.recipes import recipe
from images import write_colours

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(sum)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(0, 2**63), st.integers(0, 5))
def test_every_class_with_images_is_seen_as_often_in_every_stretch_of_an_epoch(sizes, seed, epoch):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    seen = labels[EachClassAlike(labels, seed)(epoch, 0)]
    held = sum(size > 0 for size in sizes)
    assert len(seen) == len(labels)
    for end in range(1, len(seen) + 1):  # turn by turn: at no place is a class more than one behind another
        counts = Counter(seen[:end].tolist())
        assert max(counts.values()) - (min(counts.values()) if len(counts) == held else 0) <= 1


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(0, 1000))
def test_images_of_a_class_come_round_and_none_comes_a_second_time_before_all_came_once(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = EachClassAlike(labels, seed)
    large = [label for label, size in enumerate(sizes) if size > order.turns]
    whole = order.turns * len(order.images) == len(labels)  # no turn is cut short at the end of an epoch
    epochs = np.concatenate([order(epoch, 0) for epoch in range(4)])
    for label in large if whole else ():
        counts = np.bincount(epochs[labels[epochs] == label], minlength=len(labels))[labels == label]
        assert counts.max() - counts.min() <= 1
    for label in set(labels.tolist()) - set(large):
        counts = np.bincount(order(1, 0), minlength=len(labels))[labels == label]
        assert counts.max() - counts.min() <= 1 + (not whole)


def test_an_order_is_a_function_of_seed_epoch_and_lap():
    labels = np.repeat([0, 1, 2], [40, 5, 2])
    one, other = EachClassAlike(labels, 7), EachClassAlike(labels, 7)
    other(0, 0), other(5, 0), other(6, 0), other(8, 0), other(9, 0)  # what was asked before does not matter
    assert np.array_equal(one(3, 0), other(3, 0))
    for differs in (one(4, 0), one(3, 1), EachClassAlike(labels, 8)(3, 0)):
        assert not np.array_equal(one(3, 0), differs)


def test_without_balance_the_order_is_the_permutation_that_it_was():
    order = order_for([0, 0, 1, 1, 1], 3, balanced=False)
    assert isinstance(order, EachOnce) and not order.repeats
    assert order(2, 0).tolist() == np.random.default_rng([3, 2, 0]).permutation(5).tolist()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """14 red images and 2 green ones."""
    folder = write_colours(tmp_path_factory.mktemp("uneven"), train=14, val=1, classes=2)
    found = open_splits(recognise(folder)).train
    greens = [entry for entry in found.entries if entry.label == 0][:2]
    kept = [entry for entry in found.entries if entry.label == 1]
    return Dataset(found.classes, tuple([*greens, *kept]), found.store)


def batches(data: Dataset, share: tuple[int, int] = (0, 1), steps: range = range(6)) -> list[list[tuple[int, bytes]]]:
    """(index, pixels) of every image of every step of this rank."""
    chosen = recipe("small", "atto", images=16, image_px=24, classes=2)
    network = ConvNeXtConfig(depths=(1, 1), widths=(8, 12), patch=2, classes=2)
    chosen = override(
        chosen.model_copy(update={"model": network}), {"optim.batch": 8, "input.size_px": 16, "loss.balance": "sampler"}
    )
    how = {
        "steps": steps,
        "steps_per_epoch": 2,
        "size_at": lambda step: 16,
        "slots": slots_of(8, share),
        "world": share[1],
    }
    return [
        [(int(i), image.numpy().tobytes()) for i, image in zip(batch.indices, batch.images, strict=True)]
        for batch in train_batches(data, chosen, **how)
    ]


def test_batches_of_a_balanced_run_hold_each_class_as_often_and_no_two_views_of_an_image_are_alike(uneven):
    found = batches(uneven)
    for batch in found:
        labels = [uneven.entries[index].label for index, _ in batch]
        assert labels.count(0) == labels.count(1) == 4
    every = [pair for batch in found for pair in batch]
    assert len(set(every)) == len(every)  # an image that comes twice in an epoch is cut and turned anew


def test_ranks_and_restarts_see_the_images_of_one_process(uneven):
    whole = batches(uneven)
    halves = [batches(uneven, (rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    assert batches(uneven, steps=range(3, 6)) == whole[3:]


def test_a_broken_image_of_a_balanced_run_is_replaced_and_named(uneven, tmp_path):
    broken = Dataset(uneven.classes, (*uneven.entries, Entry("train/none.png", 0)), uneven.store)
    assert {index for batch in batches(broken) for index, _ in batch} <= set(range(len(uneven.entries)))
