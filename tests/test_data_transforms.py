"""Crops follow torchvision's rule, evaluation matches it to the pixel, and every choice comes from its key."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convnext.config import AugmentConfig, InputConfig
from convnext.data.augment import MOVES, Move, prepared
from convnext.data.decode import from_pillow, to_pillow
from convnext.data.evaluation import eval_transform, normalised
from convnext.data.transforms import chances, crop_box, least_px, normalise, scaled_box, train_transform
from convnext.errors import DataError
from convnext.kernels.dispatch import without_compiled

SIDES = st.integers(1, 3000)
SAMPLED = st.lists(st.floats(0, 1, exclude_max=True), min_size=26, max_size=26)
RATIO = (3 / 4, 4 / 3)
PLAIN = AugmentConfig(hflip=0)


def random_image(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


@given(SIDES, SIDES, SAMPLED)
def test_a_crop_lies_in_the_image_and_keeps_area_and_aspect(height, width, sampled):
    top, left, crop_h, crop_w = crop_box(height, width, (0.08, 1.0), RATIO, sampled)
    assert 0 <= top <= top + crop_h <= height
    assert 0 <= left <= left + crop_w <= width
    assert crop_h >= 1 and crop_w >= 1
    if min(crop_h, crop_w) > 100:  # where rounding to whole pixels is small
        assert RATIO[0] * 0.98 <= crop_w / crop_h <= RATIO[1] * 1.02


@given(SIDES, SIDES, SAMPLED)
def test_the_whole_area_is_a_crop_only_where_the_aspect_allows(height, width, sampled):
    _, _, crop_h, crop_w = crop_box(height, width, (1.0, 1.0), RATIO, sampled)
    assert crop_h == height or crop_w == width or crop_h * crop_w >= 0.9 * height * width


@pytest.mark.parametrize("size", [(100, 1000), (1000, 100), (1, 20_000), (1, 1)])
def test_an_image_no_crop_fits_in_gives_its_centre(size):
    from torchvision.transforms import RandomResizedCrop

    box = crop_box(*size, (1.0, 1.0), RATIO, [0.999] * 26)
    assert box == tuple(RandomResizedCrop.get_params(torch.empty(3, *size), [1.0, 1.0], list(RATIO)))


def test_crops_have_the_distribution_of_torchvision():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    shape = torch.empty(1, 90, 160)
    theirs = np.array([RandomResizedCrop.get_params(shape, [0.08, 1.0], list(RATIO)) for _ in range(4000)])
    ours = np.array([crop_box(90, 160, (0.08, 1.0), RATIO, chances((0, 0, index))) for index in range(4000)])
    spread = theirs.std(axis=0) / math.sqrt(4000)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 6 * spread).all()
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.06)


@given(st.integers(1, 2000), st.integers(1, 2000), SAMPLED, st.integers(4, 256))
def test_a_reduced_decode_leaves_the_crop_the_pixels_it_needs(height, width, sampled, size_px):
    box = crop_box(height, width, (0.08, 1.0), RATIO, sampled)
    least = least_px(height, width, box, size_px)
    for divisor in (2, 4, 8):
        if min(height, width) // divisor >= least:
            small_h, small_w = -(-height // divisor), -(-width // divisor)
            top, left, crop_h, crop_w = scaled_box(box, height, width, small_h, small_w)
            assert min(crop_h, crop_w) >= size_px
            assert top >= 0 and left >= 0 and top + crop_h <= small_h and left + crop_w <= small_w


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [32, 96])
def test_a_training_crop_has_the_pixels_of_torchvision_within_rounding(channels, size_px):
    from torchvision.transforms.functional import InterpolationMode, resized_crop

    smooth = Image.fromarray(random_image(14, 18, channels).squeeze()).resize((180, 140), Image.Resampling.BICUBIC)
    source, key = np.array(smooth).reshape(140, 180, channels), (1, 2, 3)
    box = crop_box(140, 180, PLAIN.scale, PLAIN.ratio, chances(key))
    expected = resized_crop(smooth, *box, [size_px, size_px], InterpolationMode.BICUBIC)
    config = InputConfig(mean=(0.5,) * channels, std=(0.5,) * channels)
    ours = train_transform(source, size_px, PLAIN, config, key)
    apart = np.abs(ours.astype(int) - np.asarray(expected).reshape(size_px, size_px, channels))
    assert apart.max() <= 2 and apart.mean() < 0.2
    expected = ours[:, ::-1]
    flipped = train_transform(source, size_px, AugmentConfig(hflip=1), config, key)
    np.testing.assert_array_equal(flipped, expected)
    np.testing.assert_array_equal(
        train_transform(source, size_px, AugmentConfig(hflip=1, vflip=1), config, key), flipped[::-1]
    )


def test_the_key_decides_everything_and_global_random_state_nothing():
    augment = AugmentConfig(rand_augment="rand-m9-mstd0.5-inc1")
    source = random_image(40, 40)
    first = train_transform(source, 24, augment, InputConfig(), (0, 1, 2))
    state = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    again = train_transform(source, 24, augment, InputConfig(), (0, 1, 2))
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    random.seed(5), np.random.seed(5)
    third = train_transform(source, 24, augment, InputConfig(), (0, 1, 2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, third)
    others = [train_transform(source, 24, augment, InputConfig(), (0, 1, index)) for index in range(3, 6)]
    assert all((first != other).any() for other in others)
    assert chances(7) == chances((7,)) != chances((-7,))


def test_alternating_mirror_images_show_both_sides_in_any_two_epochs_and_change_nothing_else():
    source = random_image(40, 40)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    upright = train_transform(source, 40, AugmentConfig(**whole, hflip=0), InputConfig(), (3, 0, 0))
    first = []
    for image in range(40):
        views = [
            train_transform(
                source, 40, AugmentConfig(**whole, hflip_order="alternate"), InputConfig(), (3, epoch, image)
            )
            for epoch in range(4)
        ]
        turned = [bool((view == upright[:, ::-1]).all()) for view in views]
        assert all(turned[i] or bool((views[i] == upright).all()) for i in range(4))
        assert turned[0] != turned[1] and turned[:2] == turned[2:]
        first.append(turned[0])
    assert 10 <= sum(first) <= 30  # half of the images begin mirrored: 20 with a deviation of 3.2
    key = (3, 1, 5, 0, 0)
    plain, alternate = AugmentConfig(), AugmentConfig(hflip_order="alternate")
    cropped = [train_transform(source, 24, augment, InputConfig(), key) for augment in (plain, alternate)]
    assert any((cropped[1] == other).all() for other in (cropped[0], cropped[0][:, ::-1]))  # the same crop


def test_rand_augment_moves_colour_and_grey_images():
    for channels in (1, 3):
        config = InputConfig(mean=(0.5,) * channels, std=(0.5,) * channels)
        augment = AugmentConfig(hflip=0, rand_augment="rand-m9-n4-p1.0-inc1")
        for key in range(20):
            moved = train_transform(random_image(30, 30, channels), 20, augment, config, key)
            assert moved.shape == (20, 20, channels)
        assert (moved != train_transform(random_image(30, 30, channels), 20, PLAIN, config, key)).any()


@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m5-n3-p0.7-tweights", "rand-m9-n1-p0.3"])
def test_rand_augment_draws_as_often_as_timm_does(notation):
    """Operations on an image, and each one's share, against what timm's own class draws."""
    from timm.data import auto_augment

    policy = prepared(notation, 32, (0.5, 0.5, 0.5))
    ours = [[op.name for op in policy.sampled(random.Random(seed))] for seed in range(4000)]
    official = auto_augment.rand_augment_transform(notation, {"translate_const": 1, "img_mean": (1, 1, 1)})
    for operation in official.ops:
        called = operation.aug_fn.__name__
        operation.aug_fn = lambda shown, *_, called=called, **__: [*shown, called]
    random.seed(0), np.random.seed(0)
    theirs = [official([]) for _ in range(4000)]
    for count in range(official.num_layers + 1):
        assert abs(sum(len(a) == count for a in ours) - sum(len(b) == count for b in theirs)) < 4000 * 0.04
    for found in {word for names in theirs for word in names}:
        assert abs(sum(a.count(found) for a in ours) - sum(b.count(found) for b in theirs)) < 4000 * 0.04
    assert len(ours[0]) <= policy.layers and all(operation.act.prob == 1 for operation in policy.ops)


def test_the_strongest_posterize_keeps_no_bit_and_ends_no_run():
    policy = prepared("rand-m10-n1-inc1", 8, (0.5, 0.5, 0.5))
    (operation,) = (each for each in policy.ops if each.name == "posterize")
    operation.act.magnitude_std = 0
    assert not operation(random_image(8, 8)).any()
    operation.act.magnitude = 5
    np.testing.assert_array_equal(operation(random_image(8, 8)), random_image(8, 8) & 0b11000000)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (17, 40), (5, 3), (1, 1)], ids=str)
def test_a_compiled_move_is_pillows_to_the_bit(size, channels):
    """Every move of RandAugment by its compiled path and by timm's own functions, with the same draws."""
    from timm.data import auto_augment

    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")
    fill = (11, 22, 33) if channels == 3 else 11
    for name in MOVES:
        for key, level in enumerate((-0.37, -0.001, 0.0, 0.2, 0.45, 1.5, 28.3, -30.0)):
            for resample in (Image.BILINEAR, Image.BICUBIC, (Image.BILINEAR, Image.BICUBIC)):
                random.seed(key)
                ours = Move(name)(random_image(*size, channels), level, fillcolor=fill, resample=resample)
                random.seed(key)
                shown = to_pillow(random_image(*size, channels))
                expected = getattr(auto_augment, name)(shown, level, fillcolor=fill, resample=resample)
                np.testing.assert_array_equal(ours, from_pillow(expected), f"{name} {level} {resample}")


