"""Whether shards are what was written: every file against its digest and, of one that is not, which images in it."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convnext.data.shards.index import Files, unpacked
from convnext.data.shards.record import INDEX, RECORD, Record, read_record
from convnext.data.store import printable
from convnext.data.stores.opened import place_of
from convnext.data.stores.place import Place, slices
from convnext.errors import DataError, number_of, reason_of

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
        files = unpacked(index_of(place, record))
        yield Checked(INDEX, True, "it is what was written")
    except (DataError, OSError) as error:
        yield Checked(INDEX, False, f"It cannot be used: {reason_of(error)}. Copy it again.")
    for number, shard in enumerate(record.shards):
        yield _shard(place, shard["name"], shard["bytes"], shard["sha256"], number, files)


def index_of(place: Place, record: Record) -> memoryview:
    """The bytes of the index. Raises as `Place.mapped`, and DataError with the reason where they are not what was written."""
    name, size = record.index["name"], record.index["bytes"]
    for fresh in (False, True) if place.far else (False,):
        data = place.mapped(name, size, fresh=fresh)
        if hashlib.sha256(data).hexdigest() == record.index["sha256"]:
            return data
    raise DataError("it is not what was written (wrong checksum)")


def _shard(place: Place, name: str, size: int, sha256: str, number: int, files: tuple[Files, ...]) -> Checked:
    found, there = hashlib.sha256(), 0
    try:
        for data in slices(place, name, size, fresh=True):
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
