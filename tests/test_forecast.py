"""How long a run takes, told from its own first steps, without changing it."""

import re

import pytest

from commands import convnext, tiny
from convnext.config import override
from convnext.engine import forecast
from convnext.engine.forecast import Forecast, Work, in_words, sentence
from convnext.recipes import recipe
from convnext.tasks.work import work_of
from images import write_colours
from runs import bits

WORK = Work(phases=((100, 1.0), (300, 4.0)), evaluation=50.0, evaluations=7)  # 900 of training, 350 of evaluation


class Held:
    """Parts with so many images."""

    def __init__(self, train: int, val: int):
        self.train, self.val = (type("Part", (), {"entries": range(n)}) for n in (train, val))


def told(seconds_a_unit: float, *, evaluated: float | None = None, first_s: float = 100.0) -> list[str]:
    """What a run with this pace says in its first 60 steps."""
    said: list[str] = []
    watcher, now = Forecast(WORK), first_s
    watcher.passed(1, now, tell=said.append)
    for step in range(2, 61):
        now += seconds_a_unit
        if step == 3 and evaluated is not None:
            now += evaluated
            watcher.evaluated(evaluated)
        watcher.passed(step, now, tell=said.append)
    return said


def test_work_adds_up_over_phases():
    assert WORK.between(0, 300) == 900 and WORK.between(90, 110) == 10 + 40 and WORK.between(150, 160) == 40


def test_the_whole_run_is_told_once_whatever_the_first_step_took():
    assert told(1.0) == told(1.0, first_s=1e6) == [sentence(900 + 350)]


def test_an_evaluation_that_was_timed_counts_as_it_was():
    assert told(1.0, evaluated=100.0) == [sentence(900 + 700)]


def test_a_short_run_and_one_that_ends_before_it_can_be_judged_say_nothing():
    assert told(0.1) == [] and told(0.2) == [sentence(250)]
    assert told(0.001) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 s"), (200, "3 min"), (3599, "1 h"), (6500, "1 h 50 min"), (10**5, "27 h 50 min"), (10**6, "11 d 13 h")],
)
def test_times_are_as_exact_as_an_estimate(seconds, words):
    assert in_words(seconds) == words


def test_a_shorter_run_is_offered_where_there_is_one():
    assert sentence(6600) == "This run takes about 1 h 50 min on this machine; `--minutes 30` fits a shorter run."
    assert sentence(300) == "This run takes about 5 min on this machine."


def test_where_bf16_is_faster_a_run_in_float32_says_so():
    start, end = "This run takes about 5 min on this machine", "`--precision bf16` is faster on this processor"
    assert sentence(300, faster=True) == f"{start}; {end}."
    assert sentence(6600, faster=True).endswith(f"machine; {end}; `--minutes 30` fits a shorter run.")


@pytest.mark.parametrize(("seconds_a_unit", "asked"), [(0.1, 0), (0.2, 1)], ids=["short", "long"])
def test_only_a_run_that_is_told_of_asks_the_processor(seconds_a_unit, asked):
    calls: list[int] = []
    watcher = Forecast(WORK, faster=lambda: bool(calls.append(1)))
    for step in range(1, 61):
        watcher.passed(step, 100 + step * seconds_a_unit, tell=lambda text: None)
    assert len(calls) == asked


def test_the_work_of_a_recipe_is_pixels_times_images():
    chosen = recipe("small", "atto", images=640, image_px=128, classes=2, batch=64)
    fields = {"schedule.epochs": 10, "schedule.warmup_epochs": 0, "input.size_px": 100, "input.eval_size_px": 90}
    chosen = override(chosen, fields | {"input.progressive": [[0.5, 50]], "schedule.eval_epochs": 5})
    work = work_of(chosen, Held(640, 30))
    assert work.phases == ((50, 64 * 50**2), (100, 64 * 100**2))
    assert work.evaluation == 30 * 90**2 / 3 and work.evaluations == 2 * 2 + 1  # raw and EMA weights, and the best
    dense = recipe("small_segmentation", "atto", images=80, image_px=96, classes=2, batch=8)
    whole = work_of(dense, Held(80, 12))
    assert whole.steps == round(dense.schedule.epochs * 10)
    assert whole.phases[0][1] == 8 * dense.input.crop_px**2


def test_a_run_that_tells_how_long_it_takes_has_the_bits_of_one_that_does_not(tmp_path, monkeypatch):
    data = write_colours(tmp_path / "colours", train=6, val=2)
    more = ("--epochs", 8)
    assert "This run takes" not in convnext(*tiny(data, tmp_path / "quiet", *more)).err
    monkeypatch.setattr(forecast, "ENOUGH_S", 0.0)
    monkeypatch.setattr(forecast, "SHORT_S", 0.0)
    done = convnext(*tiny(data, tmp_path / "telling", *more))
    assert len(re.findall(r"This run takes about \d+ s on this machine", done.err)) == 1
    assert bits(tmp_path / "quiet") == bits(tmp_path / "telling")
    again = convnext(*tiny(data, tmp_path / "telling", *more))  # has nothing left to do
    assert "This run takes" not in again.err
