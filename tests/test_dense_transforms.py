"""Pixels, boxes, masks and label maps move together, and the same key moves them the same way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext.config import AnnotatedAugment, AnnotatedInput, SegmentationAugment
from convnext.data.annotated_policy import eval_dense, train_dense
from convnext.data.annotated_transforms import crop, distort, fitted, flip, pad, resize, stacked, without_slivers
from convnext.data.masks import boxes_of
from convnext.data.sample import IGNORE, Frame, Sample
from dense_images import rectangles, sample_of

KEYS = st.integers(0, 2**32)
SMALL = (
    AnnotatedInput(short_px=(16, 24, 32), long_px=48),
    AnnotatedAugment(precrop=0.5, precrop_short_px=(20, 30), precrop_px=(10, 25), vflip=0.5),
)
CROPPED = (
    AnnotatedInput(short_px=(24,), long_px=96, crop_px=24),
    SegmentationAugment(scale=(0.5, 2.0), crop_most=0.75, photometric=True),
)


def same(one: Sample, other: Sample) -> bool:
    assert one.instances is not None and other.instances is not None
    assert one.instances.masks is not None and other.instances.masks is not None
    assert one.semantic is not None and other.semantic is not None
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.instances.boxes, other.instances.boxes)
        and np.array_equal(one.instances.masks, other.instances.masks)
        and np.array_equal(one.instances.labels, other.instances.labels)
        and np.array_equal(one.semantic, other.semantic)
        and one.frame == other.frame
    )


def moved_together(sample: Sample, *, within: float = 1.0) -> None:
    """The boxes are those of the masks, and the last object's mask is where the map says its class."""
    found = sample.instances
    assert found is not None and found.masks is not None and sample.semantic is not None
    shape = sample.image.shape[:2]
    assert found.masks.shape == (len(found), *shape) and sample.semantic.shape == shape
    assert len(found.boxes) == len(found.labels) == len(found.crowd) == len(found.area) == len(found.ids)
    seen = found.masks.any(axis=(1, 2))
    assert np.abs(boxes_of(found.masks) - found.boxes)[seen].max(initial=0) <= within
    for label, mask in zip(found.labels, found.masks, strict=True):
        assert (sample.semantic[mask == 1] > label).all()  # its own class, or that of an object drawn over it
    top = np.flatnonzero(found.labels == 2)  # nothing is drawn over this one
    assert np.array_equal(sample.semantic == 3, found.masks[top[0]] == 1 if len(top) else np.zeros(shape, bool))


@given(rectangles(), st.booleans())
def test_flip_twice_is_the_identity_and_flip_once_moves_all_together(sample, vertical):
    once = flip(sample, vertical=vertical)
    moved_together(once, within=0)
    assert np.array_equal(once.image[:, :, 0] == 240, once.semantic == 3)
    assert same(flip(once, vertical=vertical), sample)


@given(rectangles(), st.data())
def test_a_crop_moves_all_together(sample, data):
    height, width = sample.image.shape[:2]
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - size[0])), data.draw(st.integers(0, width - size[1]))
    part = crop(sample, top, left, size)
    moved_together(part, within=0)
    assert np.array_equal(part.image[:, :, 0] == 240, part.semantic == 3)
    assert np.array_equal(part.image, sample.image[top : top + size[0], left : left + size[1]])
    assert part.instances.area.tolist() == part.instances.masks.sum(axis=(1, 2)).tolist()


@given(rectangles(), st.integers(4, 90), st.integers(4, 90))
def test_a_resize_moves_all_together(sample, height, width):
    moved = resize(sample, (height, width))
    assert moved.image.shape == (height, width, 3)
    moved_together(moved)


@given(rectangles(), st.integers(2, 4))
def test_enlarging_by_a_whole_number_repeats_every_marked_pixel(sample, times):
    height, width = sample.image.shape[:2]
    moved = resize(sample, (times * height, times * width))
    assert np.array_equal(moved.instances.masks, sample.instances.masks.repeat(times, 1).repeat(times, 2))
    assert np.array_equal(moved.semantic, sample.semantic.repeat(times, 0).repeat(times, 1))
    assert np.array_equal(moved.instances.boxes, sample.instances.boxes * times)
    assert np.array_equal(moved.instances.area, sample.instances.area * times**2)


