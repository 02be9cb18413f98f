"""From a folder of images to plain tar files with an index: each appears whole, and what was stopped goes on.

`shards.json` comes last: without it a folder of shards is not whole, and is not read. Until then a record of each finished
tar file lies in a hidden folder beside them.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext.data.limits import require_bytes
from convnext.data.shards.again import Done, Row, Stored, before, finished, note, reopen, write_times
from convnext.data.shards.index import Files, Member, named, packed
from convnext.data.shards.plan import Plan, Shard, planned
from convnext.data.shards.record import ANNOTATIONS, FOR_TIMM, FORMAT, INDEX, RECORD, TIMES, VERSION, WRITING
from convnext.data.shards.recorder import UNKNOWN, File
from convnext.data.shards.samples import sample_of
from convnext.data.shards.tar import ending_of, tar_at
from convnext.data.shards.target import Target, target_of
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.errors import DataError, number_of, reason_of
from convnext.files import to_json

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
    found: list[Done | None] = []
    if RECORD in names:
        found = finished(plan, to, key, names)
        done = [each for each in found if each is not None]
        if len(done) == len(found):
            return _sharded(to, plan, done, len(done))
    else:
        _require_ours(to, names)
    with to.begin():
        if found:
            reopen(to, found, key)
        done, kept = [], 0
        for one, was_there in _written(plan, to, key, tell):
            done.append(one)
            kept += was_there and one.part != ANNOTATIONS
        return _finished(plan, to, key, done, kept)


def _written(plan: Plan, to: Target, key: str, tell: Callable[[str], None]) -> Iterator[tuple[Done, bool]]:
    """Each tar file, and whether it was there already."""
    count, last = len(plan.shards), time.monotonic()
    for number, shard in enumerate(plan.shards):
        earlier = before(plan, to, shard.name, key)
        yield earlier or _shard(plan, to, shard, key), earlier is not None
        if time.monotonic() - last > _TELL_S:
            last = time.monotonic()
            tell(f"{number + 1:,} of {number_of(count, 'shard')} written.")
    files = list(plan.files)
    number = 0
    while files:
        name = f"{ANNOTATIONS}-{number:06d}.tar"
        earlier = before(plan, to, name, key)
        done = earlier or _annotations(plan, to, name, files, key)
        yield done, earlier is not None
        held = dict(done.members.items())
        files = [file for file in files if file not in held]
        number += 1


def _shard(plan: Plan, to: Target, shard: Shard, key: str) -> Done:
    """Write the images of one tar file."""
    data, images = plan.parts[shard.part], 0
    members, left_out = dict[File, Row](), dict[str, str]()
    with to.appearing(shard.name) as made, tar_at(made) as tar:
        for number, place in enumerate(shard.places.tolist(), shard.first):
            try:
                sample = sample_of(data, place, plan.log)
            except (DataError, OSError) as error:
                left_out[printable(data.entries[place].path)] = reason_of(error)
                continue
            placed = {name: tar.add(f"{shard.part}-{number:09d}{name}", held) for name, held in sample.members.items()}
            members |= {file: (*placed[name], _mark(plan, file)) for file, name in sample.files.items()}
            images += 1
    plan.log.stamps.clear()
    done = Done(shard.name, shard.part, images, tar.size, tar.sha256, Stored.of(members), left_out)
    note(to, done, key)
    return done


def _annotations(plan: Plan, to: Target, name: str, files: list[File], key: str) -> Done:
    """Write as many of `files` as belong into one tar file."""
    members = dict[File, Row]()
    with to.appearing(name) as made, tar_at(made) as tar:
        for number, file in enumerate(files):
            data = plan.trees[file[0]].tree.once.take(file[1])
            require_bytes(file[1], len(data))
            members[file] = (*tar.add(f"file-{number:09d}{ending_of(file[1])}", data), _mark(plan, file))
            plan.log.take()
            if tar.size > _FILES_BYTES:
                break
    plan.log.stamps.clear()
    done = Done(name, ANNOTATIONS, 0, tar.size, tar.sha256, Stored.of(members), {})
    note(to, done, key)
    return done


def _mark(plan: Plan, file: File) -> int:
    return plan.log.stamps.get(file, (UNKNOWN, UNKNOWN))[1]


def _finished(plan: Plan, to: Target, key: str, done: list[Done], kept: int) -> Sharded:
    """Write the index and, last of all, the record that makes the folder whole."""
    trees = [_tree(plan, number, done) for number in range(len(plan.trees))]
    index = packed(trees)
    parts, sha256 = _parts(plan, done), hashlib.sha256(index).hexdigest()
    source = plan.source
    record = {
        "format": FORMAT, "version": VERSION, "key": key, "task": source.task, "form": source.form,
        "labels": source.labels, "file": source.file, "bands": source.bands, "classes": plan.classes, "parts": parts,
        "notes": [each.store.notes for each in plan.trees], "shards": [each.row for each in done],
        "index": {"name": INDEX, "bytes": len(index), "sha256": sha256},
    }  # fmt: skip
    to.write(INDEX, index)
    write_times(to, trees, done, sha256)
    to.write(FOR_TIMM, to_json(_for_timm(done, parts), indent=1).encode())
    to.write(RECORD, to_json(record, indent=1).encode())
    to.finish()
    return _sharded(to, plan, done, kept)


def _parts(plan: Plan, done: list[Done]) -> dict[str, int]:
    return {part: sum(each.images for each in done if each.part == part) for part in plan.parts}


def _sharded(to: Target, plan: Plan, done: list[Done], kept: int) -> Sharded:
    shards = sum(each.part != ANNOTATIONS for each in done)
    left_out = {path: reason for each in done for path, reason in each.left_out.items()}
    return Sharded(to.name, _parts(plan, done), shards, sum(each.bytes for each in done), left_out, min(kept, shards))


def _tree(plan: Plan, number: int, done: list[Done]) -> Files:
    tree = plan.trees[number].tree
    files = named(tree.files, len(tree.files), tree.folders)
    elsewhere = [name for name, _ in _members(number, done) if files.find(name) is None]
    if elsewhere:
        files = named([*tree.files, *elsewhere], len(tree.files), tree.folders)
    return files.placed(_members(number, done))


def _members(number: int, done: list[Done]) -> Iterator[tuple[str, Member]]:
    """The files of a tree, and where they are stored."""
    for place, each in enumerate(done):
        for (tree, name), row in each.members.items():
            if tree == number:
                yield name, Member(place, *row[:3])


def _for_timm(done: list[Done], parts: Mapping[str, int]) -> dict[str, Any]:
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


def _require_ours(to: Target, names: Iterable[str]) -> None:
    """Raise DataError where among the `names` of what is there is something that no earlier call can have left."""
    others = [name for name in names if not name.startswith(".") and name not in (INDEX, FOR_TIMM, TIMES)]
    if others and WRITING not in names:
        raise DataError(f"'{to.name}' is not empty: it holds '{printable(others[0])}'. Name a new folder.")