def test_rand_augment_is_the_same_with_and_without_the_compiled_kernels(monkeypatch):
    def many():
        prepared.cache_clear()
        augment = AugmentConfig(rand_augment="rand-m9-mstd0.5-inc1")
        return [train_transform(random_image(48, 40), 32, augment, InputConfig(), (0, key)) for key in range(100)]

    compiled = many()
    monkeypatch.setenv("CONVNEXT_KERNELS", "plain")
    plain = many()
    prepared.cache_clear()
    np.testing.assert_array_equal(compiled, plain)


def test_a_wrong_rand_augment_is_one_line():
    with pytest.raises(DataError, match=r"augment.rand_augment = 'random-m9' is not RandAugment") as error:
        train_transform(random_image(8, 8), 8, AugmentConfig(rand_augment="random-m9"), InputConfig(), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (257, 401), (31, 33), (64, 64), (1, 1), (500, 70)])
@pytest.mark.parametrize(
    ("px", "resize", "crop"), [(64, "crop", 0.875), (65, "crop", 0.95), (64, "crop", 1.0), (64, "warp", 0.875)]
)
def test_evaluation_is_torchvisions_to_the_pixel(size, px, resize, crop):
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    steps = {
        "crop": [transforms.Resize(int(px / crop), bicubic), transforms.CenterCrop(px)],
        "warp": [transforms.Resize((px, px), bicubic)],
    }[resize]
    expected = np.asarray(transforms.Compose(steps)(Image.fromarray(random_image(*size))))
    config = InputConfig(eval_size_px=px, eval_resize=resize, eval_crop=crop)
    np.testing.assert_array_equal(eval_transform(random_image(*size), config), expected)


