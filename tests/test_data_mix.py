"""Erasing, mixup, cutmix and smoothing follow timm's conventions and depend on their seed alone."""

import pytest
import torch

from convnext.config import AugmentConfig
from convnext.data.mix import mix

OFF = AugmentConfig()


def batch(count: int = 8, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last), torch.arange(count) % 5


def test_off_leaves_images_alone_and_gives_one_hot_targets():
    x, labels = batch()
    mixed, targets = mix(x.clone(), labels, 5, OFF, (0, 1))
    assert torch.equal(mixed, x)
    assert torch.equal(targets, torch.nn.functional.one_hot(labels, 5).float())


@pytest.mark.parametrize("count", [1, 7, 8])
@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(mixup=0.8, smoothing=0.1),
        AugmentConfig(cutmix=1.0, smoothing=0.1),
        AugmentConfig(mixup=0.8, cutmix=1.0),
        AugmentConfig(smoothing=0.2),
    ],
)
def test_targets_follow_timm_and_the_pixels_that_were_kept(augment, count):
    from timm.data.mixup import mixup_target

    x, labels = batch(count)
    for step in range(20):
        mixed, targets = mix(x.clone(memory_format=torch.preserve_format), labels, 5, augment, (0, step))
        share = kept_share(x, mixed)
        expected = mixup_target(labels, 5, share, augment.smoothing)
        torch.testing.assert_close(targets, expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        assert mixed.is_contiguous(memory_format=torch.channels_last)


def kept_share(x: torch.Tensor, mixed: torch.Tensor) -> float:
    """What image 0 kept of itself, read from the pixels: by area for cutmix, by weight for mixup."""
    own, other = x[0], x.flip(0)[0]
    if torch.equal(own, other):  # a batch of one: any share gives the same target
        return 1.0
    changed = (mixed[0] != own).any(0)
    if torch.equal(torch.where(changed, other, own), mixed[0]):
        return 1 - changed.float().mean().item()
    return ((mixed[0] - other).double().norm() / (own - other).double().norm()).item()


def test_cutmix_pastes_one_box_of_the_reversed_batch():
    x, labels = batch()
    mixed, _ = mix(x.clone(), labels, 5, AugmentConfig(cutmix=1.0), (0, 3))
    changed = (mixed != x).any(1)
    assert changed.any() and (changed == changed[0]).all()
    rows, columns = changed[0].any(1).nonzero(), changed[0].any(0).nonzero()
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    assert changed[0][box].all() and changed[0].sum() == changed[0][box].numel()
    assert torch.equal(mixed[..., box[0], box[1]], x.flip(0)[..., box[0], box[1]])


def test_cutmix_and_mixup_share_the_batches_by_the_switch():
    x, labels = batch(2, 8)
    augment = AugmentConfig(mixup=1.0, cutmix=1.0, mix_prob=0.5, mix_switch=0.25)
    kinds = {"none": 0, "cut": 0, "mix": 0}
    for step in range(2000):
        mixed, _ = mix(x.clone(), labels, 5, augment, (0, step))
        same = (mixed == x).float().mean()
        pasted = torch.where(mixed == x, x, x.flip(0))
        kinds["none" if same == 1 else "cut" if torch.equal(pasted, mixed) else "mix"] += 1
    assert abs(kinds["mix"] / 2000 - 0.375) < 0.05  # the cut boxes of no pixels count as none
    assert 0.08 < kinds["cut"] / 2000 <= 0.16


def test_erasing_puts_noise_into_one_rectangle_of_the_right_area():
    x = torch.full((400, 3, 32, 32), 7.0)
    mixed, _ = mix(x, torch.zeros(400, dtype=torch.int64), 2, AugmentConfig(erasing=0.25), (0, 0))
    erased = (mixed != 7).all(1)
    areas = erased.flatten(1).float().mean(1)
    hit = areas > 0
    assert abs(hit.float().mean().item() - 0.25) < 0.08
    assert areas[hit].min() > 0.015 and areas[hit].max() < 0.36
    noise = mixed[erased[:, None].expand_as(mixed)]
    assert abs(noise.mean().item()) < 0.02 and abs(noise.std().item() - 1) < 0.02
    for mask in erased[hit][:20]:
        height, width = mask.any(1).sum().item(), mask.any(0).sum().item()
        assert mask.sum() == height * width  # one full rectangle
        assert 0.2 < height / width < 5  # 0.3 to 3.3 before rounding


def test_a_seed_gives_the_same_batch_and_global_random_state_stays():
    x, labels = batch()
    augment = AugmentConfig(mixup=0.8, cutmix=1.0, erasing=0.5, smoothing=0.1)
    state = torch.random.get_rng_state()
    first = mix(x.clone(), labels, 5, augment, (0, 1, -2))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(9)
    again = mix(x.clone(), labels, 5, augment, (0, 1, -2))
    other = mix(x.clone(), labels, 5, augment, (0, 1, 3))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
