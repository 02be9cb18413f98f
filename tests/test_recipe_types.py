"""One recipe type a task: a field exists where it is read, others are refused by name, and every field says what it is."""

import json
import math

import pytest

from commands import convnext
from convnext.config import TASKS, Recipe, expect, fields_of, override, parse
from convnext.config.base import leaves_of
from convnext.errors import ConvNeXtError
from convnext.recipes import DEFAULT, FITTED, PUBLISHED, RECIPES, recipe, task_of, with_changes

DATA = {"images": 400, "image_px": 96, "classes": 3}
NAMES = [name for named in RECIPES.values() for name in named]


@pytest.mark.parametrize("task", TASKS)
def test_every_field_of_every_recipe_type_has_a_unit_and_a_meaning(task):
    fields = list(leaves_of(TASKS[task]))
    assert {name for named in RECIPES[task] for name in fields_of(made(named))} <= {name for name, _ in fields}
    for name, info in fields:
        assert info.description and (info.json_schema_extra or {}).get("unit"), name


def made(name: str) -> Recipe:
    return recipe(name, "tiny", **DATA)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_is_a_field_of_the_recipe_and_decides_its_type(name):
    chosen = made(name)
    assert chosen.task == task_of(name) and type(chosen) is TASKS[chosen.task]
    saved = json.loads(chosen.model_dump_json())
    assert saved["task"] == chosen.task and list(saved)[:4] == ["task", "name", "source", "model"]
    assert parse(Recipe, saved, where="recipe.json") == chosen
    assert isinstance(chosen, Recipe) and expect(chosen, TASKS[chosen.task]) is chosen


def test_a_default_recipe_of_each_task_follows_the_data():
    assert set(DEFAULT) == set(TASKS) == set(RECIPES)
    assert all(DEFAULT[task] in FITTED[task] and not set(FITTED[task]) & set(PUBLISHED[task]) for task in TASKS)


def test_a_recipe_of_another_task_is_refused_by_name():
    with pytest.raises(ConvNeXtError, match=r"recipe .small. is for classification\. Take one for detection"):
        expect(made("small"), TASKS["detection"])


@pytest.mark.parametrize(
    ("name", "field", "owner"),
    [
        ("small_detection", "augment.mixup", "classification"),
        ("small_detection", "augment.smoothing", "classification"),
        ("small_detection", "input.eval_crop", "classification"),
        ("small_detection", "input.size_px", "classification"),
        ("small_detection", "augment.crop_most", "segmentation"),
        ("small_detection", "head.aux_weight", "segmentation"),
        ("small_segmentation", "input.empty", "detection"),
        ("small_segmentation", "head.anchor_scale", "detection"),
        ("small_segmentation", "augment.erasing", "classification"),
        ("small", "head.classes", "detection and segmentation"),
        ("small", "input.short_px", "detection and segmentation"),
        ("small", "augment.photometric", "detection and segmentation"),
    ],
)
def test_a_field_of_another_task_is_refused_with_its_task_and_the_nearest_name(name, field, owner):
    with pytest.raises(ConvNeXtError) as error:
        override(made(name), {field: 0.5})
    said = str(error.value)
    assert said.startswith(f"'{field}' is for {owner}; recipe '{name}' is for {task_of(name)}. Did you mean '")
    assert said.split("Did you mean '")[1].split("'")[0] in fields_of(made(name))


