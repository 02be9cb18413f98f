"""What of an object store is kept on this disk: as many shards as the limit allows, in blocks, as they are first read.

An epoch asks for every image once and in random order, so nothing is gained by exchanging what is kept. The first shards
that fit are kept, and the others are read from the store each time. Blocks are not noted anywhere: who reads compares the
checksum of what the disk has, a hole included, and asks again for what is wrong.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convnext.data.stores.place import FolderPlace, Place
from convnext.errors import ConvNeXtError
from convnext.files import cache_folder, put_made, workroom
from convnext.streams import tell

SWITCH = "CONVNEXT_CACHE_GB"
_DEFAULT_GB = 20.0
_BLOCK = 1 << 20  # bytes that are fetched at once: some ten photos
_PATIENCE = 600  # seconds that a process waits for what another one fetches


class NearPlace:
    """The files of `far`: those of `kept` through the disk, those of `at_once` as a whole when one is first read."""

    def __init__(self, far: Place, folder: Path, kept: Mapping[str, int], at_once: Mapping[str, int]):
        self.far, self.name, self.folder = far, far.name, folder
        self.kept, self.at_once = dict(kept), dict(at_once)  # name -> bytes
        self._near = FolderPlace(str(folder))
        self._whole: dict[str, memoryview] = {}
        self._coming: dict[tuple[int, str, int], Future[bytes | None]] = {}  # blocks by process, file and place
        self._refused = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole": {}, "_coming": {}}

    def read(self, file: str, first: int, size: int, *, fresh: bool = False, once: bool = False) -> bytes:
        """As `Place` has it; without `fresh` what the disk has, which may be anything."""
        if file in self.at_once:
            if file not in self._whole:
                self._whole.setdefault(file, self.far.mapped(file, self.at_once[file]))
            return bytes(self._whole[file][first : first + size])
        if file not in self.kept or self._refused:
            return self.far.read(file, first, size, once=once)
        if not fresh:
            try:
                return self._near.read(file, first, size)
            except OSError:
                return b""
        start = first - first % _BLOCK
        end = min(-(-(first + size) // _BLOCK) * _BLOCK, self.kept[file])
        block = self._fetched(file, start, end - start, once=once)
        return block[first - start : first - start + size]

    def _fetched(self, file: str, start: int, size: int, *, once: bool) -> bytes:
        """Some blocks of the store, which are on the disk then; threads that want the same ones fetch them once."""
        key, made = (os.getpid(), file, start), Future[bytes | None]()
        first = self._coming.setdefault(key, made)
        if first is not made and (block := first.result()) is not None and len(block) >= size:
            return block
        block = None
        try:
            block = self.far.read(file, start, size, once=once)
            self._keep(file, start, block)
            return block
        finally:
            if first is made:
                del self._coming[key]
                made.set_result(block)

    def whole(self, file: str) -> bytes:
        """As `Place` has it."""
        return self.far.whole(file)

    def mapped(self, file: str, size: int, *, fresh: bool = False) -> memoryview:
        """As `Place` has it; one process of this machine fetches it, and all share its memory, where the disk may keep it."""
        if file not in self.kept or self._refused:
            return self.far.mapped(file, size)
        if not fresh:
            with contextlib.suppress(OSError):
                return self._near.mapped(file, size)
        with self._alone(file):
            return self._fetched_whole(file, size, fresh=fresh)

    @contextlib.contextmanager
    def _alone(self, file: str) -> Iterator[None]:
        """One process at a time, where the disk has locks; the others wait for what it fetches, but not for ever."""
        lock = FileLock(self.folder / f".{file}.lock", timeout=_PATIENCE, fallback_to_soft=False)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError, Timeout):
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock)
            yield

    def _fetched_whole(self, file: str, size: int, *, fresh: bool) -> memoryview:
        if not fresh:
            with contextlib.suppress(OSError):  # another process was faster
                return self._near.mapped(file, size)
        data = self.far.mapped(file, size)
        try:
            with workroom(self.folder, file) as room:
                made = room / file
                made.write_bytes(data)
                if fresh:
                    os.replace(made, self.folder / file)
                else:
                    with contextlib.suppress(FileExistsError):  # of a process that did not wait: its memory is shared
                        put_made(made, self.folder / file)
            return self._near.mapped(file, size)
        except OSError as error:
            self._refuse(error)
            return data

    def _keep(self, file: str, start: int, block: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = os.open(self.folder / file, os.O_RDWR | os.O_CREAT, 0o644)
            with open(number, "r+b") as held:
                held.seek(start)
                held.write(block)
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> None:
        self._refused = True
        tell(f"'{self.folder}' is not written to any more: {error.strerror}. Images come from '{self.name}' each time.")


def near(far: Place, key: str, shards: Mapping[str, int], at_once: Mapping[str, int]) -> NearPlace:
    """`far` with what of its `shards` (name -> bytes) may be kept on this disk, under `key`, which is theirs alone.

    `at_once`: files that are needed as a whole. Raises ConvNeXtError for a limit that is no number.
    """
    folder = cache_folder() / "shards" / key
    kept, room = dict[str, int](), _room(folder, sum(shards.values()))
    for name, size in shards.items():
        if size <= room:
            kept[name] = size
            room -= size
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if file.name not in kept and not file.name.startswith("."):  # a folder in which one is written
                file.unlink()
        os.utime(folder)  # it is the last that goes
    return NearPlace(far, folder, kept, at_once)


def _room(folder: Path, wanted: int) -> int:
    """Bytes that may be kept in `folder`: the limit, less than half of what is free; others make room, the oldest first."""
    text = os.environ.get(SWITCH, "")
    try:
        limit = int(float(text or _DEFAULT_GB) * 1e9)
        if limit < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise ConvNeXtError(
            f"{SWITCH} = '{text}' is no number of gigabytes. Give one, such as 50; 0 keeps nothing."
        ) from None
    above = next(place for place in folder.parents if place.is_dir())
    room = max(0, min(limit, (shutil.disk_usage(above).free + _taken(folder)) // 2))
    others: list[Path] = []
    with contextlib.suppress(OSError):
        others = sorted(
            (place for place in folder.parent.iterdir() if place != folder), key=lambda place: place.stat().st_mtime
        )
    held = {place: _taken(place) for place in others}
    for place in others:
        if sum(held.values()) + min(wanted, room) <= limit:
            break
        shutil.rmtree(place, ignore_errors=True)
        del held[place]
    return room


def _taken(folder: Path) -> int:
    """Bytes of the disk that the files of a folder take."""
    with contextlib.suppress(OSError):
        return sum(getattr(file.stat(), "st_blocks", 0) * 512 or file.stat().st_size for file in folder.iterdir())
    return 0
