"""Every published value of every recipe, recipes by name, overrides and their refusals, and the way through JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext import recipes
from convnext.cli import main
from convnext.config import Recipe, fields_of, override, parse
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.recipes.architectures import ARCHITECTURES

PUBLISHED, RECIPES = recipes.PUBLISHED["classification"], recipes.RECIPES["classification"]

# arXiv 2201.03545, tables 5 and 6, and the code released with it; recipe -> field -> value, for every network.
ADAMW = {
    "optim.name": "adamw",
    "optim.betas": (0.9, 0.999),
    "optim.eps": 1e-8,
    "optim.clip": 0,
    "optim.ema_warmup": False,
}
CROPS = {"augment.scale": (0.08, 1), "augment.ratio": (3 / 4, 4 / 3), "augment.hflip": 0.5, "augment.vflip": 0}
REGULAR = {"augment.rand_augment": "rand-m9-mstd0.5-inc1", "augment.erasing": 0.25, "augment.smoothing": 0.1}
MIXED = {"augment.mixup": 0.8, "augment.cutmix": 1, "augment.mix_prob": 1, "augment.mix_switch": 0.5}
COLOURS = {"input.mean": (0.485, 0.456, 0.406), "input.std": (0.229, 0.224, 0.225), "model.in_channels": 3}
AT_224 = {"input.size_px": 224, "input.eval_size_px": 224, "input.eval_resize": "crop", "input.eval_crop": 0.875}
AT_384 = {"input.size_px": 384, "input.eval_size_px": 384, "input.eval_resize": "warp"}
COMMON = {**COLOURS, **CROPS, "input.progressive": (), "precision": "fp32", "seed": 0}
PRETRAIN = {
    **COMMON,
    **ADAMW,
    **REGULAR,
    **MIXED,
    **AT_224,
    "optim.lr": 4e-3,
    "optim.batch": 4096,
    "optim.weight_decay": 0.05,
    "optim.layer_decay": 1,
    "schedule.kind": "cosine",
    "schedule.min_lr": 1e-6,
    "model.head_scale": 1,
}
TUNE = {
    **COMMON,
    **ADAMW,
    **REGULAR,
    "augment.mixup": 0,
    "augment.cutmix": 0,
    "optim.lr": 5e-5,
    "optim.batch": 512,
    "optim.weight_decay": 1e-8,
    "schedule.epochs": 30,
    "schedule.warmup_epochs": 0,
    "schedule.kind": "cosine",
    "schedule.min_lr": 1e-6,
    "model.head_scale": 0.001,
    "model.classes": 1000,
}
FACTS = {
    "imagenet1k": {
        **PRETRAIN,
        "optim.ema": 0.9999,
        "schedule.epochs": 300,
        "schedule.warmup_epochs": 20,
        "model.classes": 1000,
    },
    "imagenet22k": {
        **PRETRAIN,
        "optim.ema": 0,
        "schedule.epochs": 90,
        "schedule.warmup_epochs": 5,
        "model.classes": 21_841,
    },
    "finetune": {**TUNE, **AT_224, "optim.layer_decay": 0.8, "optim.ema": 0},
    "finetune384": {**TUNE, **AT_384, "optim.layer_decay": 0.8, "optim.ema": 0},
    "finetune384_1k": {**TUNE, **AT_384, "optim.layer_decay": 0.7, "optim.ema": 0},
    "resnet_original": {
        **COMMON,
        **AT_224,
        "optim.name": "sgd",
        "optim.lr": 0.1,
        "optim.batch": 256,
        "optim.momentum": 0.9,
        "optim.weight_decay": 1e-4,
        "optim.layer_decay": 1,
        "optim.clip": 0,
        "optim.ema": 0,
        "schedule.epochs": 90,
        "schedule.warmup_epochs": 0,
        "schedule.kind": "step",
        "schedule.step_epochs": 30,
        "schedule.step_factor": 0.1,
        "schedule.min_lr": 0,
        "augment.rand_augment": "",
        "augment.erasing": 0,
        "augment.mixup": 0,
        "augment.cutmix": 0,
        "augment.smoothing": 0,
        "model.drop_path": 0,
    },
}
DROP_PATH = {
    "imagenet1k": {"tiny": 0.1, "small": 0.4, "base": 0.5, "large": 0.5}
    | {"iso_small": 0.1, "iso_base": 0.2, "iso_large": 0.5},
    "imagenet22k": {"tiny": 0.0, "small": 0.0, "base": 0.1, "large": 0.1, "xlarge": 0.2},
    "finetune": {"tiny": 0.0, "small": 0.1, "base": 0.2, "large": 0.3, "xlarge": 0.4},
    "finetune384": {"tiny": 0.0, "small": 0.1, "base": 0.2, "large": 0.3, "xlarge": 0.4},
    "finetune384_1k": {"base": 0.8, "large": 0.95},
    "resnet_original": {"timm:resnet50": 0.0},
}
EXCEPTIONS = {  # the networks for which a table makes one
    **{("imagenet1k", f"iso_{size}"): {"schedule.warmup_epochs": 50} for size in ("small", "base", "large")},
    **{(name, "xlarge"): {"optim.ema": 0.9999} for name in ("finetune", "finetune384")},
}
PUBLISHED_FOR = [(name, model) for name, models in DROP_PATH.items() for model in models]
SMALL = {"images": 2000, "image_px": 128, "classes": 10}


@pytest.mark.parametrize(("name", "model"), PUBLISHED_FOR)
def test_a_recipe_has_every_published_value(name, model):
    values = fields_of(PUBLISHED[name](model))
    expected = {**FACTS[name], "model.drop_path": DROP_PATH[name][model], **EXCEPTIONS.get((name, model), {})}
    assert {field: values[field] for field in expected} == expected


def test_evaluation_at_224_px_resizes_to_256_and_at_384_cuts_nothing_off():
    at_224, at_384 = PUBLISHED["finetune"]("base").input, PUBLISHED["finetune384"]("base").input
    assert int(at_224.eval_size_px / at_224.eval_crop) == 256
    assert at_384.eval_resize == "warp"


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("model", [*ARCHITECTURES, "timm:resnet18"])
def test_a_recipe_changes_nothing_else_of_a_network_and_says_what_is_not_published(name, model):
    made = PUBLISHED[name](model)
    if not model.startswith("timm:"):
        theirs = {"drop_path", "classes", "head_scale"}  # what a recipe decides about a network
        assert made.model.model_dump(exclude=theirs) == ARCHITECTURES[model].model_dump(exclude=theirs)
    elif name != "resnet_original":
        assert "without drop_path" in made.source
    published = model in DROP_PATH[name] or name == "resnet_original" or model.startswith("timm:")
    assert ("not published" in made.source) == (not published)


def test_layer_wise_decay_is_only_asked_of_networks_that_have_it():
    assert PUBLISHED["finetune"]("timm:resnet18").optim.layer_decay == 1


# By name, for the data at hand


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_by_name_takes_classes_channels_batch_and_seed(name):
    made = recipe(name, "atto", images=2000, image_px=128, classes=7, in_channels=1, batch=48, seed=5)
    assert (made.name, made.model.classes, made.model.in_channels, made.optim.batch, made.seed) == (name, 7, 1, 48, 5)
    assert made.input.mean == (0.449,) and made.input.std == (0.226,)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_rate_is_not_scaled_behind_your_back(name):
    assert recipe(name, "tiny", **SMALL, batch=32).optim.lr == PUBLISHED[name]("tiny").optim.lr


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("smal", "atto", "No recipe is called 'smal'. Did you mean 'small'?"),
        ("imagenet_1k", "atto", "Did you mean 'imagenet1k'?"),
        ("imagenet1k", "tinny", "No model is called 'tinny'. Did you mean 'tiny'?"),
        ("small", "convnextv2-ato", "Did you mean 'v2_atto'?"),
    ],
)
def test_an_unknown_recipe_or_network_is_one_line_with_the_nearest_name(name, model, message):
    with pytest.raises(ConvNeXtError) as error:
        recipe(name, model, **SMALL)
    assert message in str(error.value) and "\n" not in str(error.value)


# Overrides


def test_a_field_is_overridden_and_all_others_stay():
    before = PUBLISHED["imagenet1k"]("tiny")
    texts = {
        "optim.lr": "1e-3",
        "optim.betas": "0.9,0.95",
        "model.layer_scale": "none",
        "model.checkpointing": "True",
        "model.stem": "overlap",
        "augment.rand_augment": "",
        "input.progressive": "[[0.5, 128], [0.8, 160]]",
        "schedule.epochs": "100",
        "seed": "7",
    }
    after = override(before, texts)
    expected = {
        "optim.lr": 1e-3,
        "optim.betas": (0.9, 0.95),
        "model.layer_scale": None,
        "model.checkpointing": True,
        "model.stem": "overlap",
        "augment.rand_augment": "",
        "input.progressive": ((0.5, 128), (0.8, 160)),
        "schedule.epochs": 100,
        "seed": 7,
    }
    assert fields_of(after) == {**fields_of(before), **expected}
    assert fields_of(before)["optim.lr"] == 4e-3  # a new value, not a changed one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.lrr": "1"}, "No recipe field is called 'optim.lrr'. Did you mean 'optim.lr'?"),
        ({"augment.mixupp": "1"}, "Did you mean 'augment.mixup'?"),
        ({"warmup_epochs": "1"}, "Did you mean 'schedule.warmup_epochs'?"),
        ({"optim": "1"}, "No recipe field is called 'optim'."),
        ({"optim.lr": "fast"}, "optim.lr = 'fast' is refused"),
        ({"optim.lr": "-1"}, "optim.lr = -1 is refused: it must be greater than 0."),
        ({"optim.lr": "nan"}, "optim.lr = 'nan' is refused"),
        ({"schedule.epochs": "inf"}, "schedule.epochs = 'inf' is refused: it must be a finite number."),
        ({"optim.betas": "0.9,1"}, "optim.betas.1 = 1 is refused: it must be less than 1."),
        ({"optim.batch": "0"}, "optim.batch = 0 is refused"),
        ({"optim.batch": "2.5"}, "optim.batch = 2.5 is refused"),
        (
            {"optim.name": "adam"},
            "optim.name = 'adam' is refused: it must be one of adamw, sgd, muon. Did you mean 'adamw'?",
        ),
        (
            {"model.family": "convnex"},
            "model.family = 'convnex' is refused: it must be one of convnext, timm, roadmap, gfnet. Did you mean",
        ),
        ({"model.depths": "3,0,9,3"}, "model.depths.1 = 0 is refused"),
        ({"model.kernel": "6"}, "kernel = 6 is even"),
        ({"input.eval_resize": "squash"}, "it must be one of crop, warp."),
        ({"augment.hflip": "1.5"}, "augment.hflip = 1.5 is refused"),
        ({"augment.scale": "1,0.5"}, "scale = (1, 0.5) must be two positive numbers, the smaller first"),
        ({"input.progressive": "[[0.5, 64], [0.2, 96]]"}, "progressive shares [0.5, 0.2] must rise"),
        (
            {"schedule.epochs": "5"},
            "warmup_epochs = 20 does not fit in epochs = 5. Lower the first or raise the second",
        ),
        ({"model.in_channels": "1"}, "input.mean has 3 values and model.in_channels = 1"),
    ],
)
def test_a_wrong_override_is_one_line_with_the_value_and_the_rule(changes, message):
    with pytest.raises(ConvNeXtError) as error:
        override(PUBLISHED["imagenet1k"]("tiny"), changes)
    assert message in str(error.value) and "\n" not in str(error.value)


FIELDS = sorted(fields_of(PUBLISHED["imagenet1k"]("tiny")))
WORDS = st.one_of(
    st.sampled_from(
        ["", "none", "true", "nan", "inf", "-1", "0", "1e999", "1,2", "[]", "{}", '{"a": 1}', "[[1, 2]]", "a\nb"]
    ),
    st.text(max_size=8),
    st.floats().map(str),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), WORDS)
def test_any_text_for_any_field_gives_a_recipe_or_one_line(field, text):
    said = ""
    made = PUBLISHED["imagenet1k"]("tiny")
    try:
        made = override(made, {field: text})
    except ConvNeXtError as error:
        said = str(error)
    assert "\n" not in said
    assert parse(Recipe, json.loads(made.model_dump_json()), where="again") == made


def test_the_command_line_names_the_nearest_field(capsys):
    assert main(["train", "pets", "--optim.lrr", "1e-3"]) == 2  # as the page of recipes shows
    expected = "convnext: No option or recipe field is called '--optim.lrr'. Did you mean '--optim.lr'?\n"
    assert capsys.readouterr().err == expected


# Saved with the run


@pytest.mark.parametrize("model", ["tiny", "v2_atto", "iso_small", "timm:resnet18"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name, model):
    made = recipe(name, model, **SMALL)
    assert parse(Recipe, json.loads(made.model_dump_json()), where="recipe.json") == made
    assert parse(Recipe, json.loads(json.dumps(made.model_dump())), where="recipe.json") == made


def test_a_saved_recipe_that_was_damaged_is_one_line():
    saved = PUBLISHED["imagenet1k"]("tiny").model_dump()
    for damage, message in [
        ({"optim": {**saved["optim"], "lrr": 1}}, "recipe.json: no field is called 'optim.lrr'. Did you mean 'lr'?"),
        ({"sed": 1}, "recipe.json: no field is called 'sed'. Did you mean 'seed'?"),
        ({"optim": {"lr": 1}}, "recipe.json: field 'optim.batch' is missing."),
    ]:
        with pytest.raises(ConvNeXtError) as error:
            parse(Recipe, {**saved, **damage}, where="recipe.json")
        assert str(error.value) == message
