"""Every pixel gets the mean of what was said about it: windows, scales and flips against slow loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from convnext.config import UperNetConfig
from convnext.tasks.segmentation.inference import (
    logits_of,
    multi_scale_probabilities,
    probabilities,
    sliding_logits,
    whole_logits,
)
from convnext.tasks.segmentation.places import windows

KERNEL = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def network(x: Tensor) -> Tensor:
    """Three channels to four classes; the border of what it sees matters, as it does for a real one."""
    return F.conv2d(x, KERNEL.to(x.dtype), padding=2)


def image(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


def slow(x: Tensor, window: int, stride: int) -> Tensor:
    """Window by window: start where the stride says, move back inside, add and count pixel by pixel."""
    height, width = x.shape[-2:]
    padded = torch.zeros(*x.shape[:2], max(height, window), max(width, window))
    padded[..., :height, :width] = x
    big_h, big_w = padded.shape[-2:]
    total, seen = torch.zeros(x.shape[0], 4, big_h, big_w), torch.zeros(big_h, big_w)
    top = 0
    while True:
        left = 0
        while True:
            t, l = min(top, big_h - window), min(left, big_w - window)  # noqa: E741
            said = network(padded[..., t : t + window, l : l + window])
            for i in range(window):
                for j in range(window):
                    total[..., t + i, l + j] += said[..., i, j]
                    seen[t + i, l + j] += 1
            if left + window >= big_w:
                break
            left += stride
        if top + window >= big_h:
            break
        top += stride
    return (total / seen)[..., :height, :width]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 20), (23, 31), (9, 40), (7, 5)])
@pytest.mark.parametrize("stride", [5, 8, 16])
def test_sliding_is_the_mean_over_all_windows_as_a_loop_computes_it(height, width, stride):
    x = image(height, width, 2)
    assert torch.allclose(sliding_logits(network, x, window=16, stride=stride, batch=3), slow(x, 16, stride), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, data):
    stride = data.draw(st.integers(1, window))
    seen = torch.zeros(height, width)
    for rows, columns in windows(height, width, window, stride):
        assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
        assert rows.stop - rows.start == min(window, height)
        seen[rows, columns] += 1
    assert seen.min() >= 1


def test_a_window_as_large_as_the_image_is_the_image_at_once():
    x = image(32, 32)
    assert torch.equal(sliding_logits(network, x, window=32, stride=10), whole_logits(network, x))


def test_the_number_of_windows_at_a_time_does_not_change_the_answer():
    x = image(40, 33)
    one, many = (sliding_logits(network, x, window=16, stride=11, batch=n) for n in (1, 7))
    assert torch.allclose(one, many, atol=1e-5)


def test_a_constant_answer_stays_constant_whatever_the_windows():
    constant = sliding_logits(lambda x: torch.ones_like(x[:, :2]) * 3.5, image(50, 61), window=16, stride=7)
    assert torch.equal(constant, torch.full((1, 2, 50, 61), 3.5))


def test_the_image_at_once_is_padded_to_a_multiple_and_cut_back():
    sizes = []

    def watching(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape[-2:]))
        return x

    x = image(33, 47)
    assert torch.equal(whole_logits(watching, x), x) and sizes == [(64, 64)]


@pytest.mark.parametrize("window", [0, 16])
def test_logits_come_back_at_the_size_of_the_original_image(window):
    x = image(24, 40)
    found = logits_of(network, x, UperNetConfig(classes=4, window_px=window), (37, 61))
    said = sliding_logits(network, x, window=16, stride=10) if window else whole_logits(network, x)
    assert torch.allclose(found, F.interpolate(said, (37, 61), mode="bilinear", align_corners=False))


def test_probabilities_sum_to_one_in_every_pixel():
    found = probabilities(network, image(20, 30), UperNetConfig(classes=4), (40, 60))
    assert torch.allclose(found.sum(1), torch.ones(1, 40, 60))
    many = multi_scale_probabilities(network, image(20, 30), UperNetConfig(classes=4), (40, 60))
    assert torch.allclose(many.sum(1), torch.ones(1, 40, 60), atol=1e-5)


def test_one_scale_without_flip_is_the_single_scale_answer():
    x, config = image(32, 64), UperNetConfig(classes=4)
    one = multi_scale_probabilities(network, x, config, (32, 64), scales=(1.0,), flip=False)
    assert torch.equal(one, probabilities(network, x, config, (32, 64)))


@pytest.mark.parametrize("slide", [False, True])
def test_several_scales_are_the_mean_of_probabilities_of_each_and_of_its_mirror_image(slide):
    x, config = image(32, 48), UperNetConfig(classes=4, window_px=16)
    each = []
    for scale in (0.5, 1.0, 1.5):
        size = (round(32 * scale), round(48 * scale))
        shown = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=scale < 1) if scale != 1 else x
        for seen, back in ((shown, lambda y: y), (shown.flip(3), lambda y: y.flip(3))):
            said = sliding_logits(network, seen, window=16, stride=10) if slide else whole_logits(network, seen)
            each.append(back(F.interpolate(said, (60, 70), mode="bilinear", align_corners=False).softmax(1)))
    found = multi_scale_probabilities(network, x, config, (60, 70), scales=(0.5, 1.0, 1.5), slide=slide)
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-5)


def test_with_flips_a_mirrored_image_gives_the_mirrored_answer():
    x, config = image(32, 64), UperNetConfig(classes=4)
    found, mirrored = (multi_scale_probabilities(network, y, config, (32, 64)) for y in (x, x.flip(3)))
    assert torch.allclose(found, mirrored.flip(3), atol=1e-5)
