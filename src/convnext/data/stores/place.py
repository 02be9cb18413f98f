"""A folder of shards on this machine, read by positions: threads and forked processes share it."""

from pathlib import Path
from typing import Any, Protocol

from convnext.data.zips import Opened

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