@given(rectangles(), st.integers(0, 9), st.integers(0, 9))
def test_padding_adds_pixels_that_belong_to_nothing(sample, below, right):
    height, width = sample.image.shape[:2]
    padded = pad(sample, (height + below, width + right))
    moved_together(padded, within=0)
    assert (padded.semantic == IGNORE).sum() == padded.semantic.size - height * width
    assert same(crop(padded, 0, 0, (height, width)), sample)
    assert padded.content == (0, 0, width, height)


@settings(max_examples=60)
@given(rectangles(), KEYS, st.sampled_from([SMALL, CROPPED]))
def test_training_moves_all_together_and_the_same_key_gives_the_same_sample(sample, key, config):
    drawn = train_dense(sample, *config, (key, 1))
    moved_together(drawn, within=2.0)  # two resizes, each within a pixel of its own size
    assert same(drawn, train_dense(sample, *config, (key, 1)))
    assert drawn.instances.boxes.min(initial=0) >= 0
    assert (drawn.instances.boxes[:, 2:] <= np.array(drawn.image.shape[1::-1])).all()
    if config[0].crop_px:
        assert drawn.image.shape[:2] == (24, 24)
    else:
        assert min(drawn.image.shape[:2]) <= 32 and max(drawn.image.shape[:2]) <= 48


def test_other_keys_give_other_samples():
    sample = sample_of(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), np.ones((1, 30, 40), np.uint8))
    seen = {train_dense(sample, *SMALL, (0, key)).image.tobytes() for key in range(20)}
    assert len(seen) > 10  # without a crop there are twelve ways: three sizes, two flips


@given(rectangles(), KEYS)
def test_the_frame_leads_back_to_the_original_pixels(sample, key):
    """Whatever happened: a pixel's centre here, taken back, lies in the original pixel that it shows."""
    height, width = sample.image.shape[:2]
    sample = replace(sample, semantic=np.arange(height * width).reshape(height, width).astype(np.uint16))
    moved = train_dense(sample, *SMALL, (key,))
    h, w = moved.image.shape[:2]
    y, x = np.mgrid[:h, :w] + 0.5
    points = np.stack([x, y, x, y], axis=-1).reshape(-1, 4)
    back = moved.frame.back(points)
    shown_y, shown_x = np.divmod(moved.semantic.reshape(-1).astype(np.float64), width)
    assert np.abs(back[:, 0] - (shown_x + 0.5)).max() <= 1.5  # nearest of nearest: half a pixel of each step
    assert np.abs(back[:, 1] - (shown_y + 0.5)).max() <= 1.5
    assert np.allclose(moved.frame.forward(back), points)
    assert moved.content == (0, 0, w, h)


def test_a_frame_is_its_steps_one_after_the_other():
    frame = Frame().then(2, 3, 0, 0).then(1, 1, -4, -5).then(-1, 1, 20, 0)
    boxes = np.array([[3.0, 4.0, 6.0, 8.0]])
    assert frame.forward(boxes).tolist() == [[12.0, 7.0, 18.0, 19.0]]
    assert frame.back(frame.forward(boxes)).tolist() == boxes.tolist()


def test_a_cut_object_without_a_mask_keeps_its_share_of_the_area_and_one_outside_is_gone():
    sample = sample_of(np.zeros((10, 20, 3), np.uint8), np.zeros((2, 10, 20), np.uint8))
    boxes = np.array([[0, 0, 10, 10], [12, 2, 16, 6]], np.float32)
    found = replace(sample.instances, boxes=boxes, masks=None, area=np.array([60, 16], np.float32))
    part = crop(replace(sample, instances=found), 0, 5, (10, 6)).instances
    assert part.boxes.tolist() == [[0, 0, 5, 10]]
    assert part.area.tolist() == [30] and part.ids.tolist() == [1] and part.masks is None


def test_an_object_whose_mask_is_cut_gets_the_box_of_what_is_left():
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, :, 0] = mask[0, 0, :] = 1  # an L on its head
    part = crop(sample_of(np.zeros((10, 10, 3), np.uint8), mask), 0, 2, (10, 8)).instances
    assert part.boxes.tolist() == [[0, 0, 8, 1]] and part.area.tolist() == [8]
    gone = crop(sample_of(np.zeros((10, 10, 3), np.uint8), mask), 2, 2, (8, 8)).instances
    assert len(gone) == 0 and gone.masks.shape == (0, 8, 8)  # the box reaches in, the mask does not


