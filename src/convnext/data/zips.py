"""The inside of a zip: what its directory says, how its members are called, and their bytes."""

import os
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

from convnext.data.limits import require_bytes
from convnext.data.written import member_codec, stored_name
from convnext.errors import DataError

WRONG = (  # what Python's reader raises for a directory that is damaged, or made to do harm
    zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error,
    IndexError, MemoryError,
)  # fmt: skip
_LOCAL_HEADER = 30  # bytes before the name in a zip member's own header (APPNOTE 4.3.7)
_ENCRYPTED, _UTF_8 = 0x1, 0x800  # bits of a member's flags


class Opened:
    """One file, opened when it is first read, closed with the last store that reads it; a pickled copy opens it again."""

    def __init__(self, path: str):
        self.path = path
        self._files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_files": {}}

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on, fewer at the end of the file."""
        if not hasattr(os, "pread"):  # Windows: a file of its own for each read
            with open(self.path, "rb") as file:
                file.seek(start)
                return file.read(size)
        if not self._files:
            new = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if self._files.setdefault("", new) != new:  # another thread was faster
                os.close(new)
        return os.pread(self._files[""], size, start)


class Member(NamedTuple):
    """What a zip's directory says about one file: places and sizes in bytes."""

    start: int
    packed: int
    size: int
    crc: int
    method: int
    encrypted: bool


def member_of(item: zipfile.ZipInfo) -> Member:
    """What is kept of an entry."""
    return Member(
        item.header_offset,
        item.compress_size,
        item.file_size,
        item.CRC,
        item.compress_type,
        bool(item.flag_bits & _ENCRYPTED),
    )


def member_names(items: list[zipfile.ZipInfo]) -> tuple[list[str], tuple[str, ...]]:
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


def read_member(file: Opened, size: int, path: str, member: Member) -> bytes:
    """The bytes of a member called `path` of a zip of `size` bytes. Raises DataError with the reason when there are none."""
    if member.encrypted:
        raise DataError("it is encrypted; zip it again without a password")
    require_bytes(path, member.size, member.packed)
    if member.start < 0 or member.start + _LOCAL_HEADER + member.packed > size:
        raise DataError("the zip ends before it")
    head = file.read(member.start, _LOCAL_HEADER)
    names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return _unpack(file.read(member.start + _LOCAL_HEADER + names, member.packed), member)


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
