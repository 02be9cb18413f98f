"""Every published value of the COCO and ADE20K recipes, and what the two for small data give."""

import json

import pytest

from convnext.config import Recipe, fields_of, override, parse
from convnext.errors import ConvNeXtError
from convnext.recipes import RECIPES, recipe
from convnext.recipes.dense import (
    ade20k_upernet_160k,
    ade20k_upernet_160k_640,
    coco_cascade_3x,
    coco_cascade_3x_22k,
    coco_mask_rcnn_3x,
    dense_epochs,
)

# arXiv 2201.03545, appendix A.3, and the code released with it
ADAMW = {
    "optim.name": "adamw",
    "optim.betas": (0.9, 0.999),
    "optim.weight_decay": 0.05,
    "optim.batch": 16,
    "optim.clip": 0,
    "optim.ema": 0,
    "model.layer_scale": 1.0,
    "model.classes": 0,
    "input.mean": (0.485, 0.456, 0.406),
    "input.std": (0.229, 0.224, 0.225),
}
COCO = {
    **ADAMW,
    "optim.decay_by": "layer",
    "schedule.epochs": 36,
    "schedule.steps": None,
    "schedule.kind": "step",
    "schedule.milestones": (27, 33),
    "schedule.step_factor": 0.1,
    "schedule.warmup_steps": 500,
    "schedule.warmup_from": 0.001,
    "augment.precrop": 0.5,
    "augment.precrop_short_px": (400, 500, 600),
    "augment.precrop_px": (384, 600),
    "input.short_px": tuple(range(480, 801, 32)),
    "input.long_px": 1333,
    "augment.scale": (1, 1),
    "input.crop_px": 0,
    "input.empty": False,
    "augment.hflip": 0.5,
    "augment.vflip": 0,
    "augment.photometric": False,
    "input.multiple": 32,
    "input.eval_short_px": 800,
    "input.eval_long_px": 1333,
    "head.classes": 80,
    "head.masks": True,
    "head.channels": 256,
    "head.hidden": 1024,
    "head.anchor_scale": 8,
    "head.anchor_ratios": (0.5, 1, 2),
    "head.rpn_positive_iou": 0.7,
    "head.rpn_negative_iou": 0.3,
    "head.rpn_samples": 256,
    "head.rpn_positive_share": 0.5,
    "head.proposal_nms_iou": 0.7,
    "head.proposals_test": 1000,
    "head.roi_samples": 512,
    "head.roi_positive_share": 0.25,
    "head.score": 0.05,
    "head.nms_iou": 0.5,
    "head.most": 100,
}
MASK_RCNN = {
    **COCO,
    "head.kind": "mask_rcnn",
    "head.box_head": "linear",
    "head.box_loss": "l1",
    "head.box_loss_weight": 1,
    "head.rpn_beta": 0,
    "head.proposals_train": 1000,
    "head.match_low_quality": True,
}
CASCADE = {
    **COCO,
    "head.kind": "cascade",
    "head.box_head": "convolutional",
    "head.head_norm": "sync",
    "head.box_loss": "giou",
    "head.box_loss_weight": 10,
    "head.rpn_beta": 1 / 9,
    "head.proposals_train": 2000,
    "head.match_low_quality": False,
}
STAGES = [
    (0.5, (0.1, 0.1, 0.2, 0.2), 1),
    (0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
    (0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
]
COCO_ROWS = [  # recipe, backbone, lr, drop path, layer decay, precision
    (coco_mask_rcnn_3x, MASK_RCNN, "tiny", 1e-4, 0.4, 0.95, "fp16"),
    (coco_cascade_3x, CASCADE, "tiny", 2e-4, 0.4, 0.7, "fp16"),
    (coco_cascade_3x, CASCADE, "small", 2e-4, 0.6, 0.7, "fp16"),
    (coco_cascade_3x, CASCADE, "base", 2e-4, 0.7, 0.8, "fp16"),
    (coco_cascade_3x_22k, CASCADE, "base", 1e-4, 0.6, 0.8, "fp16"),
    *((each, CASCADE, "large", 1e-4, 0.7, 0.7, "fp32") for each in (coco_cascade_3x, coco_cascade_3x_22k)),
    *((each, CASCADE, "xlarge", 1e-4, 0.8, 0.7, "fp32") for each in (coco_cascade_3x, coco_cascade_3x_22k)),
]
ADE20K = {
    **ADAMW,
    "optim.layer_decay": 0.9,
    "optim.decay_by": "stage",
    "schedule.steps": 160_000,
    "schedule.epochs": None,
    "schedule.eval_epochs": 12,
    "schedule.kind": "linear",
    "schedule.min_lr": 0,
    "schedule.warmup_steps": 1500,
    "schedule.warmup_from": 1e-6,
    "augment.precrop": 0,
    "augment.scale": (0.5, 2.0),
    "augment.crop_most": 0.75,
    "augment.hflip": 0.5,
    "augment.photometric": True,
    "head.classes": 150,
    "head.width": 512,
    "head.pool_scales": (1, 2, 3, 6),
    "head.dropout": 0.1,
    "head.norm": "sync",
    "head.aux_stage": 2,
    "head.aux_width": 256,
    "head.aux_weight": 0.4,
    "head.test_scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
}
ADE20K_ROWS = [  # recipe, backbone, size, lr, drop path, precision, stride
    (ade20k_upernet_160k, "tiny", 512, 1e-4, 0.4, "fp16", 341),
    (ade20k_upernet_160k, "small", 512, 1e-4, 0.3, "fp16", 341),
    (ade20k_upernet_160k, "base", 512, 1e-4, 0.4, "fp16", 341),
    (ade20k_upernet_160k_640, "base", 640, 1e-4, 0.4, "fp16", 426),
    (ade20k_upernet_160k, "large", 640, 1e-4, 0.4, "fp32", 426),
    (ade20k_upernet_160k, "xlarge", 640, 8e-5, 0.4, "fp32", 426),
]
SMALL = {"images": 367, "image_px": 360, "classes": 11}


@pytest.mark.parametrize(("make", "common", "model", "lr", "drop_path", "decay", "precision"), COCO_ROWS)
def test_a_coco_recipe_has_every_published_value(make, common, model, lr, drop_path, decay, precision):
    values = fields_of(make(model))
    own = {"optim.lr": lr, "model.drop_path": drop_path, "optim.layer_decay": decay, "precision": precision}
    expected = {**common, **own, "model.name": model}
    assert {field: values[field] for field in expected} == expected
    stages = [(stage.iou, stage.stds, stage.weight) for stage in values["head.stages"]]
    assert stages == (STAGES if common is CASCADE else STAGES[:1])


@pytest.mark.parametrize(("make", "model", "size", "lr", "drop_path", "precision", "stride"), ADE20K_ROWS)
def test_an_ade20k_recipe_has_every_published_value(make, model, size, lr, drop_path, precision, stride):
    made = make(model)
    values = fields_of(made)
    sizes = {
        "input.short_px": (size,),
        "input.long_px": 4 * size,
        "input.crop_px": size,
        "input.eval_short_px": size,
        "input.eval_long_px": 4 * size,
        "head.window_px": size,
    }
    own = {"optim.lr": lr, "model.drop_path": drop_path, "precision": precision, "model.name": model}
    expected = {**ADE20K, **sizes, **own}
    assert {field: values[field] for field in expected} == expected
    assert made.head.stride == stride


@pytest.mark.parametrize("name", [*RECIPES["detection"], *RECIPES["segmentation"]])
@pytest.mark.parametrize("model", ["atto", "tiny", "xlarge", "v2_base", "resnet50", "swin_tiny", "roadmap_t:patchify"])
def test_every_recipe_takes_every_backbone_with_stages_and_goes_through_json(name, model):
    made = recipe(name, model, **SMALL, batch=2, seed=3)
    assert parse(Recipe, json.loads(made.model_dump_json()), where="again") == made
    assert made.head.classes == 11 and made.model.classes == 0 and made.optim.batch == 2 and made.seed == 3
    assert made.task in name or made.task == ("segmentation" if "upernet" in name else "detection")


@pytest.mark.parametrize("make", [coco_mask_rcnn_3x, coco_cascade_3x, ade20k_upernet_160k])
def test_a_recipe_says_when_the_values_of_a_network_are_not_published(make):
    assert "not published" in make("atto").source and "not published" not in make("tiny").source


def test_a_long_name_is_the_same_network():
    assert ade20k_upernet_160k("convnext_large") == ade20k_upernet_160k("large")
    assert coco_cascade_3x("convnext-base") == coco_cascade_3x("base")


def test_a_recipe_of_steps_keeps_them_on_other_data_and_is_evaluated_ten_times():
    made = recipe("ade20k_upernet_160k", "tiny", images=1600, image_px=500, classes=3)
    assert made.schedule.steps == 160_000 and made.schedule.epochs is None and made.schedule.eval_epochs == 160


def test_small_recipes_fit_the_data():
    made = recipe("small_segmentation", "atto", **SMALL)
    assert made.head.width == 64 and recipe("small_segmentation", "base", **SMALL).head.width == 256
    assert made.input.crop_px == 288 and made.input.eval_short_px == 360 and made.optim.batch == 8
    assert made.head.norm == "batch" and recipe("small_segmentation", "atto", **SMALL, batch=2).head.norm == "group"
    detection = recipe("small_detection", "atto", **SMALL)
    assert detection.head.head_norm == "group" and (detection.head.channels, detection.head.hidden) == (64, 256)
    assert detection.optim.batch == 8 and detection.input.short_px == (360,)
    assert detection.input.crop_px == 352 and detection.input.eval_long_px == 1440
    assert recipe("small_segmentation", "atto", images=5, image_px=20, classes=2).optim.batch == 1
    assert dense_epochs(100) == 120 and dense_epochs(400) == 60 and dense_epochs(100_000) == 12


def test_grey_images_get_one_mean_and_a_stem_for_one_channel():
    made = recipe("small_segmentation", "atto", **SMALL, in_channels=1)
    assert made.model.in_channels == len(made.input.mean) == 1


def test_a_field_of_the_head_can_be_set_and_a_wrong_one_is_named_with_the_nearest():
    made = recipe("ade20k_upernet_160k", "tiny", **SMALL)
    assert override(made, {"head.width": "64", "input.crop_px": "96"}).head.width == 64
    with pytest.raises(ConvNeXtError, match=r"'head\.widht'.*'head\.width'"):
        override(made, {"head.widht": 64})
    with pytest.raises(ConvNeXtError, match=r"head\.dropout = 2"):
        override(made, {"head.dropout": 2})
    for name, near in {"head": "aux_width", "input": "crop_px", "augment": "crop_most"}.items():
        values = made.model_dump()
        values[name][f"{near}x"] = 1
        with pytest.raises(ConvNeXtError, match=f"no field is called '{name}.{near}x'. Did you mean '{near}'"):
            parse(Recipe, values, where="recipe")


def test_a_recipe_is_of_a_known_task_and_its_head_of_a_known_kind():
    values = recipe("small_segmentation", "atto", **SMALL).model_dump()
    with pytest.raises(ConvNeXtError, match="no field is called 'dense'"):
        parse(Recipe, values | {"dense": None}, where="recipe")
    with pytest.raises(ConvNeXtError, match=r"task = 'segmentatio' is refused.*Did you mean 'segmentation'"):
        parse(Recipe, values | {"task": "segmentatio"}, where="recipe")
    with pytest.raises(ConvNeXtError, match=r"recipe: field 'task' is missing"):
        parse(Recipe, {name: value for name, value in values.items() if name != "task"}, where="recipe")
    with pytest.raises(ConvNeXtError, match=r"head\.kind = 'mask_rcnn' is refused: it must be upernet"):
        parse(Recipe, values | {"head": values["head"] | {"kind": "mask_rcnn"}}, where="recipe")
    with pytest.raises(ConvNeXtError, match="stride_px = 9 is more than window_px = 8"):
        parse(Recipe, values | {"head": values["head"] | {"window_px": 8, "stride_px": 9}}, where="recipe")


def test_an_unknown_recipe_is_named_with_the_nearest_of_all_tasks():
    with pytest.raises(ConvNeXtError, match="Did you mean 'ade20k_upernet_160k'"):
        recipe("ade20k_upernet", "tiny", **SMALL)