def test_slivers_are_left_out():
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[0, 1:4, 1:4] = masks[2, 6, 6] = 1
    sample = sample_of(np.zeros((8, 8, 3), np.uint8), masks)
    boxes = sample.instances.boxes.copy()
    boxes[1] = [0, 0, 8, 8]  # a box without a pixel in its mask
    boxes[2] = [6, 6, 6.5, 7]
    kept = without_slivers(replace(sample, instances=replace(sample.instances, boxes=boxes)))
    assert kept.instances.ids.tolist() == [1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((400, 1200), (444, 1333)), ((800, 800), (800, 800))],
)
def test_an_image_is_fitted_into_800_by_1333_as_the_paper_does(size, expected):
    assert fitted(size, 800, 1333) == expected
    sample = Sample(np.zeros((*size, 3), np.uint8), None, None, "x", 1, size)
    assert eval_dense(sample, AnnotatedInput()).image.shape[:2] == expected
    assert eval_dense(sample, AnnotatedInput(), factor=0.5, mirrored=True).image.shape[0] == pytest.approx(
        expected[0] / 2, abs=0.51
    )


def test_a_crop_that_one_class_fills_is_sampled_again():
    semantic = np.zeros((40, 400), np.uint8)
    semantic[:, 200:] = np.arange(200) // 4 % 2 + 1  # stripes on the right, nothing on the left
    sample = Sample(np.zeros((40, 400, 3), np.uint8), None, semantic, "x", 1, (40, 400))
    config = AnnotatedInput(short_px=(40,), long_px=400, crop_px=20)
    augment = SegmentationAugment(hflip=0)
    picky = augment.model_copy(update={"crop_most": 0.75})

    def full(one: SegmentationAugment) -> int:
        maps = (train_dense(sample, config, one, (key,)).semantic for key in range(60))
        return sum(np.bincount(drawn.ravel()).max() > 0.75 * 400 for drawn in maps)

    assert full(augment) > 15 and full(picky) <= 2


def test_large_scale_jitter_shrinks_pads_enlarges_and_cuts():
    config, augment = AnnotatedInput(short_px=(64,), long_px=64, crop_px=64), AnnotatedAugment(scale=(0.1, 2.0))
    sample = sample_of(np.full((32, 32, 3), 9, np.uint8), np.ones((1, 32, 32), np.uint8))
    drawn = [train_dense(sample, config, augment, (key,)) for key in range(40)]
    assert all(one.image.shape == (64, 64, 3) for one in drawn)
    scales = [one.frame.scale_y for one in drawn]
    assert min(scales) < 0.5 and max(scales) > 3.5
    for one in drawn:
        shown = one.instances.masks.sum() if len(one.instances) else 0
        assert shown == (one.image == 9).all(axis=2).sum()


def test_distortion_leaves_shape_and_grey_images_alone_and_off_is_off():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (9, 8, 3), np.uint8)
    assert np.array_equal(distort(image, [0.9] * 9), image)
    for number in range(50):
        sampled = rng.random(9).tolist()
        assert distort(image, sampled).shape == image.shape and distort(image, sampled).dtype == np.uint8
        grey = distort(image[:, :, :1], sampled)
        assert grey.shape == (9, 8, 1), number


def test_distortion_does_what_it_says_to_one_colour():
    red = np.full((1, 1, 3), (200, 50, 50), np.uint8)
    off = 0.9

    def colour(**sampled: float) -> list[int]:
        names = ("bright", "by", "contrast", "times", "saturate", "much", "turn", "far", "first")
        return distort(red, [sampled.get(name, off) for name in names])[0, 0].tolist()

    assert colour(bright=0, by=1) == [232, 82, 82]
    assert colour(contrast=0, times=0) == [100, 25, 25]
    assert colour(contrast=0, times=1) == [255, 75, 75]
    assert colour(saturate=0, much=0) == pytest.approx([200, 125, 125], abs=2)
    assert colour(turn=0, far=1) == pytest.approx([200, 140, 50], abs=4)  # 36 degrees towards yellow


def test_images_of_different_sizes_become_one_array():
    batch = stacked([np.full((5, 40, 3), 7, np.uint8), np.full((33, 6, 3), 8, np.uint8)], 32)
    assert batch.shape == (2, 64, 64, 3)
    assert (batch[0, :5, :40] == 7).all() and (batch[1, :33, :6] == 8).all()
    assert batch[0, 63, 63].tolist() == [124, 116, 104]
