"""Batches of samples depend on seed and step alone, whoever reads them and wherever a run was stopped."""

from functools import partial
from itertools import islice

import numpy as np
import pytest

from convnext.config import AnnotatedAugment, AnnotatedInput
from convnext.data import dataset as reading
from convnext.data.annotated_loader import DenseBatch, eval_dense_batches, train_dense_batches
from convnext.data.annotated_policy import Key, eval_dense, train_dense
from convnext.data.formats.coco import open_coco
from convnext.data.formats.masks import open_masks
from convnext.data.opening import recognise
from convnext.data.sample import Sample
from convnext.data.slots import slots_of
from convnext.errors import DataError
from dense_images import coco, write_coco, write_maps

CONFIG = AnnotatedInput(short_px=(16, 24))
AUGMENT = AnnotatedAugment(precrop=0.5, precrop_short_px=(20,), precrop_px=(10, 20), photometric=True)


def change(sample: Sample, key: Key) -> Sample:
    return train_dense(sample, CONFIG, AUGMENT, key)


def batches(dataset, steps: range, **options) -> list[DenseBatch]:
    options = {"batch": 2, "seed": 5, "steps_per_epoch": 4} | options
    return list(train_dense_batches(dataset, change, steps=steps, **options))


def same(one: DenseBatch, other: DenseBatch) -> bool:
    assert one.indices == other.indices and one.skipped == other.skipped
    for left, right in zip(one.samples, other.samples, strict=True):
        assert np.array_equal(left.image, right.image) and left.frame == right.frame and left.path == right.path
        assert np.array_equal(left.instances.masks, right.instances.masks)
        assert np.array_equal(left.instances.boxes, right.instances.boxes)
        assert np.array_equal(left.instances.ids, right.instances.ids)
    return True


@pytest.fixture
def dataset(tmp_path):
    return open_coco(recognise(write_coco(tmp_path, coco(8))))["all"]


def test_a_run_that_goes_on_reads_what_an_unbroken_one_does_with_any_number_of_workers(dataset):
    whole = batches(dataset, range(8))
    for workers in (0, 2):
        again = batches(dataset, range(5, 8), workers=workers)
        assert len(again) == 3
        assert all(same(one, other) for one, other in zip(whole[5:], again, strict=True))
    assert not all(np.array_equal(whole[0].samples[0].image, one.samples[0].image) for one in whole[1:])


def test_objects_that_are_drawn_a_few_at_a_time_are_the_same_to_the_bit(dataset, monkeypatch):
    whole = batches(dataset, range(8))
    scored = list(eval_dense_batches(dataset, partial(eval_dense, config=CONFIG), batch=2))
    monkeypatch.setattr(reading, "MOST_DRAWN", 1)  # byte: one object at a time
    assert all(same(one, other) for one, other in zip(whole, batches(dataset, range(8)), strict=True))
    again = list(eval_dense_batches(dataset, partial(eval_dense, config=CONFIG), batch=2))
    assert all(same(one, other) for one, other in zip(scored, again, strict=True))
    assert any(len(each.instances) > 1 for batch in whole for each in batch.samples)


def test_an_epoch_shows_every_image_once_and_ranks_share_its_batches(dataset):
    epoch = [index for batch in batches(dataset, range(4)) for index in batch.indices]
    assert sorted(epoch) == list(range(8))
    assert [index for batch in batches(dataset, range(4, 8)) for index in batch.indices] != epoch
    shares = [batches(dataset, range(4), slots=slots_of(2, (rank, 2)), world=2) for rank in (0, 1)]
    assert [one.indices + other.indices for one, other in zip(*shares, strict=True)] == [
        batch.indices for batch in batches(dataset, range(4))
    ]


def test_masks_arrive_as_they_left(dataset):
    [batch] = islice(eval_dense_batches(dataset, lambda sample: sample, batch=8, workers=1), 1)
    for sample in batch.samples:
        assert sample.instances.masks.dtype == np.uint8
        assert sample.instances.masks.sum(axis=(1, 2)).tolist() == [64] * len(sample.instances)
        assert sample.image.flags.c_contiguous


def test_a_broken_image_is_skipped_named_and_replaced_and_strictness_refuses_it(dataset, tmp_path):
    (tmp_path / "images" / "3.png").write_bytes(b"broken")
    read = batches(dataset, range(4))
    assert all(len(batch.samples) == 2 and 2 not in batch.indices for batch in read)
    assert dict(pair for batch in read for pair in batch.skipped) == {
        "images/3.png": "not an image, or damaged in its first bytes"
    }
    with pytest.raises(DataError, match=r"'images/3.png': not an image"):
        batches(dataset, range(4), strict=True, workers=1)
    shown = list(eval_dense_batches(dataset, partial(eval_dense, config=CONFIG), batch=3))
    assert [len(batch.samples) for batch in shown] == [2, 3, 2]
    assert shown[0].indices == (0, 1) and shown[0].skipped[0][0] == "images/3.png"


def test_no_image_at_all_ends_the_run(dataset, tmp_path):
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 8 images can be read"):
        batches(dataset, range(1))


def test_evaluation_shows_every_image_once_in_order_over_all_ranks(dataset):
    seen = [
        index
        for rank in range(3)
        for batch in eval_dense_batches(dataset, partial(eval_dense, config=CONFIG), batch=2, share=(rank, 3))
        for index in batch.indices
    ]
    assert seen == list(range(8))


def test_maps_and_grey_images_are_batched_too(tmp_path):
    maps = {f"{n}": np.full((9, 12), n) for n in range(4)}
    dataset = open_masks(recognise(write_maps(tmp_path, maps), form="masks"))["all"]
    config, augment = AnnotatedInput(short_px=(16,), crop_px=16), AnnotatedAugment(photometric=True)

    def cropped(sample: Sample, key: Key) -> Sample:
        return train_dense(sample, config, augment, key)

    [batch] = train_dense_batches(
        dataset, cropped, batch=4, seed=0, steps=range(1), steps_per_epoch=1, channels=1, workers=1
    )
    for index, sample in zip(batch.indices, batch.samples, strict=True):
        assert sample.image.shape == (16, 16, 1) and sample.instances is None
        assert set(np.unique(sample.semantic)) <= {index, 255}
