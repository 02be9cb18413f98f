"""What an earlier call left: a tar file stays where every image in it is still what was stored, also in whole shards.

A file whose size and time of last change are those that were noted is not read. One whose time alone differs is read and
compared with its CRC-32. In zips and in shards sizes and CRC-32 are known without reading.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnext.data.names import Names
from convnext.data.shards.index import Files, unpacked
from convnext.data.shards.plan import Plan, Shard
from convnext.data.shards.record import INDEX, RECORD, TIMES, WRITING
from convnext.data.shards.recorder import UNKNOWN, File, stamp_of
from convnext.data.shards.samples import sample_of
from convnext.data.shards.target import Target
from convnext.data.store import printable
from convnext.errors import DataError, reason_of
from convnext.files import from_json, to_json

Row = tuple[int, int, int, int]  # place, size, CRC-32 and the mark of its stamp


@dataclass(frozen=True)
class Stored:
    """The files in a tar file, in arrays: all of them are in memory until the index is written."""

    trees: np.ndarray  # (N,) int32
    names: Names
    rows: np.ndarray  # (N, 4) int64, each a `Row`

    @classmethod
    def of(cls, members: Mapping[File, Row]) -> "Stored":
        """The same files."""
        trees = np.array([tree for tree, _ in members], np.int32)
        return cls(trees, Names.of(name for _, name in members), np.array([*members.values()], np.int64).reshape(-1, 4))

    def items(self) -> Iterator[tuple[File, Row]]:
        """As a dict has them."""
        for tree, name, (first, size, crc, mark) in zip(
            self.trees.tolist(), self.names, self.rows.tolist(), strict=True
        ):
            yield (tree, name), (first, size, crc, mark)


@dataclass(frozen=True)
class Done:
    """A finished tar file."""

    name: str
    part: str
    images: int
    bytes: int
    sha256: str
    members: Stored
    left_out: dict[str, str]

    @property
    def row(self) -> dict[str, Any]:
        """What `shards.json` says of it."""
        return {key: getattr(self, key) for key in ("name", "part", "images", "bytes", "sha256")}


def note(to: Target, done: Done, key: str) -> None:
    """Remember a finished tar file, with what its files were like, for a call that goes on."""
    members = [[*file, *row] for file, row in done.members.items()]
    said = {"key": key, **done.row, "members": members, "left_out": done.left_out}
    to.write(_note_of(done.name), to_json(said).encode())


def before(plan: Plan, to: Target, name: str, key: str) -> Done | None:
    """What an earlier call finished, where its images are still the same; images that could not be read are tried again."""
    try:
        said = from_json(to.read(_note_of(name)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        said = {}
    try:
        rows = {(number, path): (first, size, crc, mark) for number, path, first, size, crc, mark in said["members"]}
        same = said["key"] == key and to.size(name) == said["bytes"] and not said["left_out"]
        members = _unchanged(plan, rows) if same else None
        if members is not None:
            return Done(name, said["part"], said["images"], said["bytes"], said["sha256"], Stored.of(members), {})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    to.remove(_note_of(name))  # it must not outlive the tar file that it is about
    return None


def finished(plan: Plan, to: Target, key: str, there: Mapping[str, int]) -> list[Done | None]:
    """Of each tar file of whole shards what it holds, None where it must be written anew. `there`: name -> bytes.

    Raises DataError where the shards are of something else, or damaged.
    """
    record, trees = _held(to)
    if record["key"] != key:
        raise DataError(
            f"'{to.name}' holds shards of other images, labels, annotations or --images-per-shard. Name a new folder."
        )
    marks = _marks(to, record, trees)
    planned = {shard.name: shard for shard in plan.shards}
    found, renewed = list[Done | None](), False
    for row, members in zip(record["shards"], _by_shard(trees, marks, len(record["shards"])), strict=True):
        whole = there.get(row["name"]) == row["bytes"]
        done = _still(plan, row, members, planned.get(row["name"])) if whole else None
        renewed |= done is not None and dict(done.members.items()) != members
        found.append(done)
    held = [done for done in found if done is not None]
    if renewed and len(held) == len(found):
        write_times(to, trees, held, record["index"]["sha256"])
    return found


def reopen(to: Target, found: list[Done | None], key: str) -> None:
    """Whole shards become unfinished ones, of which those that are not None stay."""
    for done in found:
        if done is not None:
            note(to, done, key)
    to.remove(RECORD)  # from here on nobody takes them for whole


def write_times(to: Target, trees: list[Files], done: list[Done], index: str) -> None:
    """Remember when each file of the data set was written, for a later call. `index`: the SHA-256 of that file."""
    marks = [np.full(len(files.names), UNKNOWN, np.int64) for files in trees]
    for each in done:
        for (number, path), row in each.members.items():
            place = trees[number].find(path)
            assert place is not None
            marks[number][place] = row[3]
    made = io.BytesIO()
    of = np.frombuffer(bytes.fromhex(index), np.uint8)
    np.savez(made, index=of, **{str(number): column for number, column in enumerate(marks)})  # type: ignore[arg-type]
    to.write(TIMES, made.getvalue())


def _held(to: Target) -> tuple[dict[str, Any], list[Files]]:
    """The record and the index of whole shards."""
    name = RECORD
    try:
        record: dict[str, Any] = from_json(to.read(RECORD))
        if not all(isinstance(record[key], kind) for key, kind in (("key", str), ("parts", dict), ("shards", list))):
            raise ValueError
        name, data = INDEX, to.read(INDEX)
        if hashlib.sha256(data).hexdigest() != record["index"]["sha256"]:
            raise ValueError
        return record, list(unpacked(data))
    except (FileNotFoundError, DataError, ValueError, KeyError, TypeError):
        raise DataError(f"'{to.name}/{name}' is damaged. Remove '{to.name}' and write it again.") from None


def _marks(to: Target, record: Mapping[str, Any], trees: list[Files]) -> list[np.ndarray]:
    """The marks of the files of each tree; where they are not known every image is read and compared."""
    unknown = [np.full(len(files.names), UNKNOWN, np.int64) for files in trees]
    try:
        with np.load(io.BytesIO(to.read(TIMES)), allow_pickle=False) as held:
            found = [held[str(number)] for number in range(len(trees))]
            same = held["index"].tobytes().hex() == record["index"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):  # it is only a help
        return unknown
    fits = all(one.shape == other.shape and one.dtype == other.dtype for one, other in zip(found, unknown, strict=True))
    return found if same and fits else unknown


def _by_shard(trees: list[Files], marks: list[np.ndarray], count: int) -> Iterator[dict[File, Row]]:
    """The files in each of `count` tar files."""
    orders = [np.argsort(files.shard, kind="stable") for files in trees]
    bounds = [
        np.searchsorted(files.shard[order], np.arange(count + 1)) for files, order in zip(trees, orders, strict=True)
    ]
    for number in range(count):
        members = dict[File, Row]()
        for tree, (files, order, ends) in enumerate(zip(trees, orders, bounds, strict=True)):
            for place in order[ends[number] : ends[number + 1]].tolist():
                _, *where = files.member(place)
                members[tree, files.names[place]] = (where[0], where[1], where[2], int(marks[tree][place]))
        yield members


def _still(plan: Plan, row: Mapping[str, Any], rows: dict[File, Row], shard: Shard | None) -> Done | None:
    """A tar file of whole shards, None where an image in it has changed or one that was not there can be read by now."""
    members = _unchanged(plan, rows)
    if members is None:
        return None
    left_out = dict[str, str]()
    if shard is not None and row["images"] < len(shard.places):
        data = plan.parts[shard.part]
        for place in shard.places.tolist():
            try:
                read = sample_of(data, place, plan.log).files
            except (DataError, OSError) as error:
                left_out[printable(data.entries[place].path)] = reason_of(error)
                continue
            if not read.keys() <= members.keys():
                return None
    return Done(row["name"], row["part"], row["images"], row["bytes"], row["sha256"], Stored.of(members), left_out)


def _unchanged(plan: Plan, rows: Mapping[File, Row]) -> dict[File, Row] | None:
    """The same rows with the marks of today, None where a file is not what was stored."""
    members = dict[File, Row]()
    for file, (first, size, crc, mark) in rows.items():
        stamp = stamp_of(plan.trees[file[0]].store.store, file[1])
        if stamp[0] not in (size, UNKNOWN):
            return None
        if (mark == UNKNOWN or stamp[1] != mark) and not _same_bytes(plan, file, crc):
            return None
        members[file] = first, size, crc, stamp[1]
    return members


def _same_bytes(plan: Plan, file: File, crc: int) -> bool:
    try:
        return zlib.crc32(plan.trees[file[0]].store.store.read(file[1])) == crc
    except (DataError, OSError):
        return False


def _note_of(name: str) -> str:
    return f"{WRITING}/{name}.json"
