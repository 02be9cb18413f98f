"""The index of shards: of every file of a data set its name, its shard, and its place and CRC-32 there.

N files. All is in arrays, so that a million files are no Python objects and forked workers share them.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from convnext.data.names import Names
from convnext.errors import DataError

_LONGEST = 1 << 20  # bytes of a name
MOST = 2**31 - 1  # files: their rows are 32-bit numbers
ABSENT = -1  # in place of a shard's number: a file that was listed and not stored
_CODEC = ("utf-8", "surrogatepass")
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
    """The index as a file: NumPy's .npz, the same bytes for the same files."""
    arrays: dict[str, Any] = {}
    for number, files in enumerate(trees):
        texts = {"text": files.names.text, "prefixes": _joined(files.names.prefixes), "folders": _joined(files.folders)}
        columns = {key: getattr(files, key) for key in (*_COLUMNS, "hashes", "rows")}
        columns |= {key: np.frombuffer(text, np.uint8) for key, text in texts.items()}
        columns |= {"prefix": files.names.prefix, "length": (files.names.last - files.names.first).astype(np.int32)}
        columns |= {"listed": np.array([files.listed], np.int64)}
        arrays |= {f"{number}.{key}": column for key, column in columns.items()}
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def unpacked(data: bytes) -> tuple[Files, ...]:
    """What `packed` made. Raises DataError, with a reason, where it is something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(
                each.compress_type for each in archive.infolist()
            ):  # ours are not; such a one could unpack to anything
                raise ValueError("it is compressed")
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {key: held[key] for key in held.files}
        trees = sorted({int(key.partition(".")[0]) for key in arrays})
        return tuple(_of_arrays(arrays, number) for number in trees)
    except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"it is no index of shards ({error})") from None


def _of_arrays(arrays: Mapping[str, np.ndarray], number: int) -> Files:
    own = {key.partition(".")[2]: column for key, column in arrays.items() if key.startswith(f"{number}.")}
    kinds = _COLUMNS | {"hashes": np.uint64, "rows": np.int32, "prefix": np.int32, "length": np.int32}
    count = len(own["prefix"])
    if any(own[key].dtype != kind or own[key].shape != (count,) for key, kind in kinds.items()):
        raise ValueError("its columns do not fit each other")
    last = np.cumsum(own["length"], dtype=np.int64)
    prefixes = _parted(own["prefixes"])
    bounds = (("prefix", len(prefixes)), ("rows", count), ("length", _LONGEST))
    wrong = any(count and not 0 <= int(own[key].min()) <= int(own[key].max()) < most for key, most in bounds)
    if wrong or (count and (int(last[-1]) != own["text"].nbytes or int(own["shard"].min()) < ABSENT)):
        raise ValueError("its columns lead out of it")
    if min(int(own[key].min(initial=0)) for key in ("first", "size")) < 0:
        raise ValueError("its columns lead out of it")
    names = Names(prefixes, own["prefix"], own["text"].tobytes(), last - own["length"], last)
    columns = {key: own[key] for key in (*_COLUMNS, "hashes", "rows")}
    return Files(names, int(own["listed"][0]), _parted(own["folders"]), **columns)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(*_CODEC), digest_size=8).digest(), "little")


def _joined(texts: Iterable[str]) -> bytes:
    return b"".join(text.encode(*_CODEC) + b"\0" for text in texts)  # no name holds a NUL


def _parted(texts: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode(*_CODEC) for text in texts.tobytes().split(b"\0")[:-1])
