"""A run that was killed goes on to the same bits as one that was not."""

import json
import os
import signal
from pathlib import Path

import pytest

from children import children_of, ended
from commands import convnext
from convnext.engine.signals import Stop
from images import write_colours
from loaded import COMMAND, WAITING, Loaded
from runs import bits

STEPS_PER_EPOCH, EPOCHS = 6, 4


def words(data: Path, out: Path, *more: str) -> list[str]:
    arguments = ["train", str(data), "--out", str(out), "--epochs", str(EPOCHS), "--batch", "6", "--size", "16"]
    arguments += ["--model.depths", "1,1", "--model.widths", "8,16", "--model.patch", "2", "--model.drop_path", "0.3"]
    arguments += ["--augment.mixup", "0.4", "--optim.ema", "0.9", "--checkpoint-steps", "1", "--workers", "1"]
    return [*arguments, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = convnext(*words(data, out))
    assert done.status == 0, done.err
    return bits(out)


def kill_at(loaded: Loaded, arguments: list[str], rows: int, number: int, *, group: bool = False) -> int:
    """Start a run, send it signal `number` once its log has `rows` rows, and return its exit status.

    `group`: its workers get the signal as well, and before it, as from a scheduler that ends a job.
    """
    with loaded.forked(WAITING + COMMAND, "metrics.jsonl", rows, *arguments, session=group) as process:
        assert process.stdout.readline() == "waiting\n", process.stderr.read()
        for child in children_of(process.pid) if group else ():
            os.kill(child, number)
        (os.killpg if group else os.kill)(process.pid, number)
        if number != signal.SIGKILL:
            process.go_on()
        return ended(process)


def test_a_run_killed_several_times_ends_with_the_bits_of_an_uninterrupted_one(loaded, data, whole, tmp_path):
    arguments = words(data, tmp_path / "run")
    for rows in (3, 9, 17):  # in the first epoch, at the edge of the first evaluation, mid-epoch
        assert kill_at(loaded, arguments, rows, signal.SIGKILL) == -signal.SIGKILL
    done = convnext(*arguments)
    assert done.status == 0, done.err
    assert "Going on with" in done.err
    assert bits(tmp_path / "run") == whole


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, True)]
)
def test_a_polite_stop_saves_says_so_and_goes_on(loaded, data, whole, tmp_path, number, group):
    arguments = words(data, tmp_path / "run")
    assert kill_at(loaded, arguments, 5, number, group=group) == 130
    assert (tmp_path / "run" / "last.safetensors").exists()
    assert convnext(*arguments).status == 0
    assert bits(tmp_path / "run") == whole


def test_a_scheduler_and_a_launcher_that_both_ask_for_a_stop_ask_for_one():
    with Stop() as stop:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):  # a person who does not want to wait
            signal.raise_signal(signal.SIGINT)


def test_the_same_command_after_the_end_trains_nothing_and_says_the_result(data, tmp_path):
    arguments = words(data, tmp_path / "run", "--json")
    first, second = convnext(*arguments), convnext(*arguments)
    assert json.loads(first.out) == json.loads(second.out)


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(data, tmp_path):
    convnext(*words(data, tmp_path / "run"))
    done = convnext(*words(data, tmp_path / "run", "--lr", "0.5"))
    assert done.status == 2
    assert "optim.lr" in done.err
    assert "0.5" in done.err
    assert "--out" in done.err
