"""What goes into shards: the images of each part in a mixed order, and the files that say what is on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convnext.data.dataset import DenseDataset
from convnext.data.formats.folders import listed
from convnext.data.formats.listing import PARTS
from convnext.data.labelled import Dataset
from convnext.data.opening import open_parts
from convnext.data.shards.index import require_rows
from convnext.data.shards.recorder import File, Log, RecordingTree, recording
from convnext.data.source import Source

WHOLE = "all"  # the part of data without parts


@dataclass(frozen=True)
class Shard:
    """One tar file to write."""

    name: str
    part: str
    first: int  # images of its part before it
    places: np.ndarray  # of its images in the data set of its part


@dataclass(frozen=True)
class Plan:
    """All of it."""

    source: Source  # as it was recognised
    trees: tuple[RecordingTree, ...]  # of labels and, where that is another, of images
    log: Log  # what is read from them
    parts: dict[str, Dataset | DenseDataset]
    shards: tuple[Shard, ...]
    files: tuple[File, ...]  # what was read to know the labels, images aside

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; the same for all parts."""
        return next(iter(self.parts.values())).classes


def planned(source: Source, per_shard: int) -> Plan:
    """What `source` becomes, `per_shard` images in a tar file. Raises DataError when nothing can be read
    and for more files than an index can hold.

    The images of a part come in an order of their own, always the same, so that who reads shards from the front sees all
    classes.
    """
    for each in (source.tree, source.images):
        require_rows(len(each.files))
    log = Log()
    tree = recording(source.tree, 0, log)
    images = tree if source.images is source.tree else recording(source.images, 1, log)
    noted = replace(source, tree=tree.tree, images=images.tree, opened={})
    parts = _parts(noted)
    seen = log.take()
    shown = {name for data in parts.values() for entry in data.entries for name in _names(entry)}
    files = tuple(file for file in seen if file[1] not in shown)
    shards = tuple(shard for part, data in parts.items() for shard in _shards(part, len(data.entries), per_shard))
    return Plan(source, (tree,) if images is tree else (tree, images), log, parts, shards, files)


def _parts(source: Source) -> dict[str, Any]:
    if source.task != "classification":
        return dict(open_parts(source))
    listing = listed(source, only=True)
    found = {part or WHOLE: listing.in_part(part) for part in PARTS}
    return {part: listing.dataset(chosen) for part, chosen in found.items() if chosen.any()}


def _names(entry: Any) -> Sequence[str]:
    """The files of an image that are stored with it."""
    mask = getattr(entry, "semantic", None)
    return (entry.path,) if mask is None else (entry.path, mask.rpartition(": ")[2])


def _shards(part: str, count: int, per_shard: int) -> list[Shard]:
    order = np.random.default_rng(0).permutation(count)
    starts = range(0, count, per_shard)
    return [
        Shard(f"{part}-{number:06d}.tar", part, start, order[start : start + per_shard])
        for number, start in enumerate(starts)
    ]
