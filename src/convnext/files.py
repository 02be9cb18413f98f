"""Files that appear whole or not at all, and JSON that is always JSON, for every layer that writes one.

A file is written in a folder of its own beside its place, flushed to the disk and renamed, so that a reader sees the old
file or the new one and never half of either. What a killed process left there is removed by the next that writes.
"""

import contextlib
import errno
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NoReturn

from convnext.errors import ConvNeXtError, TrainingError, on_one_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)  # by a folder for a file, or the reverse
_OURS = re.compile(r"\.(?P<name>.*)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\w{8}\.tmp", re.DOTALL)
_LONGEST = 255  # bytes of a name, on almost every file system
_UNWRITTEN = ("failed writing file", "file write failed", "iostream error", "Could not open file", "Can't open")
_FORGOTTEN_S = 24 * 3600  # after which what another machine left behind is removed too
_COMPUTED = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of a formula
_MOST = 60  # characters of the name that the temporary folder repeats: file systems allow 255 bytes


@contextlib.contextmanager
def workroom(folder: Path, name: str) -> Iterator[Path]:
    """A folder of this process inside `folder`, which is made, for work on what is to be called `name`.

    It is gone at the end; when the process is killed, the next that works on that name there removes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, name)
    with _room(folder, name) as room:
        yield room


@contextlib.contextmanager
def _room(folder: Path, name: str) -> Iterator[Path]:
    prefix = f".{name[:_MOST]}.{_machine()}-{os.getpid()}-"
    room = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name to write a file or a folder under, on the same disk; at the end it becomes `path`, in one step.

    Raises OSError when the disk refuses. What was at `path` is then still there, untouched, and nothing else is.
    """
    with workroom(path.parent, path.name) as room:
        made = room / path.name
        yield made
        _as_any_new_file(made, room)
        _flush(made)
        os.replace(made, path)
        with contextlib.suppress(OSError):  # some systems cannot flush a folder
            _flush_one(path.parent, os.O_RDONLY)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically. Raises OSError, which names the file, when the disk refuses."""
    try:
        with appearing(path) as made:
            made.write_bytes(data)
    except OSError as error:
        if error.filename is None:  # the system names none where a file that is open cannot grow
            error.filename = os.fspath(path)
        raise


def put_new(path: Path, data: bytes) -> None:
    """Write one of many results, which is not there yet, whole and in one step; it is left to the system to flush it.

    What killed processes leave is for `remove_abandoned`, once for all of them. Raises FileExistsError where something is
    there by now, and OSError when the disk refuses.
    """
    with _room(path.parent, path.name) as room:
        made = room / path.name
        made.write_bytes(data)
        put_made(made, path)


def put_made(made: Path, path: Path) -> None:
    """Give a file of the same disk the name `path`, in one step. Raises FileExistsError where something has it by now."""
    try:
        os.link(made, path)  # refuses what is there, in the same step
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(made, path)


def write_text(path: Path, text: str) -> None:
    """Write a small text file of a run atomically. Raises TrainingError when the disk refuses."""
    try:
        write_bytes(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise TrainingError(f"Cannot write '{path}': {error.strerror or error}. {way_out(error)}.") from None


def refuse_unusable(path: Path | str, *, folder: bool = False) -> None:
    """Refuse a place for a new file, or a new folder, that must fail: before the work, not after it.

    Raises ConvNeXtError for a name that no library can take, and where something stands in the way.
    """
    name = os.fspath(path)
    shown = on_one_line(name)
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise ConvNeXtError(f"'{shown}' is no UTF-8, which files of weights need. Choose another name.") from None
    if b"\0" in raw or not raw:
        raise ConvNeXtError(f"'{shown}' is no name of a file. Choose another one.")
    if max(map(len, raw.split(b"/"))) > _LONGEST:
        raise ConvNeXtError(f"'{shown[:40]}...' is longer than the {_LONGEST} bytes of a name. Choose a shorter one.")
    place = Path(name)
    if place.is_dir() if not folder else place.exists() and not place.is_dir():
        here, wanted = ("file", "folder") if folder else ("folder", "file")
        raise ConvNeXtError(f"'{shown}' is a {here}, and a {wanted} is to be made there. Choose another name.")
    blocking = next((each for each in place.parents if each.exists() and not each.is_dir()), None)
    if blocking:
        raise ConvNeXtError(
            f"'{shown}' cannot be made: '{on_one_line(str(blocking))}' is a file. Choose another place."
        )


@contextlib.contextmanager
def told(path: Path | str) -> Iterator[None]:
    """A ConvNeXtError of one line where a file cannot be written, whatever a library raises for it."""
    try:
        yield
    except OSError as error:
        raise ConvNeXtError(f"Cannot write '{path}': {error.strerror or error}. {way_out(error)}.") from None
    except RuntimeError as error:  # torch and OpenVINO hide the system's reason
        if not any(words in str(error) for words in _UNWRITTEN):
            raise
        raise ConvNeXtError(f"Cannot write '{path}': the disk refuses. Make room, or choose another --out.") from None


@contextlib.contextmanager
def told_temporary() -> Iterator[None]:
    """A ConvNeXtError of one line where the disk of temporary files refuses; the system often names no file."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or os.environ.get("TMPDIR", "the folder of temporary files")
        room = "Make room there, or set" if error.errno in FULL else "Set"
        raise ConvNeXtError(
            f"Cannot write '{folder}': {error.strerror or error}. {room} TMPDIR to a folder on a disk with more room, and "
            "give the same command again."
        ) from None


