"""Where the bytes of an image come from: a folder, a zip read in place, or a list of both.

A store pickles, survives a fork and may be read from many threads at once: no file position is ever shared.
Names that are not UTF-8 are kept as surrogate escapes, as Python's own file functions do; `printable` is for people.
"""

import os
import stat
import zipfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

from convnext.data.limits import MAX_FOLDERS, require_bytes, require_file
from convnext.data.names import Names, NamesBuilder
from convnext.data.zips import WRONG, Opened, member_names, member_of, read_member
from convnext.errors import DataError, nearest, reason_of


class Store(Protocol):
    """Anything that gives the bytes of an entry's path."""

    def read(self, path: str) -> bytes:
        """The whole file; OSError or DataError when it cannot be read."""
        ...


class TreeStore(Store, Protocol):
    """The files of a folder or an archive, which may be counted from one of its folders."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was understood in a way that one could see differently."""
        ...

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        ...

    def below(self, prefix: str) -> "TreeStore":
        """The same files, with paths counted from the folder `prefix` (which ends in '/')."""
        ...


_OF_SYSTEMS = frozenset(  # folders of macOS, of Synology's thumbnails, and of what was thrown away
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)


class Once:
    """The annotation files of a folder or zip, each read once, however many ask for it."""

    def __init__(self, store: Store):
        self._store = store
        self._kept: dict[str, bytes] = {}
        self.passed_over: set[str] = set()  # large files that are no annotations

    def read(self, path: str) -> bytes:
        """The whole file, kept for the next who asks. Raises DataError when it cannot be read."""
        if path not in self._kept:
            self._kept[path] = self._read(path)
        return self._kept[path]

    def take(self, path: str) -> bytes:
        """The whole file, for the last who asks: it is not kept. Raises DataError when it cannot be read."""
        return self._kept.pop(path) if path in self._kept else self._read(path)

    def _read(self, path: str) -> bytes:
        try:
            return self._store.read(path)
        except (DataError, OSError) as error:
            raise DataError(f"'{printable(path)}' cannot be read: {reason_of(error)}.") from None

    def pass_over(self, path: str) -> None:
        """Let go of a file that nobody needs."""
        self._kept.pop(path, None)
        self.passed_over.add(path)


class Tree(NamedTuple):
    """What a folder or a zip holds: relative names with forward slashes, sorted, hidden ones left out."""

    files: Names
    folders: tuple[str, ...]  # also the empty ones
    store: TreeStore
    once: Once  # the same files, for those who read annotations

    def below(self, folder: str) -> "Tree":
        """What lies in one of its folders, with names counted from there."""
        prefix = folder + "/"
        folders = tuple(name[len(prefix) :] for name in self.folders if name.startswith(prefix))
        store = self.store.below(prefix)
        return Tree(self.files.below(prefix), folders, store, Once(store))


def printable(path: str) -> str:
    r"""`path` as text that any terminal and JSON file can take: bytes that are not UTF-8 become \xNN."""
    if path.isascii():
        return path
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, out of a JSON file
        return path.encode("utf-8", "backslashreplace").decode()


class FolderStore:
    """Files below one folder; an absolute path (from a table) is taken as it is."""

    notes: tuple[str, ...] = ()  # what was understood in a way that one could see differently

    def __init__(self, root: str):
        self.root = root

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return "\0" not in path and os.path.exists(os.path.join(self.root, path))

    def below(self, prefix: str) -> "FolderStore":
        """The same files, with paths counted from the folder `prefix` (which ends in '/')."""
        return FolderStore(os.path.join(self.root, prefix))

    def read(self, path: str) -> bytes:
        try:
            file = open(os.path.join(self.root, path), "rb", buffering=0, opener=_at_once)  # noqa: SIM115 # closed below
        except ValueError:  # a NUL, or half a character
            raise DataError("its name is none that a file can have") from None
        with file:
            about = os.fstat(file.fileno())
            require_file(about.st_mode)
            require_bytes(path, about.st_size)
            return file.readall() or b""


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting: the other end of a pipe may never come."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class ZipStore:
    """Members of a zip, read in place.

    The directory is read once. Members are then fetched with positioned reads, so the one open file can be shared by
    threads and by processes forked later; a pickled copy opens the file again when it is first read.
    """

    def __init__(self, archive: str, prefix: str = ""):
        self.archive, self.prefix = archive, prefix
        try:
            with zipfile.ZipFile(archive) as directory:
                items = directory.infolist()
            self._bytes = os.path.getsize(archive)
        except WRONG as error:
            why = printable(reason_of(error)) or type(error).__name__
            raise DataError(
                f"'{printable(archive)}' cannot be read as a zip ({why}). Is it complete? Download or zip it again."
            ) from None
        names, self.notes = member_names(items)
        deep = next((name for name in names if name.count("/") > MAX_FOLDERS), None)
        if deep is not None:
            raise DataError(
                f"'{printable(archive)}' holds '{printable(deep[:40])}...', more than {MAX_FOLDERS} folders one in the other."
            )
        self.members = {name: member_of(item) for name, item in zip(names, items, strict=True)}
        self._file = Opened(archive)

    def has(self, path: str) -> bool:
        """Whether there is such a member."""
        return self.prefix + path in self.members

    def below(self, prefix: str) -> "ZipStore":
        """The same archive, with paths counted from the folder `prefix` (which ends in '/')."""
        store = object.__new__(ZipStore)
        store.__dict__ |= self.__dict__ | {"prefix": self.prefix + prefix}
        return store

    def read(self, path: str) -> bytes:
        member = self.members.get(self.prefix + path)
        if member is None:
            raise DataError(f"'{printable(path)}' is not in '{printable(self.archive)}'")
        return read_member(self._file, self._bytes, path, member)


