"""Published numbers: parameters, multiply-accumulates and tensors of every ConvNeXt and of the baselines."""

import pytest
import torch

from convnext.config import ConvNeXtConfig, TimmConfig
from convnext.models.build import build_model
from convnext.models.profile import count_macs, count_parameters
from convnext.recipes.architectures import ARCHITECTURES

PUBLISHED = {  # name: (parameters, MACs at 224 px, tensors); V1 and isotropic 2201.03545, V2 2301.00808
    "tiny": (28_589_128, 4_455_531_264, 182),
    "small": (50_223_688, 8_683_712_256, 344),
    "base": (88_591_464, 15_354_729_472, 344),
    "large": (197_767_336, 34_361_433_600, 344),
    "xlarge": (350_196_968, 60_921_030_656, 344),
    "v2_atto": (3_708_400, 0.547, None),
    "v2_femto": (5_233_240, 0.780, None),
    "v2_pico": (9_066_280, 1.367, None),
    "v2_nano": (15_623_800, 2.446, None),
    "v2_tiny": (28_635_496, 4.456, 200),
    "v2_base": (88_717_800, 15.355, None),
    "v2_large": (197_956_840, 34.361, None),
    "v2_huge": (660_289_640, 114.922, None),
    "iso_small": (22_308_712, 4.286, 150),
    "iso_base": (87_083_752, 16.896, 150),
    "iso_large": (305_942_504, 59.699, 330),
}
MACS_384 = {
    "tiny": 13_092_317_184,
    "small": 25_517_991_936,
    "base": 45_122_117_632,
    "large": 100_977_561_600,
    "xlarge": 179_029_262_336,
}
BASELINES = {  # name in timm: (parameters, MACs at 224 px in units of 1e9)
    "resnet50": (25_557_032, 4.0892),
    "swin_tiny_patch4_window7_224": (28_288_354, 4.4906),
    "vit_base_patch16_224": (86_567_656, 17.5638),
}


def on_meta(config):
    with torch.device("meta"):  # shapes only: no memory, no time
        return build_model(config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_its_published_parameters_macs_and_tensors(name):
    parameters, macs, tensors = PUBLISHED[name]
    model = on_meta(ARCHITECTURES[name])
    counted = count_macs(model, (3, 224, 224))
    assert count_parameters(model) == parameters
    assert (counted if isinstance(macs, int) else round(counted / 1e9, 3)) == macs
    assert tensors in (None, len(model.state_dict()))


@pytest.mark.parametrize("name", MACS_384)
def test_a_network_has_its_published_macs_at_384_px(name):
    assert count_macs(on_meta(ARCHITECTURES[name]), (3, 384, 384)) == MACS_384[name]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tiny", 44_615_857),
        ("small", 66_250_417),
        ("base", 109_953_489),
        ("large", 229_799_953),
        ("xlarge", 392_900_177),
    ],
)
def test_a_network_for_imagenet_22k_has_its_published_parameters(name, parameters):
    assert count_parameters(on_meta(ARCHITECTURES[name].model_copy(update={"classes": 21841}))) == parameters


def test_a_backbone_without_norm_and_head_has_its_published_parameters():
    model = on_meta(ARCHITECTURES["tiny"].model_copy(update={"classes": 0}))
    assert count_parameters(model) - count_parameters(model.norm) == 27_818_592


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_its_published_parameters_and_macs(name):
    parameters, macs = BASELINES[name]
    model = on_meta(TimmConfig(name=name))
    assert count_parameters(model) == parameters
    assert round(count_macs(model, (3, 224, 224)) / 1e9, 4) == macs


def test_counting_macs_follows_a_hand_count_and_leaves_the_model_as_it_was():
    config = ConvNeXtConfig(depths=(1,), widths=(2,), patch=2, classes=3, in_channels=1, kernel=3, drop_path=0.5)
    model = build_model(config)
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    positions = 2 * 3  # a 4 x 6 image in patches of 2
    block = positions * (2 * 3 * 3 + 2 * 8 + 8 * 2)
    assert count_macs(model, (1, 4, 6)) == positions * 2 * 4 + block + 2 * 3
    assert model.training and model.stem.training and not model.norm.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
