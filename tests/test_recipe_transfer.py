"""The recipe for those who start from weights: it sizes itself by the data and by what the weights say."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convnext.config import ConvNeXtConfig, Recipe, override, parse
from convnext.config.facts import StartFacts
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.profile import count_macs
from convnext.recipes import batch_advice, default_name, expected_lr, lr_advice, recipe, with_fitting_batch
from convnext.recipes.architectures import ARCHITECTURES
from convnext.recipes.transfer import FEW, FOLDS, LEAST_STEPS, forward_macs, steps_of

NETWORK = ConvNeXtConfig(depths=(2, 1), widths=(8, 24), stem="overlap", patch=2, layer_scale=None, grn=True)
START = StartFacts(network=NETWORK, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), size_px=160, eval_crop=0.95)
IMAGES, PIXELS = st.integers(1, 200_000), st.integers(1, 4000)
DATA = {"images": 400, "image_px": 300, "classes": 7}


@given(IMAGES, PIXELS, st.sampled_from(sorted(ARCHITECTURES)), st.booleans())
def test_transfer_fits_any_data_and_any_weights(images, image_px, name, known):
    start = StartFacts(network=ARCHITECTURES[name], size_px=224 if known else None)
    made = recipe("transfer", name, images=images, image_px=image_px, classes=3, start=start)
    assert parse(Recipe, json.loads(made.model_dump_json()), where="again") == made
    assert 1 <= made.optim.batch <= images
    assert made.schedule.warmup_epochs < made.schedule.epochs and lr_advice(made) is None
    assert 96 <= made.input.size_px == made.input.eval_size_px <= 224
    assert made.start.mode == "probe_full" and (made.start.folds == 0 or images <= FEW)


@given(IMAGES, IMAGES)
def test_transfer_never_takes_more_epochs_for_more_images_and_enough_steps_for_few(one, other):
    fewer, more = (recipe("transfer", "atto", images=n, image_px=200, classes=3) for n in sorted((one, other)))
    assert (fewer.schedule.epochs or 0) >= (more.schedule.epochs or 0) and fewer.optim.batch <= more.optim.batch
    assert steps_of(more.schedule.epochs or 0, max(one, other), more.optim.batch) >= 0.9 * LEAST_STEPS


def test_network_size_and_normalisation_are_those_of_the_weights():
    made = recipe("transfer", "tiny", **DATA, start=START)
    held = made.model.model_dump(exclude={"classes", "drop_path"})
    assert held == NETWORK.model_dump(exclude={"classes", "drop_path"}) and made.model.classes == 7
    assert (made.input.mean, made.input.std) == (START.mean, START.std)
    assert (made.input.eval_size_px, made.input.eval_crop) == (160, 0.95)


def test_small_images_are_enlarged_for_the_stem_but_never_beyond_the_size_of_the_weights():
    sizes = {
        px: recipe("transfer", "atto", images=500, image_px=px, classes=3, start=START).input for px in (8, 32, 64)
    }
    assert {px: shown.size_px for px, shown in sizes.items()} == {8: 96, 32: 96, 64: 128}
    assert recipe("transfer", "atto", images=500, image_px=2000, classes=3, start=START).input.size_px == 160


@pytest.mark.parametrize("name", ["small", "finetune", "imagenet1k", "small_detection", "small_segmentation"])
def test_other_recipes_too_build_the_network_of_the_weights(name):
    made = recipe(name, "tiny", **DATA, start=START)
    assert isinstance(made.model, ConvNeXtConfig)
    assert (made.model.depths, made.model.stem, made.model.patch, made.model.grn) == ((2, 1), "overlap", 2, True)
    assert made.input.mean == START.mean


@pytest.mark.parametrize("name", ["small_detection", "small_segmentation"])
def test_a_backbone_that_has_learnt_already_gets_a_lower_rate_than_its_fresh_head(name):
    tuned, fresh = recipe(name, "atto", **DATA, start=START).optim, recipe(name, "atto", **DATA).optim
    assert (tuned.layer_decay, tuned.backbone_lr) == (0.9, 1.0)  # as the paper's own recipe for ADE20K has it
    assert (fresh.layer_decay, fresh.backbone_lr) == (1.0, 1.0)


def test_the_rate_follows_the_root_of_the_batch_and_falls_with_the_width():
    by_batch = [recipe("transfer", "atto", **DATA, batch=batch).optim.lr for batch in (16, 64)]
    assert by_batch[1] == pytest.approx(2 * by_batch[0], rel=0.01)
    wider = recipe("transfer", "tiny", **DATA, batch=16)
    assert (
        wider.optim.lr
        == pytest.approx(by_batch[0] * 320 / 768, rel=0.01)
        == pytest.approx(expected_lr(wider), rel=0.01)
    )


def test_it_is_the_default_of_classifiers_with_weights_alone():
    assert default_name("classification", weights=True) == "transfer"
    assert default_name("classification", weights=False) == "small"
    assert default_name("detection", weights=True) == "small_detection"


def test_only_networks_whose_parts_are_trained_in_minutes_are_judged_crosswise():
    few = {"images": 80, "image_px": 128, "classes": 10}
    assert (
        recipe("transfer", "atto", **few, start=StartFacts(network=ARCHITECTURES["atto"], size_px=128)).start.folds
        == FOLDS
    )
    assert recipe("transfer", "large", **few).start.folds == 0


@pytest.mark.parametrize("name", ["atto", "v2_femto", "tiny", "iso_small"])
def test_the_work_of_a_network_is_counted_to_a_tenth(name):
    config = ARCHITECTURES[name]
    assert forward_macs(config, 224) == pytest.approx(count_macs(build_model(config), (3, 224, 224)), rel=0.1)


# Batches that are larger than the data


def test_a_published_recipe_shrinks_its_batch_to_the_data_and_says_so():
    made = with_fitting_batch(recipe("finetune", "tiny", images=200, image_px=224, classes=10), 200, {})
    assert (made.optim.batch, made.optim.lr) == (32, 5e-5)
    said = batch_advice(made, 200)
    assert said and "published with batch 512" in said and "200 training images" in said and "batch 32" in said
    assert lr_advice(made) is None
    whole = with_fitting_batch(recipe("imagenet1k", "tiny", images=200, image_px=224, classes=10), 200, {})
    assert whole.optim.lr == pytest.approx(4e-3 * math.sqrt(32 / 4096), rel=0.01)
    assert batch_advice(recipe("finetune", "tiny", images=512, image_px=224, classes=10), 512) is None


def test_what_was_asked_for_stays_or_is_refused():
    made = override(recipe("finetune", "tiny", images=200, image_px=224, classes=10), {"optim.lr": 3e-4})
    assert with_fitting_batch(made, 200, {"optim.lr": "3e-4"}).optim.lr == 3e-4
    with pytest.raises(ConvNeXtError, match=r"optim.batch = 512 is more than the 200 training images\. .*--batch 32"):
        with_fitting_batch(made, 200, {"optim.batch": 512})
