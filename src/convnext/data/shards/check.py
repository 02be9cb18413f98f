"""Whether shards are what was written: every file against its digest and, of one that is not, which images in it."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convnext.data.cache import free_memory
from convnext.data.shards.index import Files, unpacked
from convnext.data.shards.record import INDEX, RECORD, Record, read_record
from convnext.data.store import printable
from convnext.data.stores.opened import place_of
from convnext.data.stores.place import Place
from convnext.errors import DataError, number_of, reason_of

_SLICE = 8 << 20  # bytes that are read at a time
_IN_MEMORY = 3  # times its bytes, that reading an index takes at most: 163 of 63 for a usual name
_NAMED = 3  # damaged files in a line


@dataclass(frozen=True)
class Checked:
    """One file of shards."""

    name: str
    whole: bool
    about: str  # what was compared, or what is wrong


def checked(path: str | Path) -> Iterator[Checked]:
    """Every file of the shards at `path`, the record first. Raises Unreachable where a store does not answer."""
    place = place_of(path)
    try:
        record = read_record(place)
    except DataError as error:
        yield Checked(RECORD, False, str(error))
        return
    count = sum(record.parts.values())
    yield Checked(RECORD, True, f"{number_of(count, 'image')} in {number_of(len(record.shards), 'shard')}")
    files: tuple[Files, ...] = ()
    try:
        require_memory(place, record)
        try:
            files = unpacked(index_of(place, record))
            yield Checked(INDEX, True, "it is what was written")
        except (DataError, OSError) as error:
            yield Checked(INDEX, False, f"It cannot be used: {reason_of(error)}. Copy it again.")
    except DataError as error:
        yield Checked(INDEX, False, str(error))
    for number, shard in enumerate(record.shards):
        yield _shard(place, shard["name"], shard["bytes"], shard["sha256"], number, files)


def index_of(place: Place, record: Record) -> bytes:
    """The bytes of the index. Raises DataError with the reason where they are not what was written, OSError.

    `require_memory` comes first.
    """
    data = place.whole(record.index["name"])
    if hashlib.sha256(data).hexdigest() != record.index["sha256"]:
        raise DataError("it is not what was written (wrong checksum)")
    return data


def require_memory(place: Place, record: Record) -> None:
    """Raise DataError where the index would not fit into the memory that is free, whatever its record says."""
    wanted, free = _IN_MEMORY * record.index["bytes"], free_memory()
    if wanted > free:
        name = f"{printable(place.name)}/{record.index['name']}"
        raise DataError(
            f"'{name}' takes {wanted / 1e9:,.1f} GB of memory while it is read, and {free / 1e9:,.1f} GB are free. Every "
            "process reads it: use fewer of them, a machine with more memory, or shards of fewer images."
        )


def _shard(place: Place, name: str, size: int, sha256: str, number: int, files: tuple[Files, ...]) -> Checked:
    found, there = hashlib.sha256(), 0
    try:
        while there < size and (data := place.read(name, there, min(_SLICE, size - there), fresh=True)):
            found.update(data)
            there += len(data)
    except OSError as error:
        return Checked(name, False, f"It cannot be read: {reason_of(error)}. Copy it again.")
    if found.hexdigest() == sha256:
        return Checked(name, True, f"{there:,} bytes are what was written")
    wrong = f"It has {there:,} bytes, and {size:,} were written" if there != size else "Its checksum is wrong"
    return Checked(name, False, f"{wrong}{_damaged(place, name, number, files)}. Copy it again.")


def _damaged(place: Place, name: str, number: int, files: tuple[Files, ...]) -> str:
    """Which files of the data set are damaged in a shard, for a message."""
    broken = []
    for tree in files:
        for row in (tree.shard == number).nonzero()[0].tolist():
            member = tree.member(row)
            if zlib.crc32(place.read(name, member.first, member.size, fresh=True)) != member.crc:
                broken.append(printable(tree.names[row]))
    if not broken:
        return ", though every image in it is whole" if files else ""
    more = ", ..." if len(broken) > _NAMED else ""
    return f": {number_of(len(broken), 'file')} in it damaged, {', '.join(broken[:_NAMED])}{more}"
