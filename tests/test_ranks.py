"""Several processes of one run: who speaks when it is refused, and that none waits for one that is gone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from children import awaited, children_of, environment, gone
from commands import tiny
from convnext.engine import launcher
from convnext.engine.claim import Claim
from convnext.errors import ConvNeXtError
from convnext.ranks import to_be_started
from images import write_colours
from loaded import COMMAND

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "convnext"]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@contextlib.contextmanager
def launched(command: list[str], out: Path) -> Iterator[subprocess.Popen[str]]:
    """A launcher at work, once the run has its first row."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    ) as run:
        try:
            log = out / "metrics.jsonl"
            assert awaited(lambda: run.poll() is not None or (log.exists() and bool(log.stat().st_size)), 300)
            assert run.poll() is None
            yield run
        finally:
            run.kill()  # leaving this `with` would wait for it


def long_run(data: Path, out: Path) -> list[str]:
    return [*TORCHRUN, *map(str, tiny(data, out, "--epochs", 10_000, "--workers", 1))]


def free(run: Path) -> bool:
    """Whether no process works there."""
    try:
        with Claim(run):
            return True
    except ConvNeXtError:
        return False


def test_ranks_and_their_workers_end_with_a_launcher_that_is_killed(data, tmp_path):
    with launched(long_run(data, tmp_path / "run"), tmp_path / "run") as run:
        processes = children_of(run.pid)
        assert len(processes) >= 3  # two ranks, and a worker of at least one of them
        run.kill()
        assert gone(processes)
    assert awaited(lambda: free(tmp_path / "run"))  # a dead process's threads may let go of its files a moment later
    with Claim(tmp_path / "run"):  # as the next start takes it: what was being written at that moment goes
        assert [file.name for file in (tmp_path / "run").iterdir() if file.name.endswith(".tmp")] == []


def test_a_rank_that_is_killed_ends_the_other_with_one_line(loaded, data, tmp_path):
    with loaded.ranks(COMMAND, *tiny(data, tmp_path / "run", "--epochs", 10_000)) as ranks:
        log = tmp_path / "run" / "metrics.jsonl"
        assert awaited(lambda: log.exists() and bool(log.stat().st_size), 300)
        ranks[1].kill()
        told = ranks[0].communicate()[1]
    assert ranks[0].returncode == 2 and "Traceback" not in told
    assert told.splitlines()[-1].startswith("convnext: Another process of this run has ended without a word")


def ours(data: Path, out: Path, *more: object) -> list[str]:
    """The same without torchrun."""
    return [sys.executable, "-m", "convnext", *map(str, tiny(data, out, "--processes", 2, *more))]


def test_our_own_launcher_adds_no_line_to_a_refusal_and_trains_as_torchrun_does(data, tmp_path):
    done = subprocess.run(
        ours(data, tmp_path / "run", "--lr", "-1"), capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("convnext: ") and done.stderr.count("\n") == 1
    done = subprocess.run(
        ours(data, tmp_path / "run", "--json"), capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0 and "fp32 on cpu x 2" in done.stderr
    assert json.loads(done.stdout)["n"] == 12


def test_processes_that_another_launcher_started_are_not_started_again(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not to_be_started(None) and not to_be_started(4)
    with pytest.raises(ConvNeXtError, match="--processes 2 is refused: 4 were started by torchrun or the like"):
        to_be_started(2)
    for alone in ("1", None):  # as some schedulers have it
        monkeypatch.setenv("WORLD_SIZE", alone) if alone else monkeypatch.delenv("WORLD_SIZE")
        assert to_be_started(2) and not to_be_started(1)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_of_our_own_launcher_that_is_killed_ends_all_with_one_line(data, tmp_path, victim):
    with launched(ours(data, tmp_path / "run", "--epochs", 10_000, "--workers", 0), tmp_path / "run") as run:
        processes = children_of(run.pid)
        os.kill(processes[victim], signal.SIGKILL)
        assert gone(processes)
        told = run.communicate()[1]
    assert run.returncode == 2 and "Traceback" not in told
    (line,) = (line for line in told.splitlines() if line.startswith("convnext: "))
    assert line.endswith("The same command goes on from the last checkpoint.")


def test_a_stop_is_passed_on_once_and_the_state_is_saved(data, tmp_path):
    with launched(ours(data, tmp_path / "run", "--epochs", 10_000), tmp_path / "run") as run:
        run.terminate()
        told = run.communicate()[1]
    assert run.returncode == 130 and "The same command goes on from here." in told
    assert (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize("changes", [["--data", "nowhere"], ["--batch", "600"]])
def test_a_refusal_is_one_line_whichever_process_it_comes_from(data, tmp_path, changes):
    flag, value = changes
    arguments = [str(word) for word in tiny(data, tmp_path / "run")]
    if flag == "--data":
        arguments[1] = value
    else:
        arguments += changes
    done = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, env=environment(), check=False)
    ours = [line for line in done.stderr.splitlines() if line.startswith("convnext: ")]
    assert len(ours) == 1, done.stderr
    assert "[rank" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two' is no whole number: torchrun sets it"),
        ({"WORLD_SIZE": "2"}, "RANK is not set: torchrun sets it"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK = 2 is refused: WORLD_SIZE = 2 has ranks 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "could not meet the others"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "Start all of them again, with torchrun"),
    ],
)
def test_a_process_that_finds_no_other_says_so_and_does_not_wait(monkeypatch, variables, reason):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    if variables.get("RANK") == "0":
        variables = {**variables, "MASTER_PORT": free_port()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launcher, "MEET_S", 1)
    with pytest.raises(ConvNeXtError) as refused:
        launcher.meet()
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_alone_a_process_always_speaks(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launcher.speaks("a line") and os.environ.get("WORLD_SIZE") is None
    assert launcher.speaks("a line", launcher.PeerLost(first=True))
    assert not launcher.speaks("a line", launcher.PeerLost(first=False))


def test_a_store_that_is_listened_for_and_never_answers_does_not_keep_a_process_that_ends(monkeypatch):
    """As after the end of the first process, whose socket its workers have inherited."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for name, value in {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": deaf.getsockname()[1]}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(launcher, "_VISIT_S", 0.2)
        for rank in (0, 1):
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            assert launcher.speaks("x") == (rank == 0)
