"""The index of shards: of every file of a data set its name, its shard, and its place and CRC-32 there.

N files. All is in arrays, which lie in the mapped file of the index: a million files are no Python objects, and the processes
of a machine share them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from convnext.data.names import Names
from convnext.data.shards import arrays
from convnext.errors import DataError

_LONGEST = 1 << 20  # bytes of a name
MOST = 2**31 - 1  # files: their rows are 32-bit numbers
ABSENT = -1  # in place of a shard's number: a file that was listed and not stored
_CODEC = ("utf-8", "surrogatepass")
_PART = 1 << 12  # names that are looked at together
_FROM_ZERO = (("first", 0, 2**63), ("size", 0, 2**63))
_COLUMNS = {"shard": np.int32, "first": np.int64, "size": np.int64, "crc": np.uint32}


class Member(NamedTuple):
    """Where the bytes of one file lie."""

    shard: int  # its number
    first: int  # bytes of the shard before it
    size: int  # bytes
    crc: int  # CRC-32


@dataclass(frozen=True)
class Files:
    """The files of one tree."""

    names: Names  # those that a listing shows, in its order, and behind them files that lie elsewhere
    listed: int  # how many a listing shows
    folders: tuple[str, ...]
    shard: np.ndarray  # (N,) int32
    first: np.ndarray  # (N,) int64
    size: np.ndarray  # (N,) int64
    crc: np.ndarray  # (N,) uint32
    hashes: np.ndarray  # (N,) uint64, sorted
    rows: np.ndarray  # (N,) int32: which file each of `hashes` is of

    def find(self, name: str) -> int | None:
        """The number of a file, None where there is none of that name."""
        wanted = np.array(_hash(name), np.uint64)
        place = int(np.searchsorted(self.hashes, wanted))
        while place < len(self.hashes) and self.hashes[place] == wanted:
            if self.names[row := int(self.rows[place])] == name:
                return row
            place += 1
        return None

    def member(self, row: int) -> Member:
        """Where file number `row` lies."""
        return Member(int(self.shard[row]), int(self.first[row]), int(self.size[row]), int(self.crc[row]))

    def placed(self, members: Iterable[tuple[str, Member]]) -> "Files":
        """These files, of which some are said to be stored; names that are none of them are passed over."""
        columns = {key: getattr(self, key).copy() for key in _COLUMNS}
        for name, member in members:
            if (row := self.find(name)) is not None:
                for key, column in columns.items():
                    column[row] = getattr(member, key)
        return replace(self, **columns)


def require_rows(count: int) -> None:
    """Raise DataError for more files than the numbers of an index can tell apart."""
    if count > MOST:
        raise DataError(
            f"These are {count:,} files, and {MOST:,} are the most in one data set of shards. Write parts of them, each into "
            "a folder of its own; a run trains on one."
        )


def files_of(names: Iterable[str], listed: int, folders: Iterable[str], members: Mapping[str, Member]) -> Files:
    """`names` with what `members` says of those that are stored."""
    return named(names, listed, folders).placed(members.items())


def named(names: Iterable[str], listed: int, folders: Iterable[str]) -> Files:
    """`names`, of which none is stored. Raises DataError for more than their numbers can tell apart."""
    held = names if isinstance(names, Names) else Names.of(names)
    require_rows(len(held))
    columns = {key: np.full(len(held), ABSENT if key == "shard" else 0, kind) for key, kind in _COLUMNS.items()}
    hashes = np.fromiter(map(_hash, held), np.uint64, len(held))
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    return Files(held, listed, tuple(folders), **columns, hashes=hashes[order], rows=order)


def packed(trees: Iterable[Files]) -> bytes:
    """The index as a file, the same bytes for the same files."""
    held: dict[str, np.ndarray] = {}
    for number, files in enumerate(trees):
        names = files.names.joined()
        texts = {"text": names.text, "prefixes": _joined(names.prefixes), "folders": _joined(files.folders)}
        columns = {key: getattr(files, key) for key in (*_COLUMNS, "hashes", "rows")}
        columns |= {key: np.frombuffer(text, np.uint8) for key, text in texts.items()}
        columns |= {"prefix": names.prefix, "ends": np.append(names.first[:1], names.last)}
        columns |= {"listed": np.array([files.listed], np.int64)}
        held |= {f"{number}.{key}": column for key, column in columns.items()}
    return arrays.packed(held)


def unpacked(data: bytes | memoryview) -> tuple[Files, ...]:
    """What `packed` made, in the memory of `data`. Raises DataError, with a reason, where it is something else."""
    try:
        held = arrays.arrays_of(data)
        trees = sorted({int(key.partition(".")[0]) for key in held})
        return tuple(_of_arrays(held, number) for number in trees)
    except (ValueError, KeyError) as error:
        raise DataError(f"it is no index of shards ({error})") from None


def _of_arrays(held: Mapping[str, np.ndarray], number: int) -> Files:
    own = {key.partition(".")[2]: column for key, column in held.items() if key.startswith(f"{number}.")}
    kinds = _COLUMNS | {"hashes": np.uint64, "rows": np.int32, "prefix": np.int32}
    count, ends, text = len(own["prefix"]), own["ends"], own["text"]
    if any(own[key].dtype != kind or len(own[key]) != count for key, kind in kinds.items()) or text.dtype != np.uint8:
        raise ValueError("its columns do not fit each other")
    if ends.dtype != np.int64 or len(ends) != count + bool(count) or len(own["listed"]) != 1:
        raise ValueError("its columns do not fit each other")
    prefixes = _parted(own["prefixes"])
    for key, least, most in (("prefix", 0, len(prefixes)), ("rows", 0, count), ("shard", ABSENT, MOST), *_FROM_ZERO):
        if count and not least <= int(own[key].min()) <= int(own[key].max()) < most:
            raise ValueError("its columns lead out of it")
    if count and (int(ends[0]) or int(ends[-1]) != len(text) or not _rise(ends)):
        raise ValueError("its columns lead out of it")
    names = Names(prefixes, own["prefix"], text.data, ends[:-1], ends[1:])
    columns = {key: own[key] for key in (*_COLUMNS, "hashes", "rows")}
    return Files(names, int(own["listed"][0]), _parted(own["folders"]), **columns)


def _rise(ends: np.ndarray) -> bool:
    """Whether each is as large as the one before or larger by the bytes of a name; a part at a time, to take no memory."""
    parts = (np.diff(ends[start : start + _PART + 1]) for start in range(0, len(ends) - 1, _PART))
    return all(0 <= int(part.min()) <= int(part.max()) < _LONGEST for part in parts)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(*_CODEC), digest_size=8).digest(), "little")


def _joined(texts: Iterable[str]) -> bytes:
    return b"".join(text.encode(*_CODEC) + b"\0" for text in texts)  # no name holds a NUL


def _parted(texts: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode(*_CODEC) for text in texts.tobytes().split(b"\0")[:-1])
