"""A network in parts: the losses of one process, checkpoints in several files, and the one file that they end in."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from commands import convnext, rows, tiny
from convnext.engine import checkpoint
from convnext.engine.run import last_of
from convnext.errors import CheckpointError
from images import write_colours
from loaded import COMMAND, WAITING

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "sharded.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: processes are forked")


SHORT = ("--dtype", "float64", "--steps", 6)


def test_parts_on_two_processes_take_the_steps_of_one_with_adamw_and_with_muon(loaded):
    found = loaded.rows(SCRIPT, *SHORT, "--only", "worlds", "--worlds", 2)
    assert [row["optimizer"] for row in found] == ["adamw", "muon"]
    assert all(row["largest_relative_difference"]["2"] < 1e-9 and not row["failures"] for row in found)


def test_a_process_killed_while_parts_are_written_a_full_disk_and_slow_files_cost_nothing(loaded):
    """Another number of processes goes on, with and without parts; a refusal is warned of; training does not wait."""
    asked = ("--only", "kills", "full", "async", "--kills", 2, "--seed", 3)
    killed, full, overlapping = loaded.rows(SCRIPT, *SHORT, *asked)
    assert all(row["largest_relative_difference"] < 1e-9 and not row["failures"] for row in (killed, full, overlapping))
    assert overlapping["steps_while_it_was_written"][0] >= 1


# A rank of a run; the first waits once its log has ten rows: the other cannot be more than a step ahead of it.
FIRST_WAITS = f"""
import os, sys
sys.argv[1:1] = ["metrics.jsonl", "10"]
if os.environ["RANK"] == "0":
    exec({WAITING!r})
else:
    del sys.argv[1:3]
{COMMAND}
"""
LENGTH = ("--epochs", 4)


@pytest.fixture(scope="module")
def stopped(loaded, tmp_path_factory) -> Path:
    """A run in two parts that was asked to stop."""
    place = tmp_path_factory.mktemp("parts")
    how = ("--checkpoint-steps", 1, "--optim.ema", 0.9, "--shard-weights")
    with loaded.ranks(FIRST_WAITS, *tiny(write_colours(place / "colours"), place / "run", *LENGTH, *how)) as ranks:
        assert ranks[0].stdout.readline() == "waiting\n", ranks[0].stderr.read()
        for rank in ranks:
            rank.send_signal(signal.SIGINT)
        ranks[0].go_on()
        told = [rank.communicate()[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [130, 130], told
    assert [line for text in told for line in text.splitlines()][-1].startswith("convnext: Stopped after step"), told
    return place / "run"


def test_a_run_that_stops_holds_one_checkpoint_in_a_file_of_each_process(stopped):
    step = rows(stopped)[-1]["step"]
    assert not (stopped / "last.safetensors").exists()
    (folder,) = (stopped / "last").iterdir()
    assert folder == last_of(stopped) and int(folder.name) == step
    assert {file.name for file in folder.iterdir()} == {"0.safetensors", "1.safetensors", "index.json"}
    held = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            held += sum(opened.get_tensor(name).numel() for name in opened.keys() if name.startswith("model/"))  # noqa: SIM118
    tensors, metadata = checkpoint.read(folder)
    assert metadata["state"]["step"] == step
    whole = {name: value for name, value in tensors.items() if name.startswith("model/")}
    assert held == sum(value.numel() for value in whole.values())  # nothing twice
    with safe_open(folder / "0.safetensors", "pt") as first, safe_open(folder / "1.safetensors", "pt") as second:
        name = "model/stages.0.blocks.0.expand.weight"
        rows_of = [first.get_tensor(f"{name}@0,0"), second.get_tensor(f"{name}@16,0")]
    assert torch.equal(torch.cat(rows_of), tensors[name])  # (32, 8), 16 rows each


def test_such_a_checkpoint_is_read_like_a_file(stopped, tmp_path):
    image = next((stopped.parent / "colours" / "val" / "red").iterdir())
    last = convnext("predict", stopped, image, "--weights", "last", "--json")
    assert last.status == 0, last.err
    done = convnext(
        "convert", stopped, tmp_path / "one.safetensors", "--to", "convnext", "--weights", "last", "--no-check"
    )
    assert done.status == 0, done.err
    again = convnext("predict", tmp_path / "one.safetensors", image, "--json")
    assert json.loads(again.out)["predictions"] == json.loads(last.out)["predictions"]
    part = last_of(stopped) / "0.safetensors"
    line = convnext("predict", part, image).line
    assert line == f"'{part}' is a part of a checkpoint in several files. Name the folder of the run."


def copied(run: Path, to: Path) -> Path:
    for file in run.rglob("*"):
        if file.is_file():
            place = to / file.relative_to(run)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return last_of(to)


def test_verify_names_a_part_that_is_broken_missing_or_of_another_checkpoint(stopped, tmp_path):
    assert convnext("verify", stopped).status == 0
    for name, change in {
        "flipped": lambda file: file.write_bytes(flipped(file.read_bytes())),
        "missing": lambda file: file.unlink(),
        "other": lambda file: file.write_bytes(file.with_name("0.safetensors").read_bytes()),
    }.items():
        folder = copied(stopped, tmp_path / name)
        change(folder / "1.safetensors")
        done = convnext("verify", tmp_path / name)
        assert done.status == 1 and f"{folder / '1.safetensors'}' is damaged" in done.out + done.err
        with pytest.raises(CheckpointError, match=r"1\.safetensors") as refused:
            checkpoint.read(folder)
        assert str(refused.value).endswith(f"Restore it, or remove the folder '{folder}' to start again.")
    folder = copied(stopped, tmp_path / "index")
    (folder / "index.json").write_bytes(flipped((folder / "index.json").read_bytes()))
    with pytest.raises(CheckpointError, match=r"index\.json' is damaged: it is not what was written"):
        checkpoint.read_metadata(folder)


def flipped(data: bytes) -> bytes:
    """One bit of it, near the end."""
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def test_a_run_in_parts_goes_on_in_one_process_and_what_was_half_written_is_passed_over(stopped, tmp_path):
    run = tmp_path / "run"
    folder = copied(stopped, run)
    half = folder.with_name("000000999")
    half.mkdir()
    (half / "0.safetensors").write_bytes((folder / "0.safetensors").read_bytes())
    step = int(folder.name)
    words = tiny(stopped.parent / "colours", run, *LENGTH, "--optim.ema", 0.9)
    done = convnext(*words)
    assert done.status == 0 and f"Going on with '{run}' after step {step}." in done.err, done.err
    assert not (run / "last").exists() and (run / "last.safetensors").exists()
    assert [row["step"] for row in rows(run)] == [*range(1, 25)]


def test_fp16_and_minutes_are_refused_and_one_process_has_nothing_to_share(tmp_path):
    data = write_colours(tmp_path / "colours")
    done = convnext(*tiny(data, tmp_path / "half", "--shard-weights", "--precision", "fp16"))
    line = "convnext: --shard-weights is refused with precision = fp16: each process would scale its losses by itself."
    assert done.status == 2 and done.err.splitlines()[-1].startswith(line)
    done = convnext("train", data, "--out", tmp_path / "timed", "--shard-weights", "--minutes", 3, "--size", 16)
    line = "convnext: --minutes measures a network that each process holds whole, which --shard-weights is not."
    assert done.status == 2 and done.err.splitlines()[-1].startswith(line)
    done = convnext(*tiny(data, tmp_path / "one", "--shard-weights"))
    assert done.status == 0 and "One process holds all weights" in done.err
