"""Files that appear whole or not at all."""

import errno
import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convnext.deploy.output import Folder
from convnext.errors import TrainingError, on_lines, on_one_line
from convnext.files import appearing, from_json, put_new, remove_abandoned, to_json, workroom, write_bytes, write_text

KILLED = """
import os, pathlib, sys
from convnext.files import appearing
with appearing(pathlib.Path(sys.argv[1])) as made:
    made.write_bytes(b"half of it")
    os.kill(os.getpid(), 9)
"""


def killed_while_writing(path: Path) -> Path:
    """What a process leaves that was killed while it wrote `path`."""
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (left,) = (file for file in path.parent.iterdir() if file.name.endswith(".tmp"))
    return left


def test_a_file_appears_whole_in_place_of_the_old_one(tmp_path):
    write_bytes(tmp_path / "new" / "a.txt", b"old")
    with appearing(tmp_path / "new" / "a.txt") as made:
        made.write_bytes(b"new")
        assert (tmp_path / "new" / "a.txt").read_bytes() == b"old"
    assert [file.read_bytes() for file in (tmp_path / "new").iterdir()] == [b"new"]


def test_a_folder_appears_with_everything_in_it(tmp_path):
    with appearing(tmp_path / "model") as made:
        made.mkdir()
        (made / "one").write_text("1")
        assert not (tmp_path / "model").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["model"] and (tmp_path / "model" / "one").read_text() == "1"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def broken() -> None:
        with appearing(tmp_path / "a.txt") as made:
            made.write_text("half")
            raise error

    with pytest.raises(error):
        broken()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_a_library_kept_to_its_user_has_the_permissions_of_any_new_one(tmp_path):
    (tmp_path / "plain").touch()
    with appearing(tmp_path / "a.txt") as made:
        made.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="a process cannot be asked for")
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_same_file(tmp_path):
    left = killed_while_writing(tmp_path / "a.txt")
    write_bytes(tmp_path / "b.txt", b"another file")
    assert left.exists()
    write_bytes(tmp_path / "a.txt", b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.skipif(os.name != "posix", reason="a process cannot be asked for")
def test_a_folder_is_cleaned_of_what_is_abandoned_and_of_nothing_else(tmp_path):
    killed_while_writing(tmp_path / "a.txt")
    foreign = tmp_path / ".a.txt.00000000-1-abcdefgh.tmp"  # of another machine, which may still be at it
    for kept in (foreign, tmp_path / ".cache.tmp"):
        kept.mkdir()
    with appearing(tmp_path / "b.txt") as made:
        made.touch()
        remove_abandoned(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [foreign.name, ".cache.tmp", "b.txt"]
    os.utime(foreign, (time.time() - 1e6,) * 2)
    remove_abandoned(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".cache.tmp", "b.txt"]


def test_a_name_of_any_length_can_be_written(tmp_path):
    write_bytes(tmp_path / ("ä" * 120), b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["ä" * 120]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "Make room and give the same command again, or choose another --out."),
        (errno.EDQUOT, "Make room and give the same command again, or choose another --out."),
        (errno.ENOTDIR, "Move away what stands there and give the same command again, or choose another --out."),
        (errno.EROFS, "Mend that and give the same command again, or choose another --out."),
    ],
)
def test_a_text_that_cannot_be_written_names_the_file_and_the_fix(tmp_path, monkeypatch, number, fix):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(TrainingError) as refused:
        write_text(tmp_path / "a.json", "{}")
    assert str(refused.value) == f"Cannot write '{tmp_path / 'a.json'}': {os.strerror(number)}. {fix}"


def test_a_folder_in_the_place_of_a_file_is_no_reason_to_make_room(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.json" / "inside").touch()
    with pytest.raises(TrainingError, match=r"Cannot write '.*a\.json': .* Move away what stands there"):
        write_text(tmp_path / "a.json", "{}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_null_where_there_is_no_number(value):
    made = to_json({"a": [1.5, value, (value, {"b": value})], "c": "NaN"})
    assert json.loads(made, parse_constant=pytest.fail) == {"a": [1.5, None, [None, {"b": None}]], "c": "NaN"}
    assert to_json({"a": [1, "ü"]}) == json.dumps({"a": [1, "ü"]})


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[" * 100_000, "", "{", b"\xff"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        from_json(text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü 画.png", "plain ü 画.png"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[2Jcleared", r"\x1b[2Jcleared"),
        ("no text \udcff", r"no text \udcff"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
    ],
)
def test_a_name_is_made_safe_for_a_terminal(name, shown):
    assert on_one_line(name) == shown and on_lines(f"{name}\nx".replace("two\nlines", "two")).endswith("\nx")


KILLED_RESULT = """
import os, pathlib, sys
from convnext import files
os.link = lambda *_: os.kill(os.getpid(), 9)
files.put_new(pathlib.Path(sys.argv[1]), b"all of it")
"""


def test_a_result_is_whole_or_not_there_and_never_over_another(tmp_path):
    file = tmp_path / "0.jpg"
    subprocess.run([sys.executable, "-c", KILLED_RESULT, str(file)], check=False)
    assert not file.exists() and len(list(tmp_path.iterdir())) == 1
    remove_abandoned(tmp_path)
    put_new(file, b"first")
    with pytest.raises(FileExistsError):
        put_new(file, b"second")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"first"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()


def test_what_a_killed_call_left_beside_its_results_goes_with_the_next(tmp_path):
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for name in ("0.jpg", "deep/1.jpg"):
        subprocess.run([sys.executable, "-c", KILLED_RESULT, str(tmp_path / "out" / name)], check=False)
    assert len(list((tmp_path / "out").rglob("*.tmp"))) == 2
    images = [str(tmp_path / "images" / name) for name in ("0.png", "deep/1.png")]
    Folder.planned(str(tmp_path / "out"), [], images, [".jpg"])
    assert list((tmp_path / "out").rglob("*.tmp")) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_result_on_a_disk_without_links_is_whole_too(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", _refuse)
    put_new(tmp_path / "0.jpg", b"first")
    with pytest.raises(FileExistsError):
        put_new(tmp_path / "0.jpg", b"second")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"first"]


def _refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "no links here")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: Linux tells the state of a process")
def test_what_a_process_left_goes_also_while_its_parent_has_not_asked_about_its_end(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table of processes
    with workroom(tmp_path, "x") as own:
        left = tmp_path / own.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
        left.mkdir()
        remove_abandoned(tmp_path)
        assert own.exists() and not left.exists()
    ended.communicate()
