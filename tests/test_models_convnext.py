"""The network itself: sizes, channels, heads, stage features, stochastic depth, checkpointing, initial values."""

import pytest
import torch
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig
from convnext.models.convnext import ConvNeXt, Downsample, DropPath
from convnext.recipes.architectures import ARCHITECTURES

SMALLEST = ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(8, 12, 16, 24), classes=5)


def changed(**fields) -> ConvNeXt:
    return ConvNeXt(SMALLEST.model_copy(update=fields))


@pytest.mark.parametrize("size", [(97, 131), (33, 65), (5, 4), (4, 4), (224, 4)])
@pytest.mark.parametrize("fields", [{}, {"stem": "overlap"}, {"antialias": True}])
def test_any_input_size_from_one_patch_on_gives_finite_logits_and_gradients(size, fields):
    model = changed(**fields)
    logits = model(torch.randn(2, 3, *size))
    logits.sum().backward()
    assert logits.shape == (2, 5) and logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_input_channels_is_read(channels):
    assert changed(in_channels=channels)(torch.randn(1, channels, 32, 32)).shape == (1, 5)


def test_without_classes_the_network_returns_the_vector_the_head_would_see():
    model = changed(classes=0)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), model.embed(x)) and model(x).shape == (2, 24)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_the_head_reads_the_embedding():
    model = changed()
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(model(x), model.head(model.embed(x)))


@pytest.mark.parametrize(("stem", "patch"), [("patch", 4), ("patch", 2), ("overlap", 4), ("overlap", 2)])
def test_stage_features_have_their_names_widths_and_strides(stem, patch):
    maps = changed(stem=stem, patch=patch).features(torch.randn(1, 3, 128, 64))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        f"stage{s}": (1, width, 128 // (patch * 2**s), 64 // (patch * 2**s)) for s, width in enumerate(SMALLEST.widths)
    }


@pytest.mark.parametrize("size", [(8, 8), (10, 13)])
def test_antialiased_downsampling_is_a_blur_before_the_convolution(size):
    layer, x = Downsample(4, 6, antialias=True).double(), torch.randn(2, 4, *size, dtype=torch.float64)
    torch.nn.init.normal_(layer.conv.bias)
    kernel = torch.tensor([1, 2, 1], dtype=torch.float64) / 4  # arXiv 1904.11486
    around = F.pad(layer.norm(x), (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(around, (kernel[:, None] * kernel).expand(4, 1, 3, 3), groups=4)
    torch.testing.assert_close(layer(x), layer.conv(smooth), rtol=1e-12, atol=1e-12)


def test_an_isotropic_network_keeps_one_resolution():
    with torch.device("meta"):
        maps = ConvNeXt(ARCHITECTURES["iso_small"]).features(torch.empty(1, 3, 224, 224))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {"stage0": (1, 384, 14, 14)}


def test_checkpointing_changes_no_logit_and_no_gradient():
    plain = changed(drop_path=0.5)
    recomputed = changed(drop_path=0.5, checkpointing=True)
    recomputed.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 32, 32)
    results = []
    for model in (plain, recomputed):
        torch.manual_seed(3)  # the same branches drop
        logits = model(x)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_drop_path_rates_rise_linearly_from_zero_over_all_blocks():
    model = changed(drop_path=0.4, depths=(2, 1, 1, 1))
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_drops_whole_samples_at_its_rate_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.3)
    y = drop(torch.ones(20_000, 2, 1, 2))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert torch.equal(y.amin((1, 2, 3)), y.amax((1, 2, 3)))  # a sample is kept or dropped as a whole
    assert y.mean().item() == pytest.approx(1, abs=0.02)  # four standard deviations


def test_drop_path_does_nothing_in_evaluation():
    x = torch.randn(3, 2, 1, 1)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_fresh_weights_have_the_released_spread_and_fresh_norms_are_identities():
    torch.manual_seed(0)
    model = ConvNeXt(ARCHITECTURES["atto"])
    for name, value in model.state_dict().items():
        if value.ndim > 1 and value.numel() > 10_000:
            assert value.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(value.mean().item()) < 1e-3, name
        elif name.endswith("gamma"):
            assert (value == 1e-6).all(), name
        elif name.endswith("norm.weight"):
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert (value == 0).all(), name


def test_head_scale_multiplies_the_fresh_head_alone():
    models = []
    for scale in (1.0, 0.001):
        torch.manual_seed(0)
        models.append(changed(head_scale=scale).state_dict())
    plain, scaled = models
    assert torch.equal(scaled["head.weight"], plain["head.weight"] * 0.001)
    assert all(torch.equal(scaled[key], plain[key]) for key in plain if not key.startswith("head"))


@pytest.mark.parametrize("config", [SMALLEST, SMALLEST.model_copy(update={"layer_scale": None, "grn": True})])
def test_the_memory_format_changes_no_logit(config):
    model = ConvNeXt(config).double()
    x = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    last = ConvNeXt(config).double().to(memory_format=torch.channels_last)
    last.load_state_dict(model.state_dict())
    torch.testing.assert_close(last(x.contiguous(memory_format=torch.channels_last)), model(x))
