"""Attacks: their limits, a closed form, and what they do to accuracy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig, InputConfig
from convnext.data.transforms import normalise
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.studies.robustness.attacks import Attack

CONFIG = InputConfig(size_px=16, eval_size_px=16)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = build_model(
        ConvNeXtConfig(depths=(1, 1), widths=(8, 16), patch=2, layer_scale=1.0, head_scale=8.0, classes=5)
    )
    return model.eval()


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 16, 16, 3), generator=generator, dtype=torch.uint8)
    images[0], images[1] = 0, 255  # at the ends of the valid range
    return images, torch.randint(0, 5, (n,), generator=generator), torch.arange(n)


def loss(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(model(x), labels).item()


@pytest.mark.parametrize("attack", [Attack("fgsm", 3), Attack("pgd", 3, 5, 1), Attack("pgd", 3, 4, 200)])
def test_no_pixel_moves_by_more_than_eps_or_leaves_the_valid_range(attack):
    images, labels, indices = batch()
    x = attack.pixels(network(), images, labels, indices, CONFIG)
    moved = (x - images.permute(0, 3, 1, 2) / 255).abs().max()
    assert 0.5 * 3 / 255 < moved <= 3 / 255 + 1e-6
    assert x.min() >= 0 and x.max() <= 1


def test_what_the_network_gets_is_the_normalised_form_of_these_pixels():
    images, labels, indices = batch()
    attack = Attack("fgsm", 1e-6)  # as good as none
    x = attack(network(), images, labels, indices, CONFIG)
    assert torch.allclose(x, normalise(images, CONFIG), atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.requires_grad


def test_fgsm_on_a_linear_network_is_the_closed_form():
    torch.manual_seed(1)
    linear = nn.Linear(3 * 16 * 16, 2)
    model = nn.Sequential(nn.Flatten(), linear)
    images, _, indices = batch()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    x = Attack("fgsm", 2).pixels(model, images, labels, indices, CONFIG)
    toward = (linear.weight[1] - linear.weight[0]).view(3, 16, 16).sign()  # std > 0: dividing by it keeps the sign
    sign = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    expected = (images.permute(0, 3, 1, 2) / 255 + 2 / 255 * sign * toward).clamp(0, 1)
    assert torch.allclose(x, expected, atol=1e-6)


def test_pgd_raises_the_loss_at_least_as_much_as_fgsm_and_fgsm_above_the_clean_one():
    model = network()
    images, labels, indices = batch(12)
    clean = loss(model, normalise(images, CONFIG), labels)
    once = loss(model, Attack("fgsm", 4)(model, images, labels, indices, CONFIG), labels)
    often = loss(model, Attack("pgd", 4, 20, 0.75)(model, images, labels, indices, CONFIG), labels)
    assert clean < once <= often


def test_the_random_start_follows_the_image_and_not_the_batch():
    model = network()
    images, labels, indices = batch()
    attack = Attack("pgd", 4, 2, 1, seed=3)
    whole = attack.pixels(model, images, labels, indices, CONFIG)
    alone = attack.pixels(model, images[4:], labels[4:], indices[4:], CONFIG)
    assert torch.allclose(whole[4:], alone, atol=1e-6)
    assert not torch.allclose(whole, Attack("pgd", 4, 2, 1, seed=4).pixels(model, images, labels, indices, CONFIG))


def test_an_attack_works_in_inference_mode_under_autocast_and_leaves_no_gradients():
    model = network()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        images, labels, indices = batch()
        model(normalise(images, CONFIG))  # autocast may keep its copies of the weights
        inside = Attack("fgsm", 2)(model, images, labels, indices, CONFIG)
    outside = Attack("fgsm", 2)(model, *batch(), CONFIG)
    assert torch.equal(inside.clone(), outside)
    assert all(p.grad is None for p in model.parameters())


def test_wrong_settings_are_one_line():
    with pytest.raises(ConvNeXtError, match="eps = 0"):
        Attack("fgsm", 0)
    with pytest.raises(ConvNeXtError, match="no attack 'cw'"):
        Attack("cw")  # type: ignore[arg-type]
