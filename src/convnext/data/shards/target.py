"""Where shards are written: a folder, or an object store. A file appears there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from convnext.data.shards.record import WRITING
from convnext.data.store import printable
from convnext.data.stores.opened import is_url
from convnext.data.stores.remote import RemotePlace
from convnext.errors import DataError
from convnext.files import appearing, refuse_unusable, remove_abandoned, told, told_temporary, write_bytes


class Target(Protocol):
    """Files by their names, of which those in the folder WRITING go at the end."""

    name: str  # what messages call it

    def begin(self) -> contextlib.AbstractContextManager[None]:
        """Inside, files are written; a ConvNeXtError of one line where a disk refuses."""
        ...

    def appearing(self, file: str) -> contextlib.AbstractContextManager[Path]:
        """Where to write a file on this machine; at the end it is there under its name."""
        ...

    def write(self, file: str, data: bytes) -> None:
        """A small file."""
        ...

    def read(self, file: str) -> bytes:
        """A small file. Raises FileNotFoundError where there is none."""
        ...

    def size(self, file: str) -> int:
        """Its bytes. Raises FileNotFoundError where there is none."""
        ...

    def remove(self, file: str) -> None:
        """A file, which need not be there."""
        ...

    def names(self) -> dict[str, int]:
        """What lies there, hidden files and the folder WRITING too, each with its bytes."""
        ...

    def finish(self) -> None:
        """Remove the folder WRITING."""
        ...


class FolderTarget:
    """A folder of this machine, which need not be there."""

    def __init__(self, out: Path):
        refuse_unusable(out, folder=True)
        self.out, self.name = out, str(out)

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        """As `Target` has it."""
        with told(self.out):
            (self.out / WRITING).mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.out)
            yield

    def appearing(self, file: str) -> contextlib.AbstractContextManager[Path]:
        """As `Target` has it."""
        return appearing(self.out / file)

    def write(self, file: str, data: bytes) -> None:
        """As `Target` has it."""
        write_bytes(self.out / file, data)

    def read(self, file: str) -> bytes:
        """As `Target` has it."""
        return (self.out / file).read_bytes()

    def size(self, file: str) -> int:
        """As `Target` has it."""
        return (self.out / file).stat().st_size

    def remove(self, file: str) -> None:
        """As `Target` has it."""
        (self.out / file).unlink(missing_ok=True)

    def names(self) -> dict[str, int]:
        """As `Target` has it."""
        if not self.out.is_dir():
            return {}
        return {
            entry.name: entry.stat(follow_symlinks=False).st_size for entry in sorted(os.scandir(self.out), key=_name)
        }

    def finish(self) -> None:
        """As `Target` has it."""
        shutil.rmtree(self.out / WRITING, ignore_errors=True)


class RemoteTarget:
    """A folder of an object store; each file is made here and sent whole, and again where the connection is lost."""

    def __init__(self, url: str):
        self.place = RemotePlace(url)
        self.name = self.place.name

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        """As `Target` has it."""
        self.write(f"{WRITING}/begun", b"")  # there are no empty folders
        yield

    @contextlib.contextmanager
    def appearing(self, file: str) -> Iterator[Path]:
        """As `Target` has it."""
        with contextlib.ExitStack() as stack:
            with told_temporary():
                made = Path(stack.enter_context(tempfile.TemporaryDirectory()), Path(file).name)
                yield made
            self._sent(file, lambda store, path: store.put_file(str(made), path))

    def write(self, file: str, data: bytes) -> None:
        """As `Target` has it."""
        self._sent(file, lambda store, path: store.pipe_file(path, data))

    def read(self, file: str) -> bytes:
        """As `Target` has it."""
        return self.place.whole(file)

    def size(self, file: str) -> int:
        """As `Target` has it."""
        return int(self.place.tried(file, lambda store, path: store.info(path)["size"]))

    def remove(self, file: str) -> None:
        """As `Target` has it."""
        with contextlib.suppress(FileNotFoundError):
            self.place.tried(file, lambda store, path: store.rm_file(path), writing=True)

    def names(self) -> dict[str, int]:
        """As `Target` has it."""
        try:
            listed: list[dict[str, Any]] = self.place.tried("", lambda store, path: store.ls(path, detail=True))
        except FileNotFoundError:  # there are no empty folders
            return {}
        return {
            each["name"].rstrip("/").rpartition("/")[2]: int(each["size"] or 0)
            for each in sorted(listed, key=lambda each: str(each["name"]))
        }

    def finish(self) -> None:
        """As `Target` has it."""
        with contextlib.suppress(FileNotFoundError):
            self.place.tried(WRITING, lambda store, path: store.rm(path, recursive=True), writing=True)

    def _sent(self, file: str, send: Callable[[Any, str], None]) -> None:
        try:
            self.place.tried(file, send, writing=True)
        except FileNotFoundError:
            name = printable(self.name)
            raise DataError(f"'{name}' cannot be written: there is no such bucket. Make it first.") from None


def target_of(out: str | Path) -> Target:
    """The place at `out`, a folder or an address. Raises ConvNeXtError for a folder that cannot be made."""
    return RemoteTarget(str(out)) if is_url(out) else FolderTarget(Path(out))


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