def system_error(error: Exception) -> OSError:
    """What the system said, from an error of a library that repeats it: safetensors has '(os error 28)'."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def way_out(error: OSError) -> str:
    """What a person can do about a disk that refuses."""
    if error.errno in FULL:
        return "Make room and give the same command again, or choose another --out"
    if error.errno in _TAKEN:
        return "Move away what stands there and give the same command again, or choose another --out"
    return "Mend that and give the same command again, or choose another --out"


def elsewhere(error: OSError) -> str:
    """The same for a command that writes what was not there before, to where it was told."""
    return "Make room, or name another place" if error.errno in FULL else "Name another place"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON, which has no inf and no nan: null takes their place. Raises TypeError for what JSON has no form of."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for anything else: also for NaN, and for a value nested too deep."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove from `folder` what killed processes left of the file `name`, or of any file."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _OURS.fullmatch(entry.name)
            if found and (name is None or found["name"] == name[:_MOST]) and _abandoned(entry, found):
                shutil.rmtree(entry.path, ignore_errors=True)


def _finite(value: Any) -> Any:
    """The same with None for every number that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _abandoned(entry: os.DirEntry[str], found: re.Match[str]) -> bool:
    """Whether nobody writes there any more."""
    if found["machine"] == _machine():
        return not _runs(int(found["process"]))
    return time.time() - entry.stat().st_mtime > _FORGOTTEN_S


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; on Windows True, where asking would end it.

    One that has ended and that its parent has not asked about is still there, in a container perhaps for ever: on Linux
    its state tells.
    """
    if os.name != "posix":
        return True
    with contextlib.suppress(OSError, IndexError):
        if Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] in "ZX":
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _machine() -> str:
    """Eight digits for this machine: the folder may be shared with others, whose processes cannot be asked for."""
    return f"{zlib.crc32(platform.node().encode('utf-8', 'surrogateescape')):08x}"


def _as_any_new_file(made: Path, room: Path) -> None:
    """The permissions that a new file of this user has: some libraries keep others out."""
    if made.is_dir():
        return
    plain = room / "plain"
    plain.touch()
    mode = plain.stat().st_mode
    if made.stat().st_mode != mode:
        made.chmod(mode)


def _flush(made: Path) -> None:
    """Onto the disk, so that a power cut leaves one whole file."""
    for file in (file for file in made.rglob("*") if file.is_file()) if made.is_dir() else [made]:
        _flush_one(file, os.O_RDWR)


def _flush_one(path: Path, how: int) -> None:
    number = os.open(path, how)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def cell_text(cell: str) -> str:
    """A cell of a table on one line, and with an apostrophe before it where a spreadsheet would compute it: names are text."""
    text = on_one_line(cell)
    return f"'{text}" if cell.startswith(_COMPUTED) and not _is_number(cell) else text


def cell_meant(text: str, known: Container[str]) -> str:
    """What a cell was made of by `cell_text`; one that is `known` as it stands stays."""
    return text[1:] if text not in known and text[:1] == "'" and text[1:] in known else text


def _is_number(text: str) -> bool:
    """Whether it is a class called -1, which is what a spreadsheet makes of it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/convnext, or ~/.cache/convnext."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "convnext"
