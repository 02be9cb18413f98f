"""--minutes: the recipe is fitted to the time, the plan is kept, and the run is the one of that plan to the bit."""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convnext as package
from commands import convnext, tiny
from convnext.config import Recipe, fields_of, override, parse
from convnext.engine.schedule import total_steps
from convnext.engine.trial import Timed
from convnext.errors import ConvNeXtError
from convnext.recipes import RECIPES, recipe
from convnext.recipes.shorter import least_epochs, length_in_epochs, shorter, size_of, sizes_below, smaller
from convnext.tasks import budget
from convnext.tasks.pace import SPENT, Pace, fitted, of_length, parts_of, seconds_of
from images import write_colours
from loaded import COMMAND, told
from runs import bits
from shapes import write_shapes

NAMES = [name for named in RECIPES.values() for name in named]
IMAGES = 3200


@dataclass
class Free:
    kept: frozenset[str] = frozenset()
    sized: bool = False


def made(name: str, image_px: int = 128) -> Any:
    return recipe(name, "tiny", images=IMAGES, image_px=image_px, classes=3)


def per_epoch(chosen: Recipe) -> int:
    return max(1, IMAGES // chosen.optim.batch)


def machine(step_s: float, evaluation_s: float, whole_px: int, spent_s: float = 2.0) -> Callable[[Any], Pace]:
    """One on which a step takes so long at `whole_px`, and in proportion to the area of other images."""

    def measured(chosen: Any) -> Pace:
        area = (size_of(chosen) / whole_px) ** 2
        timed = Timed(step_s * area, 0.5)
        parts = parts_of(chosen, total_steps(per_epoch(chosen), chosen.schedule))
        return Pace((timed,) * len(parts), per_epoch(chosen), evaluation_s * area, 0.1, spent_s)

    return measured


# A shorter recipe


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_follows_the_length_keeps_its_share(name):
    whole = made(name)
    steps = per_epoch(whole)
    epochs = max(1, int(length_in_epochs(whole, steps) / 3))
    short = shorter(whole, epochs, steps_per_epoch=steps)
    share = epochs / length_in_epochs(whole, steps)
    assert length_in_epochs(short, steps) == epochs
    assert short.schedule.warmup_epochs == pytest.approx(whole.schedule.warmup_epochs * share)
    assert short.schedule.warmup_steps == math.floor(whole.schedule.warmup_steps * share)
    assert short.schedule.milestones == pytest.approx([epoch * share for epoch in whole.schedule.milestones])
    if whole.optim.ema:
        span = total_steps(steps, whole.schedule) * (1 - whole.optim.ema)
        assert total_steps(steps, short.schedule) * (1 - short.optim.ema) == pytest.approx(span)
    others = {"epochs", "steps", "warmup_epochs", "warmup_steps", "milestones", "ema", "eval_epochs", "step_epochs"}
    changed = {name for name, value in fields_of(short).items() if value != fields_of(whole)[name]}
    assert {name.split(".")[1] for name in changed} <= others


def test_a_field_that_a_person_gave_stays_unless_it_does_not_fit():
    whole = override(made("small"), {"schedule.warmup_epochs": 4, "optim.ema": 0.99, "schedule.eval_epochs": 7})
    kept = ("schedule.warmup_epochs", "optim.ema", "schedule.eval_epochs")
    short = shorter(whole, 10, steps_per_epoch=per_epoch(whole), kept=kept)
    assert (short.schedule.warmup_epochs, short.optim.ema, short.schedule.eval_epochs) == (4, 0.99, 7)
    assert shorter(whole, 3, steps_per_epoch=per_epoch(whole), kept=kept).schedule.warmup_epochs < 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_px", [128, 640])
def test_smaller_images_are_smaller_everywhere_and_the_network_stays(name, image_px):
    whole = made(name, image_px)
    sizes = sizes_below(whole)
    assert sizes == sorted(sizes, reverse=True) and all(px < size_of(whole) <= 2 * px + 32 for px in sizes)
    for px in sizes:
        small = smaller(whole, px)
        assert size_of(small) == px and small.model == whole.model
        ratio = px / size_of(whole)
        for field, value in fields_of(small).items():
            if field.endswith("short_px") or field in ("input.size_px", "input.crop_px"):
                before = fields_of(whole)[field]
                for new, old in zip(*((x if isinstance(x, tuple) else (x,)) for x in (value, before)), strict=True):
                    assert abs(new - old * ratio) <= 32 and new <= old, field
            elif not field.endswith("_px") and field != "input.progressive":
                assert value == fields_of(whole)[field]
        shares = getattr(small.input, "progressive", ())
        assert [share for share, _ in shares] == [share for share, _ in getattr(whole.input, "progressive", ())]


# The longest run that ends in time


@settings(max_examples=40)
@given(
    st.sampled_from(["small", "imagenet1k", "small_detection", "small_segmentation", "ade20k_upernet_160k"]),
    st.floats(1e-3, 3),
    st.floats(0.1, 30),
    st.floats(30, 1e5),
)
def test_the_longest_form_that_ends_in_time_is_chosen(name, step_s, evaluation_s, seconds):
    whole = made(name)
    measured = machine(step_s, evaluation_s, size_of(whole))
    try:
        found, pace = fitted(whole, measured, seconds, images=IMAGES, free=Free())
    except ConvNeXtError as error:
        least = float(str(error).split("Give ")[1].split(" ")[0])
        assert 60 * least > seconds and fitted(whole, measured, 60 * least, images=IMAGES, free=Free())
        return
    assert pace.spent_s + seconds_of(found, pace) <= SPENT * seconds
    steps, least = pace.steps_per_epoch, least_epochs(whole, pace.steps_per_epoch)
    if size_of(found) == size_of(whole):
        epochs = length_in_epochs(found, steps)
        assert epochs == length_in_epochs(whole, steps) or epochs >= least or not sizes_below(whole)
    if length_in_epochs(found, steps) + 1 <= length_in_epochs(whole, steps):  # one more pass would be late
        base = smaller(whole, size_of(found)) if size_of(found) < size_of(whole) else whole
        longer = of_length(base, int(length_in_epochs(found, steps)) + 1, pace, Free())
        assert pace.spent_s + seconds_of(longer, pace) > SPENT * seconds


def test_a_run_that_fits_is_left_as_it_is():
    whole = made("small")
    assert fitted(whole, machine(0.01, 1, 128), 1e5, images=IMAGES, free=Free())[0] == whole


def test_images_become_smaller_only_where_too_few_passes_are_left_and_stay_where_a_person_gave_their_size():
    whole = made("small")
    step_s = 0.3
    least = least_epochs(whole, per_epoch(whole))
    enough = 1.3 * (
        seconds_of(shorter(whole, least, steps_per_epoch=per_epoch(whole)), machine(step_s, 1, 128)(whole)) + 2
    )
    found, _ = fitted(whole, machine(step_s, 1, 128), enough, images=IMAGES, free=Free())
    assert size_of(found) == 128 and found.schedule.epochs >= least
    found, _ = fitted(whole, machine(step_s, 1, 128), enough / 2, images=IMAGES, free=Free())
    assert size_of(found) < 128 and found.schedule.epochs >= least and found.input.progressive
    found, _ = fitted(whole, machine(step_s, 1, 128), enough / 2, images=IMAGES, free=Free(sized=True))
    assert size_of(found) == 128 and found.schedule.epochs < least


def test_epochs_go_before_size_where_a_probe_comes_first():
    whole = override(made("transfer", 112), {"input.size_px": 112, "input.eval_size_px": 112})
    step_s = 0.3
    one = 1.1 * (seconds_of(shorter(whole, 1, steps_per_epoch=per_epoch(whole)), machine(step_s, 1, 112)(whole)) + 2)
    found, _ = fitted(whole, machine(step_s, 1, 112), one, images=IMAGES, free=Free())
    assert size_of(found) == 112 and 1 <= found.schedule.epochs <= 2
    found, _ = fitted(whole, machine(step_s, 1, 112), 0.85 * one, images=IMAGES, free=Free())
    assert size_of(found) == 96 and found.schedule.epochs == 1
    assert sizes_below(override(whole, {"input.eval_size_px": 96})) == []


def test_few_epochs_are_no_reason_to_warn_where_the_network_starts_from_weights(data, tmp_path, slow):
    assert convnext(*asked(data, tmp_path / "source", "--minutes", 0.2)).status == 0
    words = ("train", data, "--weights", tmp_path / "source", "--batch", 24, "--workers", 0, "--minutes", 0.3)
    done = convnext(*words, "--out", tmp_path / "run")
    assert done.status == 0 and "Planned for 0.3 min: " in done.err and "may teach" not in done.err, done.err


def test_evaluations_become_rarer_where_they_would_take_most_of_the_time():
    whole = made("small")
    dear = machine(0.05, 20, 128)  # an evaluation of raw and EMA weights takes as long as sixteen passes
    found, _ = fitted(whole, dear, 400, images=IMAGES, free=Free())
    assert found.schedule.eval_epochs > 1 and found.schedule.epochs / found.schedule.eval_epochs >= 3.5
    kept, _ = fitted(whole, dear, 400, images=IMAGES, free=Free(kept=frozenset({"schedule.eval_epochs"})))
    assert kept.schedule.eval_epochs == 1 and kept.schedule.epochs < found.schedule.epochs


# A run that begins with a probe


def few(**fields: Any) -> Any:
    """300 images in three parts."""
    whole = recipe("transfer", "atto", images=240, image_px=64, classes=3)
    return override(whole, {"start.folds": 3, "schedule.epochs": 20, "schedule.eval_epochs": 1, **fields})


def by_parts(step_s: float = 0.1, *, shared: bool = True) -> Callable[[Any], Pace]:
    measured = machine(step_s, 3.0, size_of(few()))
    return lambda chosen: replace(
        measured(chosen), steps_per_epoch=15, images=(240, 60), shared=shared, head_s=7.0, save_s=0.0
    )


def test_a_run_in_parts_takes_all_its_trainings_its_features_its_heads_and_its_mixes():
    whole = few()
    pace = by_parts()(whole)
    steps = 20 * 15 * 0.1
    scored = 20 * 2 * 3.0  # after each epoch, raw and EMA weights, on the 60 images that part 1 holds out
    features = (240 * 2 + 60 * 2) * 3.0 / 60
    parts = [
        (1, 1),
        (180 / 240, 120 / 60),
        (180 / 240, 120 / 60),
    ]  # images to train on and held out, of those of part 1
    trained = sum(images * steps + 0.5 + held * scored for images, held in parts)
    last = 300 / 240 * steps + 0.5 + 2 * 3.0
    mixes = (len(whole.start.mix) + 2) * 300 / 60 * 3.0
    assert seconds_of(whole, pace) == pytest.approx(features + 4 * 7.0 + trained + last + mixes + 3.0)
    alone = override(whole, {"start.folds": 0})
    kept = (240 * 2 + 60) * 3.0 / 60 + 7.0 + steps + 0.5 + scored + (len(whole.start.mix) + 1) * 3.0 + 3.0
    assert seconds_of(alone, pace) == pytest.approx(kept) == seconds_of(alone, replace(pace, shared=False))


def test_parts_are_kept_where_all_their_epochs_fit_and_else_go_before_epochs():
    whole, measured = few(), by_parts()
    enough = (seconds_of(whole, measured(whole)) + 2.0) / SPENT
    found, _ = fitted(whole, measured, 1.001 * enough, images=240, free=Free())
    assert found == whole
    found, _ = fitted(whole, measured, 0.999 * enough, images=240, free=Free())
    assert found == override(whole, {"start.folds": 0})


def test_parts_that_a_person_asked_for_stay_and_all_of_them_end_in_time():
    whole, measured = few(), by_parts()
    enough = (seconds_of(whole, measured(whole)) + 2.0) / SPENT
    found, pace = fitted(whole, measured, 0.5 * enough, images=240, free=Free(kept=frozenset({"start.folds"})))
    assert found.start.folds == 3 and found.schedule.epochs < 20
    assert pace.spent_s + seconds_of(found, pace) <= SPENT * 0.5 * enough


def test_a_probe_alone_takes_its_features_and_its_head_and_no_step():
    whole = override(few(), {"start.folds": 0, "start.mix": (), "start.mode": "probe"})
    pace = replace(by_parts()(whole), steps=())
    assert seconds_of(whole, pace) == pytest.approx((240 * 2 + 60) * 3.0 / 60 + 7.0 + 3.0 + 3.0)
    found, _ = fitted(whole, lambda _: pace, 60, images=240, free=Free())
    assert found == whole
    with pytest.raises(ConvNeXtError, match=r"minutes = 0\.1 is too short"):
        fitted(whole, lambda _: pace, 6, images=240, free=Free(sized=True))


def test_a_frozen_network_is_planned_without_a_step(data, tmp_path, slow):
    assert convnext(*asked(data, tmp_path / "source", "--minutes", 0.2)).status == 0
    words = ("train", data / "train", "--weights", tmp_path / "source", "--batch", 24, "--workers", 0)
    done = convnext(*words, "--freeze", "--minutes", 5, "--out", tmp_path / "frozen")
    assert done.status == 0 and "Planned for 5 min: a linear head on the frozen network. An evaluation" in done.err
    assert plan_of(tmp_path / "frozen")["measured"]["steps"] == []


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"), train=24, val=4)


def asked(data: Path, out: Path, *more: object) -> list[str]:
    """The words of a run of 150 epochs that ends once it knows the colours."""
    words = tiny(data, out, "--batch", 24, "--schedule.patience", 2, *more)
    place = words.index("--epochs")
    return [str(word) for word in words[:place] + words[place + 2 :]]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that measures 0.4 s a step, 0.2 s an evaluation and 2 s before them, and trains as fast as it can."""
    clock = itertools.count(1000.0, 2.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(budget, "try_steps", lambda task, *_, at, **__: ([Timed(0.4, 0.0)] * len(at), None))
    monkeypatch.setattr(budget, "saving_s", lambda *_: 0.0)
    monkeypatch.setattr(budget, "_evaluation_s", lambda *_: 0.2)


def plan_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "plan.json").read_text("utf-8"))


def test_a_planned_run_has_the_bits_of_the_recipe_that_was_planned(data, tmp_path, slow):
    done = convnext(*asked(data, tmp_path / "planned", "--minutes", 1))
    assert done.status == 0, done.err
    plan = plan_of(tmp_path / "planned")
    saved = json.loads((tmp_path / "planned" / "recipe.json").read_text("utf-8"))
    assert plan["recipe"] == saved and plan["minutes"] == 1
    assert plan["changed"]["schedule.epochs"] == [150, saved["schedule"]["epochs"]]
    assert plan["measured"]["steps"][0]["step_s"] == 0.4 and 0.3 < plan["expected_minutes"] <= 1
    assert f"Planned for 1 min: {saved['schedule']['epochs']:g} epochs instead of 150. A step takes 0.4 s" in done.err
    chosen = parse(Recipe, saved, where="recipe.json")
    package.train(data, recipe=chosen, out=tmp_path / "given", workers=0, progress=False)
    assert bits(tmp_path / "planned") == bits(tmp_path / "given")


def test_measuring_changes_nothing_of_the_run(data, tmp_path):
    done = convnext(*asked(data, tmp_path / "planned", "--minutes", 600))  # its own length fits
    assert done.status == 0 and "Planned for 600 min: all 150 epochs." in done.err, done.err
    assert plan_of(tmp_path / "planned")["changed"] == {}
    assert convnext(*asked(data, tmp_path / "plain")).status == 0
    assert bits(tmp_path / "planned") == bits(tmp_path / "plain")
    assert not list((tmp_path / "planned").glob(".trial-*"))


def ended_after(monkeypatch: pytest.MonkeyPatch, words: list[str], module: Any, name: str) -> None:
    """Run until `name` of `module` is called; it ends the process."""

    def ends(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, ends)
        assert convnext(*words).status == 130


def test_a_run_that_was_killed_goes_on_by_its_plan_without_measuring_again(data, tmp_path, slow, monkeypatch):
    from convnext.engine.saving import Saver

    whole, killed = (asked(data, tmp_path / name, "--minutes", 1) for name in ("whole", "killed"))
    assert convnext(*whole).status == 0
    ended_after(monkeypatch, killed, package.tasks.fitting, "fit")  # planned, and not one step done
    monkeypatch.setattr(budget, "try_steps", None)  # would raise
    ended_after(monkeypatch, killed, Saver, "keep_best")  # in the middle
    done = convnext(*killed)
    assert done.status == 0 and "As planned in '" in done.err, done.err
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_a_folder_with_a_run_that_was_planned_otherwise_is_refused_with_the_way_out(data, tmp_path, slow):
    planned, plain = tmp_path / "planned", tmp_path / "plain"
    assert convnext(*asked(data, planned, "--minutes", 1)).status == 0
    ways = {
        (): "Add --minutes 1 to go on with it",
        ("--minutes", 2): "Give --minutes 1 to go on with it",
        ("--minutes", 1, "--lr", 0.5): "Give the same recipe and options to go on with it",
    }
    for more, way in ways.items():
        line = convnext(*asked(data, planned, *more)).err.splitlines()[-1]
        assert line == f"convnext: '{planned}' holds a run planned for 1 min. {way}, or choose another --out."
    assert convnext(*tiny(data, plain)).status == 0
    line = convnext(*asked(data, plain, "--minutes", 1)).err.splitlines()[-1]
    assert "holds a run without a plan of its time. To go on with it leave out --minutes" in line
    (planned / "plan.json").write_text("{")
    assert "plan.json' is damaged" in convnext(*asked(data, planned, "--minutes", 1)).err


@pytest.mark.parametrize("minutes", [0, -1, "soon", "nan", "true"])
def test_what_is_no_time_is_refused_before_the_data_are_read(tmp_path, minutes):
    line = convnext("train", tmp_path / "nothing", "--minutes", minutes).line
    assert line == f"minutes = {minutes} is refused: it must be a number of minutes above 0, e.g. 20."


def test_a_length_beside_the_minutes_is_the_most(data, tmp_path, slow):
    """As somebody gives them who adds to a command the `--minutes` that a run advises."""
    fits = convnext(*asked(data, tmp_path / "fits", "--minutes", 1, "--schedule.epochs", 2))
    assert fits.status == 0 and "Planned for 1 min: all 2 " in fits.err, fits.err
    long = convnext(*asked(data, tmp_path / "long", "--minutes", 0.3, "--schedule.epochs", 100))
    assert long.status == 0 and " instead of 100. " in long.err, long.err


def test_a_time_that_is_too_short_for_one_pass_is_refused_with_the_least(data, tmp_path, slow):
    done = convnext(*asked(data, tmp_path / "run", "--minutes", 0.06))
    assert done.status == 2
    line = done.err.splitlines()[-1]
    assert "minutes = 0.06 is too short for one pass over the 72 training images on this machine. Give 0." in line
    least = line.split("Give ")[1].split(" ")[0]
    assert convnext(*asked(data, tmp_path / "run", "--minutes", least)).status == 0


def test_two_processes_have_one_plan(loaded, data, tmp_path):
    words = asked(data, tmp_path / "two", "--minutes", 20, "--lr", 1e-9, "--schedule.patience", 1)
    with loaded.ranks(COMMAND, *words) as ranks:
        (_, err), (_, other) = told(ranks)
    assert err.count("Planned for 20 min") == err.count("Stopped early at epoch ") == 1 and not other
    assert plan_of(tmp_path / "two")["measured"]["steps_per_epoch"] == 3


def test_a_run_of_another_task_is_measured_by_its_own_steps_and_evaluation(tmp_path):
    data = write_shapes(tmp_path / "maps")
    small = ("--model.depths", "1,1,1,1", "--model.widths", "8,12,16,24", "--head.width", 16, "--head.aux_width", 8)
    words = ("train", data, "--out", tmp_path / "run", "--minutes", 9, "--schedule.patience", 1, "--workers", 0, *small)
    done = convnext(*words)
    assert done.status == 0 and "Planned for 9 min: " in done.err, done.err
    measured = plan_of(tmp_path / "run")["measured"]
    assert measured["steps"][0]["step_s"] > 0 and measured["evaluation_s"] > 0 and measured["save_s"] > 0
