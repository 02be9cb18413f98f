"""From a folder of images to plain tar files with an index: each appears whole, and what was stopped goes on.

`shards.json` comes last: without it a folder of shards is not whole, and is not read. Until then a record of each finished
tar file lies in a hidden folder beside them.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext.data.limits import require_bytes
from convnext.data.shards.index import Files, Member, files_of, packed
from convnext.data.shards.plan import Plan, Shard, planned
from convnext.data.shards.record import ANNOTATIONS, FOR_TIMM, FORMAT, INDEX, RECORD, VERSION, WRITING
from convnext.data.shards.recorder import File
from convnext.data.shards.samples import sample_of
from convnext.data.shards.tar import ending_of, tar_at
from convnext.data.shards.target import Target, target_of
from convnext.data.source import Source
from convnext.data.store import FolderStore, printable
from convnext.errors import DataError, number_of, reason_of
from convnext.files import from_json, to_json

PER_SHARD = 2000  # images: 200 MB of photos
_FILES_BYTES = 1 << 30  # of annotations in one tar file
_TELL_S = 10.0  # between two lines of progress


@dataclass(frozen=True)
class Sharded:
    """What was written."""

    out: str  # a folder, or an address
    parts: Mapping[str, int]  # part -> images
    shards: int  # of images; tables and annotations lie in tar files of their own
    bytes: int  # of all
    left_out: Mapping[str, str] = field(default_factory=dict)  # images that could not be read, with the reason
    kept: int = 0  # shards that were there already

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        return {**self.__dict__, "parts": dict(self.parts), "left_out": dict(self.left_out)}

    def lines(self) -> list[str]:
        """For a terminal."""
        parts = ", ".join(f"{part} {number_of(count, 'image')}" for part, count in self.parts.items())
        few = "all" if self.kept == self.shards else number_of(self.kept, "shard")
        kept = f"; {few} of them were there already" if self.kept else ""
        lines = [f"'{self.out}': {parts}, {number_of(self.shards, 'shard')}, {self.bytes / 1e6:,.1f} MB{kept}"]
        if self.left_out:
            path, reason = next(iter(self.left_out.items()))
            many, lie = number_of(len(self.left_out), "image"), "lies" if len(self.left_out) == 1 else "lie"
            lines.append(f"{many} could not be read and {lie} in no shard; the first is '{path}': {reason}.")
        return lines


@dataclass(frozen=True)
class _Done:
    """A finished tar file."""

    name: str
    part: str
    images: int
    bytes: int
    sha256: str
    members: dict[File, tuple[int, int, int]]  # file -> place, size, CRC-32
    left_out: dict[str, str]

    @property
    def row(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("name", "part", "images", "bytes", "sha256")}


def write_shards(
    source: Source, out: str | Path, *, per_shard: int = PER_SHARD, tell: Callable[[str], None] = lambda line: None
) -> Sharded:
    """Write `source` into the folder or the object store `out`, at most `per_shard` images in a tar file; a second call
    goes on.

    Nobody else may write there meanwhile. Raises DataError where `out` holds something else or nothing can be read,
    ConvNeXtError where the disk refuses, Unreachable where the store does; what is finished by then stays.
    """
    to = target_of(out)
    plan = planned(source, per_shard)
    key = _key(plan, per_shard)
    names = to.names()
    if RECORD in names:
        return _there(to, key)
    _require_ours(to, names)
    with to.begin():
        done, kept = list[_Done](), 0
        for one, was_there in _written(plan, to, key, tell):
            done.append(one)
            kept += was_there and one.part != ANNOTATIONS
        return _finished(plan, to, key, done, kept)


def _written(plan: Plan, to: Target, key: str, tell: Callable[[str], None]) -> Iterator[tuple[_Done, bool]]:
    """Each tar file, and whether it was there already."""
    count, last = len(plan.shards), time.monotonic()
    for number, shard in enumerate(plan.shards):
        before = _before(plan, to, shard.name, key)
        yield before or _shard(plan, to, shard, key), before is not None
        if time.monotonic() - last > _TELL_S:
            last = time.monotonic()
            tell(f"{number + 1:,} of {number_of(count, 'shard')} written.")
    files = list(plan.files)
    number = 0
    while files:
        name = f"{ANNOTATIONS}-{number:06d}.tar"
        before = _before(plan, to, name, key)
        done = before or _annotations(plan, to, name, files, key)
        yield done, before is not None
        files = [file for file in files if file not in done.members]
        number += 1


def _shard(plan: Plan, to: Target, shard: Shard, key: str) -> _Done:
    """Write the images of one tar file."""
    data, images = plan.parts[shard.part], 0
    members, left_out = dict[File, tuple[int, int, int]](), dict[str, str]()
    with to.appearing(shard.name) as made, tar_at(made) as tar:
        for number, place in enumerate(shard.places.tolist(), shard.first):
            try:
                sample = sample_of(data, place, plan.log)
            except (DataError, OSError) as error:
                left_out[printable(data.entries[place].path)] = reason_of(error)
                continue
            placed = {name: tar.add(f"{shard.part}-{number:09d}{name}", held) for name, held in sample.members.items()}
            members |= {file: placed[name] for file, name in sample.files.items()}
            images += 1
    done = _Done(shard.name, shard.part, images, tar.size, tar.sha256, members, left_out)
    _note(plan, to, done, key)
    return done


def _annotations(plan: Plan, to: Target, name: str, files: list[File], key: str) -> _Done:
    """Write as many of `files` as belong into one tar file."""
    members = dict[File, tuple[int, int, int]]()
    with to.appearing(name) as made, tar_at(made) as tar:
        for number, file in enumerate(files):
            data = plan.trees[file[0]].tree.once.take(file[1])
            require_bytes(file[1], len(data))
            members[file] = tar.add(f"file-{number:09d}{ending_of(file[1])}", data)
            plan.log.take()
            if tar.size > _FILES_BYTES:
                break
    done = _Done(name, ANNOTATIONS, 0, tar.size, tar.sha256, members, {})
    _note(plan, to, done, key)
    return done


def _note(plan: Plan, to: Target, done: _Done, key: str) -> None:
    """Remember a finished tar file, with what its files were like, for a call that goes on."""
    members = [[*file, *where, _stamp(plan, file)] for file, where in done.members.items()]
    note = {"key": key, **done.row, "members": members, "left_out": done.left_out}
    to.write(f"{WRITING}/{done.name}.json", to_json(note).encode())


def _before(plan: Plan, to: Target, name: str, key: str) -> _Done | None:
    """What an earlier call finished, where its images are still the same; images that could not be read are tried again."""
    try:
        note = from_json(to.read(f"{WRITING}/{name}.json"))
        rows = {(number, path): (first, size, crc, stamp) for number, path, first, size, crc, stamp in note["members"]}
        same = note["key"] == key and to.size(name) == note["bytes"] and not note["left_out"]
        if not same or any(_stamp(plan, file) != row[3] for file, row in rows.items()):
            return None
        members = {file: row[:3] for file, row in rows.items()}
        return _Done(name, note["part"], note["images"], note["bytes"], note["sha256"], members, {})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stamp(plan: Plan, file: File) -> list[int]:
    """What changes when somebody writes a file, or the zip around it."""
    store = plan.trees[file[0]].store.store
    path = os.path.join(store.root, file[1]) if isinstance(store, FolderStore) else getattr(store, "archive", "")
    try:
        about = os.stat(path)
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns]


def _finished(plan: Plan, to: Target, key: str, done: list[_Done], kept: int) -> Sharded:
    """Write the index and, last of all, the record that makes the folder whole."""
    trees = [_tree(plan, number, done) for number in range(len(plan.trees))]
    index = packed(trees)
    parts = {part: sum(each.images for each in done if each.part == part) for part in plan.parts}
    source = plan.source
    record = {
        "format": FORMAT, "version": VERSION, "key": key, "task": source.task, "form": source.form,
        "labels": source.labels, "file": source.file, "bands": source.bands, "classes": plan.classes, "parts": parts,
        "notes": [each.store.notes for each in plan.trees], "shards": [each.row for each in done],
        "index": {"name": INDEX, "bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
    }  # fmt: skip
    to.write(INDEX, index)
    to.write(FOR_TIMM, to_json(_for_timm(done, parts), indent=1).encode())
    to.write(RECORD, to_json(record, indent=1).encode())
    to.finish()
    left_out = {path: reason for each in done for path, reason in each.left_out.items()}
    return _sharded(to, parts, [each.row for each in done], left_out, kept)


def _sharded(
    to: Target, parts: Mapping[str, int], rows: list[dict[str, Any]], left_out: dict[str, str], kept: int
) -> Sharded:
    shards = sum(row["part"] != ANNOTATIONS for row in rows)
    return Sharded(to.name, parts, shards, sum(row["bytes"] for row in rows), left_out, min(kept, shards))


def _tree(plan: Plan, number: int, done: list[_Done]) -> Files:
    tree = plan.trees[number].tree
    members = {
        file[1]: Member(place, *where)
        for place, each in enumerate(done)
        for file, where in each.members.items()
        if file[0] == number
    }
    listed = set(tree.files)
    names = [*tree.files, *(name for name in members if name not in listed)]
    return files_of(names, len(tree.files), tree.folders, members)


def _for_timm(done: list[_Done], parts: Mapping[str, int]) -> dict[str, Any]:
    """What timm reads about the tar files of each part."""
    own = {part: [each for each in done if each.part == part] for part in parts}
    splits = {
        part: {
            "name": part,
            "num_samples": parts[part],
            "filenames": [each.name for each in shards],
            "shard_lengths": [each.images for each in shards],
        }
        for part, shards in own.items()
    }
    return {"splits": splits}


def _key(plan: Plan, per_shard: int) -> str:
    """What tells these images, labels and settings from others."""
    source = plan.source
    said = [VERSION, per_shard, source.task, source.form, source.labels, source.file, source.bands, plan.classes]
    found = hashlib.sha256(to_json(said).encode())
    for part, data in plan.parts.items():
        for entry in data.entries:
            about = getattr(entry, "label", None), getattr(entry, "marks", None), getattr(entry, "semantic", None)
            found.update(to_json([part, entry.path, *about]).encode())
    for number, name in plan.files:
        found.update(plan.trees[number].tree.once.take(name))
    plan.log.take()
    return found.hexdigest()[:16]


def _there(to: Target, key: str) -> Sharded:
    """Shards that are whole already. Raises DataError where they are of something else."""
    try:
        record = from_json(to.read(RECORD))
        same = record["key"] == key
        found = _sharded(to, record["parts"], record["shards"], {}, len(record["shards"]))
    except (ValueError, KeyError, TypeError):
        raise DataError(f"'{to.name}/{RECORD}' is damaged. Remove '{to.name}' and write it again.") from None
    if not same:
        raise DataError(
            f"'{to.name}' holds shards of other images, labels, annotations or --images-per-shard. Name a new folder."
        )
    return found


def _require_ours(to: Target, names: list[str]) -> None:
    """Raise DataError where among the `names` of what is there is something that no earlier call can have left."""
    others = [name for name in names if not name.startswith(".") and name not in (INDEX, FOR_TIMM)]
    if others and WRITING not in names:
        raise DataError(f"'{to.name}' is not empty: it holds '{printable(others[0])}'. Name a new folder.")
