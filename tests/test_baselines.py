"""The networks that ConvNeXt is measured against: published sizes, plain names, and that they can be trained."""

import pytest
import timm
import torch
from torch.nn import functional as F

from convnext import recipes
from convnext.config import ConvNeXtConfig, RoadmapConfig, TimmConfig, override
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.create import create
from convnext.models.profile import measure
from convnext.recipes import recipe
from convnext.recipes.architectures import ARCHITECTURES, VARIANTS, architecture
from convnext.recipes.baselines import BASELINES, plain_name, with_grid
from convnext.recipes.listing import classifiers
from convnext.recipes.sizes import SIZES

PUBLISHED = recipes.PUBLISHED["classification"]

FACTS = {  # name, px: (parameters, MACs in units of 1e9 to four decimals)
    ("swin_tiny", 224): (28_288_354, 4.4906),
    ("swin_small", 224): (49_606_258, 8.7409),
    ("swin_base", 224): (87_768_224, 15.4309),
    ("swin_large", 224): (196_532_476, 34.4758),
    ("swin_base_384", 384): (87_903_584, 47.0831),
    ("swin_large_384", 384): (196_735_516, 103.9191),
    ("vit_small", 224): (22_050_664, 4.5989),
    ("vit_base", 224): (86_567_656, 17.5638),
    ("vit_base", 384): (86_859_496, 55.4844),
    ("vit_large", 224): (304_326_632, 61.5547),
    ("vit_large", 384): (304_715_752, 191.0663),
    ("resnet50", 224): (25_557_032, 4.0892),
    ("resnet200", 224): (64_673_832, 15.0075),
}
# Printed by the networks' own papers, in millions and 1e9: what is counted here rounds to them.
ROUND = {
    "resnext101_32x4d": (44.2, 8.0),
    "resnext101_64x4d": (83.5, 15.5),
    "mobilenet_v2": (3.5, 0.3),
    "convmixer": (51.6, None),
    "regnety_16g": (83.6, 15.9),
}


@pytest.mark.parametrize(("name", "size_px"), FACTS)
def test_a_baseline_has_its_parameters_to_the_unit_and_its_macs_to_four_decimals(name, size_px):
    parameters, macs = measure(architecture(name), size_px)
    assert (parameters, round(macs / 1e9, 4)) == FACTS[name, size_px]


@pytest.mark.parametrize("name", ROUND)
def test_other_baselines_round_to_what_their_papers_print(name):
    parameters, macs, _ = SIZES[name]
    assert round(parameters / 1e6, 1) == ROUND[name][0] and ROUND[name][1] in (None, round(macs / 1e9, 1))


def test_deit_is_vit_trained_in_another_way():
    assert SIZES["deit_small"] == SIZES["vit_small"] and SIZES["deit_base"] == SIZES["vit_base"]


def test_every_network_with_a_name_is_listed_convnexts_first():
    assert list(SIZES) == [*ARCHITECTURES, *VARIANTS, *BASELINES]
    assert all(SIZES[name][2] == BASELINES[name].size_px for name in BASELINES)
    rows = classifiers()
    assert [row["name"] for row in rows][: len(SIZES)] == list(SIZES)
    assert all(set(row) == {"name", "params", "macs", "input_size", "group"} for row in rows)


COUNTED = [name for name in BASELINES if (name, SIZES[name][2]) not in FACTS and "deit" not in name]


