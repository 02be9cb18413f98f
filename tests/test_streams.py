"""Streams that are full, closed or read by nobody: what is lost is said where it can be, and no work ends for it."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from children import environment
from commands import tiny
from convnext.streams import tell
from images import write_colours

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /dev/full")
CONVNEXT = f"{sys.executable} -m convnext"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)


@pytest.mark.parametrize(
    ("stream", "reason"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_results_that_cannot_be_written_are_one_line_and_status_2(stream, reason):
    done = shell(f"{CONVNEXT} recipes small {stream}")
    assert (done.returncode, done.stderr) == (2, f"convnext: the results could not be written: {reason}.\n")


@pytest.mark.parametrize("stream", ["2> /dev/full", "2>&-", "2> /dev/full > /dev/full", "2>&- >&-", "2>&- >&- <&-"])
def test_a_refusal_that_nobody_can_read_has_its_status(stream):
    assert shell(f"{CONVNEXT} train nowhere {stream}").returncode == 2


@pytest.mark.parametrize("stream", ["2> /dev/full", "2>&-"])
def test_results_come_also_where_nothing_else_can_be_said(stream):
    done = shell(f"{CONVNEXT} recipes small {stream}")
    assert done.returncode == 0 and "optim.lr" in done.stdout


def test_a_reader_that_has_enough_ends_nothing_in_error():
    done = shell(f"set -o pipefail; {CONVNEXT} recipes small | head -1")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_a_run_goes_on_without_anybody_to_tell_and_its_files_are_its_own(tmp_path: Path):
    data = write_colours(tmp_path / "data", train=6, val=2)
    command = " ".join(map(str, tiny(data, tmp_path / "run")))
    done = shell(f"{CONVNEXT} {command} <&- 2>&- | cat")
    assert done.returncode == 0 and "held-out images" in done.stdout
    assert (tmp_path / "run" / "metrics.jsonl").read_text().startswith('{"kind": "train"')
    assert (tmp_path / "run" / "report.html").exists()


def test_what_was_printed_before_a_line_for_the_person_is_there_before_it(monkeypatch):
    together = io.BytesIO()
    out, err = (io.TextIOWrapper(io.BufferedWriter(_Kept(together)), write_through=False) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    print("a result")
    tell("a line")
    print("another result", flush=True)
    assert together.getvalue() == b"a result\na line\nanother result\n"


class _Kept(io.RawIOBase):
    """A place that two streams write to, as a terminal is."""

    def __init__(self, place: io.BytesIO):
        self.place = place

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self.place.write(bytes(data))  # type: ignore[call-overload]
