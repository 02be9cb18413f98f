"""Where the bytes of an image come from: a folder, a zip read in place, or a list of both.

A store pickles, survives a fork and may be read from many threads at once: no file position is ever shared.
Names that are not UTF-8 are kept as surrogate escapes, as Python's own file functions do; `printable` is for people.
"""

import os
import stat
import zipfile
import zlib
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from convnext.data.names import Names, NamesBuilder
from convnext.data.written import member_codec, stored_name
from convnext.errors import DataError, nearest

_LOCAL_HEADER = 30  # bytes before the name in a zip member's own header (APPNOTE 4.3.7)
_ENCRYPTED, _UTF_8 = 0x1, 0x800  # bits of a member's flags


class Store(Protocol):
    """Anything that gives the bytes of an entry's path."""

    def read(self, path: str) -> bytes:
        """The whole file; OSError or DataError when it cannot be read."""
        ...


class Once:
    """The annotation files of a folder or zip, each read once, however many ask for it."""

    def __init__(self, store: Store):
        self._store = store
        self._kept: dict[str, bytes] = {}
        self.passed_over: set[str] = set()  # large files that are no annotations

    def read(self, path: str) -> bytes:
        """The whole file, kept for the next who asks."""
        if path not in self._kept:
            self._kept[path] = self._store.read(path)
        return self._kept[path]

    def take(self, path: str) -> bytes:
        """The whole file, for the last who asks: it is not kept."""
        return self._kept.pop(path) if path in self._kept else self._store.read(path)

    def pass_over(self, path: str) -> None:
        """Let go of a file that nobody needs."""
        self._kept.pop(path, None)
        self.passed_over.add(path)


class Tree(NamedTuple):
    """What a folder or a zip holds: relative names with forward slashes, sorted, hidden ones left out."""

    files: Names
    folders: tuple[str, ...]  # also the empty ones
    store: "FolderStore | ZipStore"
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
        with open(os.path.join(self.root, path), "rb", buffering=0) as file:
            return file.readall()


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
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(
                f"'{printable(archive)}' cannot be read as a zip ({error}). Is it complete? Download or zip it again."
            ) from None
        names, self.notes = _member_names(items)
        self.members = {name: _member(item) for name, item in zip(names, items, strict=True)}
        self._file: int | None = None

    def has(self, path: str) -> bool:
        """Whether there is such a member."""
        return self.prefix + path in self.members

    def below(self, prefix: str) -> "ZipStore":
        """The same archive, with paths counted from the folder `prefix` (which ends in '/')."""
        store = object.__new__(ZipStore)
        store.__dict__ |= self.__dict__ | {"prefix": self.prefix + prefix}
        return store

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def read(self, path: str) -> bytes:
        member = self.members.get(self.prefix + path)
        if member is None:
            raise DataError(f"'{printable(path)}' is not in '{printable(self.archive)}'")
        if member.encrypted:
            raise DataError("it is encrypted; zip it again without a password")
        head = self._at(member.start, _LOCAL_HEADER)
        if len(head) < _LOCAL_HEADER:
            raise DataError("the zip ends before it")
        names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        raw = self._at(member.start + _LOCAL_HEADER + names, member.packed)
        return _unpack(raw, member)

    def _at(self, start: int, size: int) -> bytes:
        if not hasattr(os, "pread"):  # Windows: a file of its own for each read
            with open(self.archive, "rb") as file:
                file.seek(start)
                return file.read(size)
        if self._file is None:
            self._file = os.open(self.archive, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._file, size, start)


class Member(NamedTuple):
    """What a zip's directory says about one file: places and sizes in bytes."""

    start: int
    packed: int
    size: int
    crc: int
    method: int
    encrypted: bool


def _member(item: zipfile.ZipInfo) -> Member:
    return Member(
        item.header_offset,
        item.compress_size,
        item.file_size,
        item.CRC,
        item.compress_type,
        bool(item.flag_bits & _ENCRYPTED),
    )


def _member_names(items: list[zipfile.ZipInfo]) -> tuple[list[str], tuple[str, ...]]:
    """What each member is called here, and a note where that had to be guessed.

    Old tools write backslashes, './' in front, and names in the encoding of their country without saying which.
    """
    given = [item.orig_filename.split("\0", 1)[0] for item in items]
    marked = [
        bool(item.flag_bits & _UTF_8) or name.isascii() or item.filename.replace("\\", "/") != name.replace("\\", "/")
        for item, name in zip(items, given, strict=True)  # the last: its extra field has another name, in UTF-8
    ]
    unmarked = [name.encode("cp437") for name, known in zip(given, marked, strict=True) if not known]
    codec = member_codec(unmarked)
    names = []
    for item, name, known in zip(items, given, marked, strict=True):
        name = item.filename if known else name.encode("cp437").decode(codec)
        name = name.replace("\\", "/")
        if ".." not in name.split("/"):  # such a member stays hidden
            name = stored_name(name) + "/" * name.endswith("/")
        names.append(name)
    if not unmarked or codec in ("utf-8", "cp437"):
        return names, ()
    return names, (f"Names in the zip are not marked as UTF-8: their encoding was taken for {codec}.",)


def _unpack(raw: bytes, member: Member) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        data = raw
    elif member.method == zipfile.ZIP_DEFLATED:
        try:  # never more than the directory promises, whatever the stream says
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, member.size) if member.size else b""
        except zlib.error as error:
            raise DataError(f"its zip data is damaged ({error})") from None
    else:
        raise DataError(f"zip compression {member.method} is not read; zip it again, stored or deflated")
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise DataError("its zip data is damaged (wrong checksum)")
    return data


class MixedStore:
    """Paths as the user gave them; 'pack.zip/inside.jpg' is a member of a zip."""

    def __init__(self, zips: dict[str, ZipStore]):
        self.zips = zips
        self.disk = FolderStore("")

    def read(self, path: str) -> bytes:
        for archive, store in self.zips.items():
            if path.startswith(archive + "/"):
                return store.read(path[len(archive) + 1 :])
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
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


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