def test_a_field_of_another_network_of_the_same_task_is_only_unknown():
    with pytest.raises(ConvNeXtError, match=r"No recipe field is called 'model.width'. Did you mean 'model.widths'"):
        override(made("small"), {"model.width": 8})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim.name": "lion"},
            "optim.name = 'lion' is refused: it must be one of adamw, sgd, muon.",
        ),
        ({"schedule.kind": "cosin"}, "it must be one of cosine, linear, step. Did you mean 'cosine'?"),
        ({"optim.ema": "maybe"}, "optim.ema = 'maybe' is refused: it must be a number."),
        ({"optim.batch": "2.5"}, "optim.batch = 2.5 is refused: it must be a whole number."),
        ({"optim.ema_warmup": "maybe"}, "optim.ema_warmup = 'maybe' is refused: it must be true or false."),
        ({"optim.betas": 3}, "optim.betas = 3 is refused: it takes several values, with commas between them."),
        ({"optim.clip": -1}, "optim.clip = -1 is refused: it must be 0 or more."),
        ({"augment.hflip": 2}, "augment.hflip = 2 is refused: it must be 1 or less."),
        ({"optim.lr": None}, "optim.lr = None is refused: it must be a number."),
        ({"optim.lr": 1e38}, "optim.lr = 1e+38 is refused: it must be 1000 or less."),
        ({"model.patch": "[4]"}, "model.patch = [4] is refused: it must be a whole number."),
        ({"model.family": "timn"}, "it must be one of convnext, timm, roadmap, gfnet. Did you mean 'timm'?"),
    ],
)
def test_a_refused_value_is_told_in_our_own_words(changes, message):
    with pytest.raises(ConvNeXtError) as error:
        override(made("small"), changes)
    said = str(error.value)
    assert message in said and "Input" not in said and "\n" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--head.aux_weight", -1),
            "recipe 'small_segmentation': head.aux_weight = -1 is refused: it must be 0 or more.",
        ),
        (("--head.score", 2), "recipe 'small_detection': head.score = 2 is refused: it must be 1 or less."),
        (("--augment.erasing", 2), "recipe 'small': augment.erasing = 2 is refused: it must be 1 or less."),
        (("--optim.clip", -1), "recipe 'small': optim.clip = -1 is refused: it must be 0 or more."),
        (
            ("--optim.clip", 1, "--head.aux_weight", -1),
            "recipe 'small_segmentation': head.aux_weight = -1 is refused: it must be 0 or more.",
        ),
    ],
)
def test_a_refused_value_is_refused_by_a_recipe_that_has_the_field(arguments, message, tmp_path):
    assert convnext("train", tmp_path, *arguments).line == message


# How long a run is


@pytest.mark.parametrize("arguments", [["--schedule.epochs", "5"], ["--epochs", "5"]])
def test_epochs_are_refused_where_the_recipe_counts_steps(arguments, tmp_path):
    said = convnext("train", tmp_path, "--recipe", "ade20k_upernet_160k", *arguments).line
    assert said == (
        "recipe 'ade20k_upernet_160k' counts steps, so schedule.epochs = 5 does not decide it. "
        "Give --schedule.steps (now 160000)."
    )


def test_a_run_has_one_length_and_steps_take_the_place_of_epochs():
    chosen = override(made("small"), {"schedule.steps": "300", "schedule.warmup_steps": 10})
    assert (chosen.schedule.epochs, chosen.schedule.steps) == (None, 300)
    assert (chosen.schedule.warmup_epochs, chosen.schedule.warmup_steps) == (0, 10)
    back = override(chosen, {"schedule.steps": "none", "schedule.epochs": 7})
    assert (back.schedule.epochs, back.schedule.steps) == (7, None)
    for changes, message in [
        (
            {"schedule.epochs": 2, "schedule.steps": 3},
            "epochs = 2 and steps = 3 are both given, and a run has one length",
        ),
        ({"schedule.epochs": "none"}, "a run needs a length: give epochs or steps"),
        ({"schedule.warmup_epochs": 1, "schedule.warmup_steps": 3}, "are both given. Set one of them to 0"),
    ]:
        with pytest.raises(ConvNeXtError, match=message):
            override(made("small"), changes)
    with pytest.raises(ConvNeXtError, match=r"counts steps.*Give --schedule.warmup_steps \(now 500\)"):
        override(made("coco_mask_rcnn_3x"), {"schedule.warmup_epochs": 1})


def test_the_warm_up_and_the_evaluations_follow_the_length_that_a_person_asks_for():
    chosen = made("small_segmentation")  # 60 epochs for 400 images
    assert (chosen.schedule.epochs, chosen.schedule.eval_epochs, chosen.schedule.warmup_epochs) == (60, 6, 3)
    shorter = with_changes(chosen, {"schedule.epochs": "20"}, images=400).schedule
    assert (shorter.epochs, shorter.eval_epochs, shorter.warmup_epochs) == (20, 2, 1)
    longer = with_changes(chosen, {"schedule.epochs": 120}, images=400).schedule
    assert (longer.epochs, longer.eval_epochs, longer.warmup_epochs) == (120, 12, 3)
    own = with_changes(chosen, {"schedule.epochs": 20, "schedule.eval_epochs": 5}, images=400).schedule
    assert own.eval_epochs == 5
    counted = with_changes(made("ade20k_upernet_160k"), {"schedule.steps": 5000}, images=400).schedule
    assert (counted.steps, counted.eval_epochs) == (5000, 20)  # 200 epochs of 25 steps
    assert with_changes(made("imagenet1k"), {"schedule.epochs": 30}, images=400).schedule.eval_epochs == 1


