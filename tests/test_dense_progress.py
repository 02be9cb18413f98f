"""What a person sees while a detector or a segmenter works: how far it is, and what to turn when memory runs out."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from commands import convnext, rows
from convnext.cli import main
from convnext.data.opening import open_dense_splits, recognise
from convnext.engine.records import Meter
from convnext.errors import TrainingError
from convnext.tasks.detection.build import build
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.scoring import evaluate
from convnext.tasks.segmentation import scoring, task
from images import write_colours
from shape_objects import small, write_objects
from shapes import write_shapes
from test_cli_dense import arguments, trained


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    write_objects(folder / "detection")
    write_shapes(folder / "segmentation", train=4, val=3)
    write_colours(folder / "classification", val=2)
    return folder


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def run(request: pytest.FixtureRequest, place: Path) -> tuple[Path, Path]:
    """A trained run and its data."""
    out, data = place / "runs" / request.param, place / request.param
    trained(data, out, request.param, "--epochs", 1)
    return out, data


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stderr is no terminal, every advance is a line."""
    monkeypatch.setitem(Meter.__init__.__kwdefaults__, "every_s", -1.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def evaluations(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("evaluating ")]


@pytest.mark.usefixtures("talkative")
def test_evaluation_says_how_far_it_is_and_with_json_nothing(run):
    out, data = run
    done = convnext("evaluate", out, data, "--workers", 0)
    held = 4 if out.name == "detection" else 3
    lines = evaluations(done.err)
    assert [line.split()[1] for line in lines] == [f"{i}/{held}" for i in range(1, held)]  # the result ends it
    assert all("images/s" in line and line.endswith("left") for line in lines)
    assert not evaluations(done.out)
    assert not evaluations(convnext("evaluate", out, data, "--workers", 0, "--json").err)


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_evaluations_between_epochs_say_how_far_they_are_and_with_json_nothing(place, tmp_path, task):
    data = place / task
    said = trained(data, tmp_path / "shown", task, "--epochs", 1).err
    each, more = (
        (3, 0) if task == "detection" else (2, 4)
    )  # lines an evaluation; what rare classes give back, in 4 shares
    assert len(evaluations(said)) == each * (3 + more)  # raw and EMA weights, and the best at the end
    assert "step 2/" in said
    silent = trained(data, tmp_path / "silent", task, "--epochs", 1, "--json").err
    assert not evaluations(silent) and "step 2/" not in silent and "epoch 1/1" in silent
    assert rows(tmp_path / "silent") == rows(tmp_path / "shown")


@pytest.mark.usefixtures("talkative")
def test_classifiers_say_it_in_the_same_way(place, tmp_path):
    more = [
        "--epochs",
        1,
        "--batch",
        6,
        "--size",
        16,
        "--workers",
        0,
        "--model.depths",
        "1,1",
        "--model.widths",
        "8,16",
    ]
    data, out = place / "classification", tmp_path / "run"
    assert convnext("train", data, "--out", out, "--model.patch", 2, *more).status == 0
    done = convnext("evaluate", out, data, "--workers", 0, "--batch", 2)
    assert [line.split()[1] for line in evaluations(done.err)] == ["2/6", "4/6"]


def test_a_terminal_has_one_bar_at_a_time_for_the_steps_or_for_the_evaluation(place, tmp_path, monkeypatch):
    live: list[Progress] = []
    most: list[int] = []

    def started(bar: Progress) -> None:
        live.append(bar)
        most.append(len(live))
        start(bar)

    def stopped(bar: Progress) -> None:
        live.remove(bar)
        stop(bar)

    start, stop = Progress.start, Progress.stop
    monkeypatch.setattr(Progress, "start", started)
    monkeypatch.setattr(Progress, "stop", stopped)
    terminal = Terminal()
    with redirect_stderr(terminal):
        line = arguments(place / "detection", tmp_path / "run", "detection", "--epochs", 2, "--schedule.eval_epochs", 1)
        assert main([str(argument) for argument in line]) == 0
    assert not live and max(most) == 1
    assert len(most) == 1 + 2 * (2 + 1) + 1  # steps; twice two evaluations and steps again; the best weights
    assert "evaluating" in terminal.getvalue() and "step" in terminal.getvalue()


def full(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_no_room_for_a_training_batch_is_one_line_with_the_micro_batch_and_the_sizes(place, tmp_path, monkeypatch):
    whole = Detector.forward

    def one(network: Detector, images: Any, *others: Any) -> Any:
        return full() if len(images) > 1 else whole(network, images, *others)

    monkeypatch.setattr(Detector, "forward", one)
    line = arguments(place / "detection", tmp_path / "run", "detection")
    said = convnext(*line).err.splitlines()[-1]
    assert said.startswith("convnext: Out of memory with 2 images at a time.")
    assert all(f"`{flag}`" in said for flag in ("--micro-batch 1", "--input.short_px", "--input.crop_px"))
    assert convnext(*line, "--micro-batch", 1).status == 0


def test_no_room_for_the_batch_itself_is_one_line_with_the_sizes(place, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "normalise", full)
    said = convnext(*arguments(place / "segmentation", tmp_path / "run", "segmentation")).err.splitlines()[-1]
    assert said.startswith("convnext: Out of memory") and "`--input.crop_px`" in said and "`--input.short_px`" in said


def test_no_room_for_an_image_in_evaluation_is_one_line_with_its_name_and_the_size(run, monkeypatch):
    out, data = run
    monkeypatch.setattr(Detector, "judge", full)
    monkeypatch.setattr(scoring, "log_probabilities_of", full)
    said = convnext("evaluate", out, data, "--workers", 0).line
    assert "000.png" in said and "`--input.eval_short_px` (now 64)" in said and "--device cpu" in said


def test_other_errors_of_an_evaluation_are_not_taken_for_missing_memory(place, monkeypatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Detector, "judge", broken)
    chosen = small()
    with pytest.raises(RuntimeError, match="a bug of ours") as found:
        evaluate(build(chosen), open_dense_splits(recognise(place / "detection")).val, chosen)
    assert not isinstance(found.value, TrainingError)