@pytest.mark.parametrize("name", ["atto", "v2_atto", *COUNTED])
def test_the_listed_size_of_a_network_is_what_counting_gives(name):
    *size, size_px = SIZES[name]
    assert measure(architecture(name), size_px) == tuple(size)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_listed_size_of_a_variant_is_what_counting_gives_in_timm_too(name):
    known = name.replace("v2_", "convnextv2_") if name.startswith("v2_") else f"convnext_{name}"
    with torch.device("meta"):
        theirs = timm.create_model(known)
    assert SIZES[name][0] == sum(p.numel() for p in theirs.parameters())
    assert (*measure(architecture(name), 224), 224) == SIZES[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_listed_size_of_a_convnext_is_its_hand_count(name):
    config = architecture(name)
    rows, before = 224 // config.patch, 3
    first, last = config.widths[0], config.widths[-1]
    macs = rows**2 * first * before * config.patch**2 + 1000 * last
    parameters = first * before * config.patch**2 + first + 2 * first * config.stem_norm + 1000 * last + 1000 + 2 * last
    for i, (depth, c) in enumerate(zip(config.depths, config.widths, strict=True)):
        if i:
            rows, before = rows // 2, config.widths[i - 1]
            macs += rows**2 * 4 * before * c
            parameters += 2 * before + 4 * before * c + c
        macs += depth * rows**2 * (49 * c + 8 * c * c)
        gamma, grn = c * (config.layer_scale is not None), 8 * c * config.grn
        parameters += depth * (49 * c + c + 2 * c + 8 * c * c + 5 * c + gamma + grn)
    assert SIZES[name] == (parameters, macs, 224)


def test_the_listed_sizes_are_those_of_the_facts():
    for (name, size_px), (parameters, macs) in FACTS.items():
        if size_px == SIZES[name][2]:
            assert (SIZES[name][0], round(SIZES[name][1] / 1e9, 4)) == (parameters, macs)


@pytest.mark.parametrize(
    ("wrong", "near"), [("swin_tinny", "swin_tiny"), ("ResNet-50", "resnet50"), ("mobilenetv2", "mobilenet_v2")]
)
def test_an_unknown_name_gives_the_nearest_valid_one(wrong, near):
    with pytest.raises(ConvNeXtError) as error:
        architecture(wrong)
    assert f"Did you mean '{near}'?" in str(error.value) and "\n" not in str(error.value)


def test_names_are_read_with_hyphens_and_capitals_and_found_again_from_timm():
    assert architecture("Swin-Tiny") == BASELINES["swin_tiny"].config
    assert plain_name("swin_tiny_patch4_window7_224") == "swin_tiny"
    assert plain_name("resnet18") == "resnet18"


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("recipe_name", ["small", *PUBLISHED])
def test_every_recipe_takes_every_baseline(name, recipe_name):
    made = recipe(recipe_name, name, images=300, image_px=96, classes=5)
    assert made.model.classes == 5 and made.optim.layer_decay == 1
    assert not isinstance(made.model, ConvNeXtConfig | RoadmapConfig)


def test_a_network_with_a_grid_is_built_for_the_size_that_a_recipe_trains_at():
    made = with_grid(recipe("small", "vit_small", images=300, image_px=60, classes=5))
    assert made.model.size_px == made.input.size_px == 64
    kept = with_grid(override(made, {"model.size_px": 96}))
    assert kept.model.size_px == 96
    plain = recipe("small", "atto", images=300, image_px=60, classes=5)
    assert with_grid(plain) is plain


@pytest.mark.parametrize(
    ("name", "size_px"),
    [
        ("swin_tiny", 32),
        ("vit_small", 32),
        ("deit_small", 48),
        ("resnet50", 32),
        ("mobilenet_v2", 32),
        ("gfnet_h_tiny", 32),
    ],
)
def test_a_small_image_gives_logits_of_the_right_shape_at_two_sizes(name, size_px):
    config = architecture(name).model_copy(update={"classes": 3, "size_px": size_px})
    with torch.device("meta"):
        model = build_model(config)
        assert model(torch.empty(2, 3, size_px, size_px)).shape == (2, 3)
        assert model(torch.empty(2, 3, 2 * size_px, 2 * size_px)).shape == (2, 3)  # evaluation may differ


@pytest.mark.parametrize("name", ["swin_tiny", "mobilenet_v2"])
def test_a_step_of_training_lowers_the_loss_on_its_own_batch(name):
    torch.manual_seed(0)
    model = build_model(architecture(name).model_copy(update={"classes": 2, "size_px": 32}))
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "size_px", "message"),
    [
        ("vit_small", 100, "patches of 16 px, and 100 px is no multiple of that. Train with --size 96 or 112."),
        ("swin_tiny", 30, "patches of 4 px"),
        ("timm:eva02_tiny_patch14_224", 96, "Train with --size 84 or 98."),
    ],
)
def test_a_size_that_a_grid_cannot_have_is_one_line_with_the_fix(name, size_px, message):
    with pytest.raises(ConvNeXtError) as error, torch.device("meta"):
        create(name, size_px=size_px)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_baseline_without_a_grid_does_not_look_at_the_size():
    with torch.device("meta"):
        model = build_model(TimmConfig(name="resnet18", size_px=100, classes=4))
        assert model(torch.empty(2, 3, 65, 70)).shape == (2, 4)