@pytest.mark.parametrize("px", [64, 224])
def test_evaluation_is_timms_to_the_pixel(px):
    from timm.data import create_transform

    steps = create_transform((3, px, px), interpolation="bicubic", crop_pct=0.875)
    image = random_image(300, 411)
    ours = normalise(torch.from_numpy(eval_transform(image, InputConfig(eval_size_px=px)))[None], InputConfig())
    torch.testing.assert_close(ours[0], steps(Image.fromarray(image)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(40, 1700), (1700, 40)])
def test_a_thin_image_is_evaluated_without_a_huge_copy_and_within_two_grey_levels(size):
    from torchvision import transforms

    smooth = np.sin(np.mgrid[: size[0], : size[1]].sum(0) / 9) * 100 + 128
    image = np.repeat(smooth[..., None], 3, 2).astype(np.uint8)
    steps = [transforms.Resize(36, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(32)]
    expected = np.asarray(transforms.Compose(steps)(Image.fromarray(image))).astype(int)
    ours = eval_transform(image, InputConfig(eval_size_px=32, eval_crop=32 / 36))
    assert np.abs(ours - expected).max() <= 2
    wide = eval_transform(random_image(2, 20_000), InputConfig())  # at full width it would be 256 x 2,560,000
    assert wide.shape == (224, 224, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_its_formula_in_channels_last_memory(channels):
    config = InputConfig(mean=(0.485, 0.456, 0.406)[:channels], std=(0.229, 0.224, 0.225)[:channels])
    images = torch.from_numpy(
        np.stack([random_image(5, 7, channels), random_image(7, 5, channels).reshape(5, 7, channels)])
    )
    x = normalise(images, config)
    exact = (images.double() / 255 - torch.tensor(config.mean).double()) / torch.tensor(config.std).double()
    torch.testing.assert_close(x.double(), exact.permute(0, 3, 1, 2), rtol=0, atol=1e-6)
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
    assert normalise(images[:0], config).shape == (0, channels, 5, 7)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_to_the_same_bits_with_and_without_torch(channels):
    images = np.random.default_rng(3).integers(0, 256, (5, 9, 7, channels), np.uint8)
    config = InputConfig(mean=InputConfig().mean[:channels], std=InputConfig().std[:channels])
    ours, theirs = normalised(images, config), normalise(torch.from_numpy(images), config)
    assert ours.flags.c_contiguous and ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs.numpy())