class MixedStore:
    """Paths as the user gave them; 'pack.zip/inside.jpg' is a member of a zip, 'shards/inside.jpg' of shards."""

    def __init__(self, packs: Mapping[str, Store]):
        self.packs = packs
        self.disk = FolderStore("")

    def read(self, path: str) -> bytes:
        folder = path if self.packs else ""
        while folder := folder.rpartition("/")[0]:  # as many as the path has, however many packs there are
            if folder in self.packs:
                return self.packs[folder].read(path[len(folder) + 1 :])
        return self.disk.read(path)


def is_zip(path: Path) -> bool:
    """Whether to read `path` as a zip: by its ending, so that a damaged one is still called a zip."""
    return path.suffix.lower() == ".zip" and path.is_file()


def require(path: Path) -> None:
    """Raise DataError when `path` does not exist, naming the nearest sibling of the first part that is missing."""
    if path.exists():
        return
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        siblings = sorted(os.listdir(missing.parent))
    except OSError:
        siblings = []
    where = "" if missing == path else f" ('{printable(str(missing))}' is missing)"
    hint = nearest(missing.name, [printable(name) for name in siblings])
    raise DataError(f"'{printable(str(path))}' does not exist{where}.{hint}")


def tree_of(path: Path) -> Tree:
    """List a folder or a zip, following symbolic links, each real folder once."""
    if is_zip(path):
        store = ZipStore(str(path))
        names = [name for name in store.members if not _hidden(name) and name.strip("/")]
        files = sorted(name for name in names if not name.endswith("/"))
        folders = {name.rstrip("/") for name in names if name.endswith("/")}
        for name in files:
            parts = name.split("/")[:-1]
            folders |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
        return Tree(Names.of(files), tuple(sorted(folders)), store, Once(store))
    made, found = NamesBuilder(), list[str]()
    _walk(str(path), "", frozenset(), made, found)
    disk = FolderStore(str(path))
    return Tree(made.names(), tuple(sorted(found)), disk, Once(disk))


def tree_of_file(path: Path) -> Tree:
    """One file as a tree of its own; whatever lies beside it is not listed, but can be read."""
    beside = FolderStore(str(path.parent))
    return Tree(Names.of([path.name]), (), beside, Once(beside))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in name.split("/"))


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """(a folder, something without bytes of its own: a pipe, a device, a link to itself)."""
    try:
        if entry.is_file(follow_symlinks=False):  # known from the listing: no look at the file itself
            return False, False
        mode = entry.stat().st_mode
    except FileNotFoundError:  # a link to nothing: named when it is read
        return False, False
    except OSError:
        return False, True
    return stat.S_ISDIR(mode), not (stat.S_ISDIR(mode) or stat.S_ISREG(mode))


def _walk(root: str, below: str, above: frozenset[str], files: NamesBuilder, folders: list[str]) -> None:
    """Add what lies in the folder `below` of `root`, which ends in '/' or is empty, in the order of whole paths."""
    here = os.path.join(root, below[:-1]) if below else root
    if len(above) > MAX_FOLDERS:
        raise DataError(f"'{printable(root)}' has more than {MAX_FOLDERS} folders one in the other.")
    real = os.path.realpath(here)
    if real in above:  # a link to one of its own parents
        return
    try:
        with os.scandir(here) as listing:
            kinds = ((entry.name, *_kind(entry)) for entry in listing if not _hidden(entry.name))
            names = sorted(f"{name}/" if folder else name for name, folder, special in kinds if not special)
    except OSError as error:
        raise DataError(f"folder '{printable(here)}' cannot be listed: {error.strerror}.") from None
    for is_folder, group in groupby(names, key=lambda name: name.endswith("/")):
        if not is_folder:
            files.add(below, list(group))
            continue
        for name in group:
            folders.append(f"{below}{name[:-1]}")
            _walk(root, below + name, above | {real}, files, folders)