@pytest.mark.parametrize("epochs", [0.5, 1, 2, 3, 4, 5, 7, 9, 10, 16, 36, 100])
@pytest.mark.parametrize("name", ["small_detection", "small_segmentation", "coco_mask_rcnn_3x", "coco_cascade_3x"])
def test_a_detector_or_a_segmenter_is_scored_five_times_or_more_whatever_its_length(name, epochs):
    schedule = with_changes(made(name), {"schedule.epochs": epochs}, images=400).schedule
    assert math.ceil(epochs / schedule.eval_epochs - 1e-9) >= 5
    assert schedule.eval_epochs >= 1 or epochs < 5
    asked = with_changes(made(name), {"schedule.epochs": epochs, "schedule.eval_epochs": 50}, images=400)
    assert asked.schedule.eval_epochs == 50  # who asks for less gets it


@pytest.mark.parametrize("steps", [20, 60, 1000, 5000])
def test_a_run_that_counts_steps_is_scored_as_often(steps):
    changes = {"schedule.steps": steps, "schedule.warmup_steps": 0}
    schedule = with_changes(made("ade20k_upernet_160k"), changes, images=400).schedule
    assert math.ceil(steps / 25 / schedule.eval_epochs - 1e-9) >= 5  # 25 steps an epoch


@pytest.mark.parametrize(
    ("short", "field"),
    [("lr", "optim.lr"), ("batch", "optim.batch"), ("epochs", "schedule.epochs"), ("size", "input.size_px")],
)
def test_an_option_and_its_field_together_are_refused(short, field, tmp_path):
    line = ["train", tmp_path, "--task", "classification", f"--{short}", "32", f"--{field}", "64"]
    assert convnext(*line).line == f"--{short} is short for --{field}, and both are given. Give one of them."


# The verb


def test_recipes_are_listed_by_task_and_printed_field_by_field():
    listed = convnext("recipes")
    assert listed.status == 0 and all(name in listed.out for name in NAMES) and "segmentation:" in listed.out
    rows = json.loads(convnext("recipes", "--json").out)
    assert [row["name"] for row in rows if row["default"]] == list(DEFAULT.values())
    assert all(row["task"] == task_of(row["name"]) and row["meaning"] for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_of_a_recipe_are_its_values_with_unit_and_meaning(name):
    task = task_of(name)
    chosen = PUBLISHED[task][name]("tiny") if name in PUBLISHED[task] else None
    rows = json.loads(convnext("recipes", name, "--json").out)
    assert all(set(row) == {"field", "value", "unit", "meaning"} and row["unit"] and row["meaning"] for row in rows)
    if chosen:
        assert [row["field"] for row in rows] == list(fields_of(chosen))
        values = {row["field"]: row["value"] for row in rows}
        assert values["optim.lr"] == chosen.optim.lr and values["schedule.epochs"] == chosen.schedule.epochs
    text = convnext("recipes", name).out
    assert all(row["field"] in text and row["meaning"] in text for row in rows)
    assert ("Data assumed: 1,000 training images of 224 px in 10 classes" in text) == (chosen is None)


def test_a_fitted_recipe_is_printed_for_the_data_that_are_named():
    rows = json.loads(convnext("recipes", "small", "--model", "pico", "--images", 300, "--size", 64, "--json").out)
    expected = recipe("small", "pico", images=300, image_px=64, classes=10)
    assert {row["field"]: row["value"] for row in rows}["optim.batch"] == expected.optim.batch
    assert "300 training images of 64 px" in convnext("recipes", "small", "--images", 300, "--size", 64).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smal"], "No recipe is called 'smal'. Did you mean 'small'?"),
        (["small", "--model", "tinny"], "Did you mean 'tiny'?"),
        (["imagenet1k", "--images", "30"], "is published and does not follow the data: leave out --images"),
        (["--images", "30"], "--images is for one recipe. Name it"),
        (["small", "--imagess", "30"], "Did you mean '--images'?"),
    ],
)
def test_what_cannot_be_printed_is_one_line(arguments, message):
    assert message in convnext("recipes", *arguments).line
