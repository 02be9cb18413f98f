"""A run that was killed goes on to the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from children import children_of, environment
from images import write_colours
from runs import bits

STEPS_PER_EPOCH, EPOCHS = 6, 4


def command(data: Path, out: Path, *more: str) -> list[str]:
    arguments = ["train", str(data), "--out", str(out), "--epochs", str(EPOCHS), "--batch", "6", "--size", "16"]
    arguments += ["--model.depths", "1,1", "--model.widths", "8,16", "--model.patch", "2", "--model.drop_path", "0.3"]
    arguments += ["--augment.mixup", "0.4", "--optim.ema", "0.9", "--checkpoint-steps", "1", "--workers", "1", *more]
    return [sys.executable, "-m", "convnext", *arguments]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=120, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = run(command(data, out))
    assert done.returncode == 0, done.stderr
    return bits(out)


def kill_at(arguments: list[str], out: Path, rows: int, number: int, *, group: bool = False) -> int:
    """Start a run, send it signal `number` once its log has `rows` rows, and return its exit status.

    `group`: its workers get the signal as well, and before it, as from a scheduler that ends a job.
    """
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(arguments, stdout=quiet, stderr=quiet, env=environment(), start_new_session=group)
    log = out / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < rows):
        time.sleep(0.002)
    for child in children_of(process.pid) if group else ():
        os.kill(child, number)
    (os.killpg if group else os.kill)(process.pid, number)
    return process.wait(60)


def test_a_run_killed_several_times_ends_with_the_bits_of_an_uninterrupted_one(data, whole, tmp_path):
    arguments = command(data, tmp_path / "run")
    for rows in (3, 9, 17):  # in the first epoch, at the edge of the first evaluation, mid-epoch
        assert kill_at(arguments, tmp_path / "run", rows, signal.SIGKILL) == -signal.SIGKILL
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    assert "Going on with" in done.stderr
    assert bits(tmp_path / "run") == whole


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, True)]
)
def test_a_polite_stop_saves_says_so_and_goes_on(data, whole, tmp_path, number, group):
    arguments = command(data, tmp_path / "run")
    assert kill_at(arguments, tmp_path / "run", 5, number, group=group) == 130
    assert (tmp_path / "run" / "last.safetensors").exists()
    assert run(arguments).returncode == 0
    assert bits(tmp_path / "run") == whole


def test_the_same_command_after_the_end_trains_nothing_and_says_the_result(data, tmp_path):
    arguments = command(data, tmp_path / "run", "--json")
    first, second = run(arguments), run(arguments)
    assert json.loads(first.stdout) == json.loads(second.stdout)


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(data, tmp_path):
    run(command(data, tmp_path / "run"))
    done = run(command(data, tmp_path / "run", "--lr", "0.5"))
    assert done.returncode == 2
    assert "optim.lr" in done.stderr
    assert "0.5" in done.stderr
    assert "--out" in done.stderr
