"""Whether a learning rate suits its batch, and what holds for the recipe `small` on any data."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext import recipes
from convnext.config import Recipe, override, parse
from convnext.recipes import expected_lr, lr_advice, recipe, with_changes
from convnext.recipes.architectures import ARCHITECTURES
from convnext.recipes.learning_rate import FAR, LEAST_ADAM, PAIRS

PUBLISHED = recipes.PUBLISHED["classification"]

SMALL = {"images": 2000, "image_px": 128, "classes": 10}

# The learning rate and its batch


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_pairs_are_those_of_the_recipes(name):
    optim = PUBLISHED[name]("tiny").optim
    assert optim.name in PAIRS[name].optimizers and (PAIRS[name].lr, PAIRS[name].batch) == (optim.lr, optim.batch)


def test_every_recipe_has_a_pair():
    assert set(PAIRS) == set(recipes.RECIPES["classification"])


@settings(deadline=None)
@given(st.sampled_from(sorted(PUBLISHED)), st.integers(1, 65_536), st.booleans())
def test_a_rate_scaled_by_either_rule_is_not_spoken_about(name, batch, root):
    ratio = batch / PAIRS[name].batch
    lr = PAIRS[name].lr * (math.sqrt(ratio) if root else ratio)
    assert lr_advice(override(PUBLISHED[name]("tiny"), {"optim.batch": batch, "optim.lr": lr})) is None


@settings(deadline=None)
@given(st.sampled_from(sorted(PUBLISHED)), st.integers(1, 65_536), st.booleans())
def test_a_rate_far_from_both_rules_is_told_with_the_right_value(name, batch, high):
    pair = PAIRS[name]
    ratio = batch / pair.batch
    both = (pair.lr * ratio, pair.lr * math.sqrt(ratio))
    right = pair.lr * ratio if pair.optimizers == ("sgd",) else max(LEAST_ADAM, both[1])  # Adam: by the square root
    lr = max(FAR * max(*both, right), pair.most) * 1.01 if high else min(both) / FAR / 1.01
    chosen = override(PUBLISHED[name]("tiny"), {"optim.batch": batch, "optim.lr": lr})
    assert expected_lr(chosen) == pytest.approx(right)
    said = lr_advice(chosen)
    assert said and "\n" not in said
    assert f"published with {pair.lr:g} for batch {pair.batch}" in said and f"`--optim.lr {right:.3g}`" in said


def test_the_published_rate_on_a_small_batch_is_told():
    said = lr_advice(recipe("imagenet1k", "tiny", **SMALL, batch=64))
    assert said and "Add `--optim.lr 0.0005`" in said  # 4e-3 times the root of 64 / 4096


@pytest.mark.parametrize("batch", [1, 16, 512])
@pytest.mark.parametrize("lr", [5e-5, 1e-3])
def test_fine_tuning_is_never_advised_a_rate_that_teaches_nothing_nor_talked_out_of_one_that_does(batch, lr):
    made = override(PUBLISHED["finetune"]("tiny"), {"optim.batch": batch, "optim.lr": lr})
    assert lr_advice(made) is None and (expected_lr(made) or 0) >= LEAST_ADAM


def test_nothing_is_said_about_an_optimizer_that_the_recipe_was_not_made_with():
    chosen = override(PUBLISHED["imagenet1k"]("tiny"), {"optim.name": "sgd", "optim.lr": 30})
    assert expected_lr(chosen) is None and lr_advice(chosen) is None


@pytest.mark.parametrize("factor", [0.01, 100])
def test_small_tells_a_rate_a_hundred_times_off_and_its_own_value(factor):
    own = recipe("small", "atto", **SMALL)
    said = lr_advice(override(own, {"optim.lr": own.optim.lr * factor}))
    assert said and "\n" not in said and f"`--optim.lr {own.optim.lr:.3g}`" in said


# `small`: any data

IMAGES = st.integers(1, 5_000_000)
PIXELS = st.integers(1, 4000)
MODELS = st.sampled_from([*ARCHITECTURES, "timm:resnet18"])


@settings(deadline=None)
@given(IMAGES, PIXELS, MODELS)
def test_small_fits_any_data_and_any_network(images, image_px, model):
    made = recipe("small", model, images=images, image_px=image_px, classes=3)
    assert parse(Recipe, json.loads(made.model_dump_json()), where="again") == made
    assert made.name == "small" and "\n" not in made.source
    assert 1 <= made.optim.batch <= images
    assert made.schedule.warmup_epochs < made.schedule.epochs
    assert math.isfinite(made.optim.lr) and made.schedule.min_lr <= made.optim.lr
    sizes = [size for _, size in made.input.progressive] + [made.input.size_px]
    assert sizes == sorted(sizes)  # small images first
    assert sizes[-1] == made.input.eval_size_px  # and no test on larger ones than were trained on
    assert int(made.input.eval_size_px / made.input.eval_crop) >= made.input.eval_size_px
    assert made.input.eval_size_px <= max(32, 2 * image_px)  # no network is fed on pixels that are not there
    if made.model.family == "convnext":
        assert made.model.patch <= min(sizes)
        changed = {"stem", "patch", "drop_path", "layer_scale", "classes", "head_scale"}
        assert made.model.model_dump(exclude=changed) == ARCHITECTURES[model].model_dump(exclude=changed)


@settings(deadline=None)
@given(IMAGES, PIXELS, st.integers(1, 4096))
def test_small_takes_the_batch_it_is_given_with_a_rate_that_needs_no_advice(images, image_px, batch):
    made = recipe("small", "atto", images=images, image_px=image_px, classes=3, batch=batch)
    assert made.optim.batch == batch
    assert lr_advice(made) is None and expected_lr(made) == pytest.approx(made.optim.lr)
    larger = recipe("small", "atto", images=images, image_px=image_px, classes=3, batch=2 * batch)
    assert larger.optim.lr >= made.optim.lr


@settings(deadline=None)
@given(IMAGES, PIXELS, MODELS)
def test_small_is_silent_about_its_own_rate(images, image_px, model):
    assert lr_advice(recipe("small", model, images=images, image_px=image_px, classes=3)) is None


@settings(deadline=None)
@given(IMAGES, IMAGES, PIXELS)
def test_small_never_takes_a_smaller_batch_or_more_epochs_for_more_images(one, other, image_px):
    fewer, more = (
        recipe("small", "atto", images=images, image_px=image_px, classes=3) for images in sorted((one, other))
    )
    assert fewer.optim.batch <= more.optim.batch
    assert fewer.schedule.epochs >= more.schedule.epochs


@settings(deadline=None)
@given(st.integers(100, 100_000), st.integers(1, 30))
def test_the_average_of_a_shorter_run_is_over_the_same_share_of_it(images, epochs):
    own = recipe("small", "atto", images=images, image_px=128, classes=3)
    made = with_changes(own, {"schedule.epochs": epochs}, images=images)
    share = min(1.0, epochs / own.schedule.epochs)
    assert 1 / (1 - made.optim.ema) == pytest.approx(max(10, share / (1 - own.optim.ema)))
    assert made.schedule.warmup_epochs == pytest.approx(share * own.schedule.warmup_epochs)
    assert with_changes(own, {"schedule.epochs": epochs, "optim.ema": 0.5}, images=images).optim.ema == 0.5


def test_an_average_that_was_published_for_a_length_stays():
    own = recipe("imagenet1k", "tiny", **SMALL)
    assert with_changes(own, {"schedule.epochs": 3}, images=2000).optim.ema == own.optim.ema
