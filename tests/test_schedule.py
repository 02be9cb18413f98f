"""The learning rate of every step: the published schedules, slow versions beside them, and what holds for any run."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext import recipes
from convnext.config import OptimConfig, ScheduleConfig
from convnext.engine.schedule import lr_at, total_steps

PUBLISHED = recipes.PUBLISHED["classification"]

SCHEDULES = st.builds(
    lambda epochs, share, kind, floor: ScheduleConfig(
        epochs=epochs, warmup_epochs=epochs * share, kind=kind, min_lr=floor
    ),
    st.floats(0.1, 40),
    st.floats(0, 0.95),
    st.sampled_from(["cosine", "linear", "step"]),
    st.floats(0, 2e-2),  # also above the peak
)


def rates(steps_per_epoch: int, optim: OptimConfig, schedule: ScheduleConfig) -> np.ndarray:
    steps = range(total_steps(steps_per_epoch, schedule))
    return np.array([lr_at(i, steps_per_epoch=steps_per_epoch, optim=optim, schedule=schedule) for i in steps])


def slow(total: int, warmup: int, peak: float, floor: float, shape) -> np.ndarray:
    """Both parts written out and put behind each other; `shape` falls from 1 to 0 over 0..1."""
    rest = total - warmup
    falling = [floor + (peak - floor) * shape(i / rest) for i in range(rest)]
    return np.concatenate([np.linspace(0, peak, warmup), falling])


def test_the_published_imagenet_run_has_its_steps_warm_up_and_cosine():
    recipe = PUBLISHED["imagenet1k"]("tiny")
    per_epoch = 1_281_167 // 4096
    assert per_epoch == 312  # facts: the last, short batch of an epoch is left out
    found = rates(per_epoch, recipe.optim, recipe.schedule)
    assert len(found) == 93_600
    expected = slow(93_600, 20 * 312, 4e-3, 1e-6, lambda t: (1 + math.cos(math.pi * t)) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)
    assert found[0] == 0 and found[20 * 312 - 1] == found[20 * 312] == 4e-3  # both ends of the warm-up are included
    assert 1e-6 < found[-1] < 1.0001e-6  # the smallest rate would come one step later


def test_fine_tuning_starts_at_its_peak():
    recipe = PUBLISHED["finetune"]("base")
    found = rates(100, recipe.optim, recipe.schedule)
    assert found[0] == 5e-5 and len(found) == 3000
    np.testing.assert_allclose(found, slow(3000, 0, 5e-5, 1e-6, lambda t: (1 + math.cos(math.pi * t)) / 2), rtol=1e-12)


def test_the_resnet_recipe_divides_by_ten_every_thirty_epochs():
    recipe = PUBLISHED["resnet_original"]("timm:resnet50")
    expected = np.repeat([0.1, 0.01, 0.001], 30 * 7)
    np.testing.assert_allclose(rates(7, recipe.optim, recipe.schedule), expected, rtol=1e-12)


def test_a_linear_schedule_falls_by_the_same_amount_every_step():
    optim, schedule = OptimConfig(lr=2.0, batch=1), ScheduleConfig(epochs=5, warmup_epochs=2, kind="linear", min_lr=0.5)
    np.testing.assert_allclose(rates(4, optim, schedule), slow(20, 8, 2.0, 0.5, lambda t: 1 - t), rtol=1e-12)


def test_steps_fall_from_the_start_of_the_run_and_stop_at_the_smallest_rate():
    optim = OptimConfig(lr=1.0, batch=1)
    schedule = ScheduleConfig(epochs=6, warmup_epochs=1, kind="step", step_epochs=2, step_factor=0.1, min_lr=0.05)
    expected = [0, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    np.testing.assert_allclose(rates(2, optim, schedule), expected, rtol=1e-12)


def test_a_warm_up_of_one_step_has_rate_0_and_one_of_none_starts_at_the_peak():
    optim = OptimConfig(lr=1.0, batch=1)
    assert lr_at(0, steps_per_epoch=1, optim=optim, schedule=ScheduleConfig(epochs=9, warmup_epochs=1)) == 0
    assert lr_at(1, steps_per_epoch=1, optim=optim, schedule=ScheduleConfig(epochs=9, warmup_epochs=1)) == 1
    assert lr_at(0, steps_per_epoch=1, optim=optim, schedule=ScheduleConfig(epochs=9)) == 1


@pytest.mark.parametrize(("epochs", "per_epoch", "steps"), [(3, 7, 21), (0.5, 7, 4), (0.01, 7, 1), (2.5, 2, 5)])
def test_epochs_may_be_fractional_and_a_run_has_at_least_one_step(epochs, per_epoch, steps):
    assert total_steps(per_epoch, ScheduleConfig(epochs=epochs)) == steps


@settings(deadline=None)
@given(SCHEDULES, st.integers(1, 50))
def test_any_schedule_stays_within_its_bounds_and_never_rises_after_the_warm_up(schedule, per_epoch):
    optim = OptimConfig(lr=1e-2, batch=1)
    found = rates(per_epoch, optim, schedule)
    warmup = round(schedule.warmup_epochs * per_epoch)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= optim.lr * (1 + 1e-12)
    assert (np.diff(found[:warmup]) >= 0).all()
    assert (np.diff(found[warmup:]) <= 1e-12 * optim.lr).all()
    assert (found[warmup:] >= min(schedule.min_lr, optim.lr) * (1 - 1e-12)).all()
