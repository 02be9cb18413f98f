"""A folder of shards on this machine, read by positions: threads and forked processes share it."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from convnext.data.zips import Opened

_SLICE = 16 << 20  # bytes of a large file that are in memory at a time
_OPEN = 64  # files that are kept open; most systems allow a process 1024


class Place(Protocol):
    """Whatever holds the files of shards."""

    name: str  # what messages call it

    @property
    def far(self) -> "Place | None":
        """Where its files come from, None for itself."""
        ...

    def read(self, file: str, first: int, size: int, *, fresh: bool = False, once: bool = False) -> bytes:
        """`size` bytes from `first` on, fewer where the file ends. `fresh`: from where they come, not from a cache.

        `once`: a lost connection is not tried again, for nobody waits for it yet.

        Raises FileNotFoundError where there is no such file, OSError where it cannot be read.
        """
        ...

    def whole(self, file: str) -> bytes:
        """A small file."""
        ...

    def mapped(self, file: str, size: int, *, fresh: bool = False) -> memoryview:
        """A large file of `size` bytes, or what there is of it; it takes memory where it is looked at.

        `fresh` and errors as `read` has them; ConvNeXtError where the disk of temporary files refuses.
        """
        ...


class FolderPlace:
    """A folder. Nothing in it is locked, so that a fork at any moment leaves a working copy."""

    far: Place | None = None

    def __init__(self, root: str):
        self.root, self.name = root, root
        self._open: dict[str, Opened] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def read(self, file: str, first: int, size: int, *, fresh: bool = False, once: bool = False) -> bytes:
        """As `Place` has it."""
        opened = self._open.get(file)
        if opened is None:
            opened = self._open.setdefault(file, Opened(str(Path(self.root, file))))
            for oldest in list(self._open)[:-_OPEN]:
                self._open.pop(oldest, None)  # closed once its last reader is done
        return opened.read(first, size)

    def whole(self, file: str) -> bytes:
        """As `Place` has it."""
        return Path(self.root, file).read_bytes()

    def mapped(self, file: str, size: int, *, fresh: bool = False) -> memoryview:
        """As `Place` has it; processes share its memory."""
        with open(Path(self.root, file), "rb") as held:
            return mapped(held)


def mapped(file: IO[bytes]) -> memoryview:
    """The bytes of an open file, which may be closed and lose its name then."""
    try:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # a file system without that, or an empty file
        file.seek(0)
        return memoryview(file.read())


def slices(place: Place, file: str, size: int, *, fresh: bool = False) -> Iterator[bytes]:
    """A file of `size` bytes, or what there is of it, a part at a time. `fresh` and errors as `Place.read` has them."""
    there = 0
    while there < size and (data := place.read(file, there, min(_SLICE, size - there), fresh=fresh)):
        yield data
        there += len(data)
