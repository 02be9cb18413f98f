"""A disk that is really full, at every moment of a run: one line, nothing that was saved is lost, and the same command goes on.

A small file system in memory is filled by a file, which is removed afterwards.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import Done, convnext, tiny, trained
from images import write_colours

REFUSED = "No space left on device"


class Disk:
    """A file system of 1 MiB."""

    def __init__(self, place: Path):
        self.place, self._filler = place, place / "filler"

    def leave(self, room: int) -> None:
        """Let all but so many bytes be taken."""
        about = os.statvfs(self.place)
        self._filler.write_bytes(bytes(max(0, about.f_bavail * about.f_frsize - room)))

    def free(self) -> None:
        self._filler.unlink()

    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.place)) for file in self.place.rglob("*") if file.is_file())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here: a disk that is really full is NOT tested")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a disk that is really full is NOT tested: {made.stderr.strip()}")
    yield Disk(place)
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that had room, beside its data."""
    place = tmp_path_factory.mktemp("whole")
    trained(write_colours(place / "colours"), place / "run")
    return place / "run"


@pytest.mark.parametrize(("room_kb", "goes_on"), [(0, False), (12, False), (160, True)])
def test_a_run_on_a_full_disk_is_one_line_and_the_same_command_ends_it_as_if_nothing_had_been(
    whole, disk, room_kb, goes_on
):
    words = tiny(whole.parent / "colours", disk.place / "run", "--checkpoint-steps", 1)
    disk.leave(room_kb << 10)
    done = convnext(*words)
    last = done.err.splitlines()[-1]
    assert done.status == 2 and done.out == "" and "Traceback" not in done.err
    assert REFUSED in last and str(disk.place) in last and "Make room and give the same command again" in last, last
    assert all(REFUSED in line for line in done.err.splitlines() if line.startswith("Could not save"))
    assert not [name for name in disk.files() if name.endswith(".tmp")]
    disk.free()
    if goes_on:
        assert convnext("verify", disk.place / "run").status == 0
    again = convnext(*words)
    assert again.status == 0 and ("Going on with" in again.err) == goes_on, again.err
    assert (disk.place / "run" / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


WRITERS: dict[str, Callable[[Path, Path], Done]] = {
    "shard": lambda run, out: convnext("shard", run.parent / "colours", out / "shards"),
    "export": lambda run, out: convnext("export", run, "--to", "convnext", "--out", out / "a.convnext"),
    "convert": lambda run, out: convnext("convert", run, out / "a.safetensors", "--to", "convnext", "--no-check"),
    "predict": lambda run, out: convnext("predict", run, run.parent / "colours" / "val", "--out", out / "drawn"),
    "embed": lambda run, out: convnext("embed", run, run.parent / "colours" / "val", "--out", out / "a.npz"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_command_that_writes_to_a_full_disk_says_so_and_leaves_nothing_half_written(whole, disk, name):
    disk.leave(0)
    done = WRITERS[name](whole, disk.place)
    last = done.err.splitlines()[-1]
    assert done.status == 2 and "Traceback" not in done.err
    assert REFUSED in last and str(disk.place) in last and "Make room" in last, last
    disk.free()
    assert set(disk.files()) <= {"shards/.lock", "shards/.unfinished-shards", "drawn/.unfinished"}
    assert WRITERS[name](whole, disk.place).status == 0


def test_predict_goes_on_in_its_folder_where_the_disk_was_full_and_then_overwrites_nothing(whole, disk):
    words = ("predict", whole, whole.parent / "colours" / "val", "--out", disk.place / "drawn")
    disk.leave(40 << 10)
    done = convnext(*words)
    drawn = [name for name in disk.files() if name.endswith(".jpg")]
    assert done.status == 2 and "Make room and give the same command again" in done.err.splitlines()[-1] and drawn
    disk.free()
    again = convnext(*words)
    many = f"{len(drawn)} file{'s' if len(drawn) > 1 else ''} of a command that did not end will be written anew."
    assert again.status == 0 and many in again.err
    assert not any("unfinished" in name for name in disk.files()) and set(drawn) < set(disk.files())
    assert "nothing is overwritten" in convnext(*words).line
