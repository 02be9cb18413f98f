"""A store that notes which files are read: what belongs into shards is what a reader of the data asks for."""

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from convnext.data.store import FolderStore, Once, Store, Tree, TreeStore, ZipStore
from convnext.data.stores.shards import ShardStore

File = tuple[int, str]  # (number of its tree, its name there)
Stamp = tuple[int, int]  # bytes, and what differs where somebody has written the file: ns of the last change, or CRC-32
UNKNOWN = -1  # in place of either, for a file of which nothing is known without reading it


@dataclass
class Log:
    """Files that were read, in order."""

    bytes_of: dict[File, bytes] = field(default_factory=dict)  # since they were last taken
    stamps: dict[File, Stamp] = field(default_factory=dict)  # from before they were read, until they are cleared

    def take(self) -> dict[File, bytes]:
        """What was read since the last call."""
        taken, self.bytes_of = self.bytes_of, {}
        return taken


class RecordingStore:
    """The files of `store`, tree `number`; what is read is noted in `log`."""

    def __init__(self, store: TreeStore, number: int, log: Log, prefix: str = ""):
        self.store, self.number, self.log, self.prefix = store, number, log, prefix

    @property
    def notes(self) -> tuple[str, ...]:
        """What was understood in a way that one could see differently."""
        return self.store.notes

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.store.has(path)

    def below(self, prefix: str) -> "RecordingStore":
        """The same files, with paths counted from the folder `prefix` (which ends in '/')."""
        return RecordingStore(self.store.below(prefix), self.number, self.log, self.prefix + prefix)

    def read(self, path: str) -> bytes:
        """The whole file; OSError or DataError when it cannot be read."""
        stamp = stamp_of(self.store, path)  # first: who writes into it while it is read is noticed the next time
        data = self.store.read(path)
        name = (self.number, self.prefix + path)
        self.log.bytes_of[name], self.log.stamps[name] = data, stamp
        return data


class RecordingTree(NamedTuple):
    """A tree of which is noted what is read."""

    tree: Tree
    store: RecordingStore  # its own


def recording(tree: Tree, number: int, log: Log) -> RecordingTree:
    """The same files, noted in `log` as they are read."""
    store = RecordingStore(tree.store, number, log)
    return RecordingTree(Tree(tree.files, tree.folders, store, Once(store)), store)


def stamp_of(store: Store, path: str) -> Stamp:
    """What is known of a file without reading it, UNKNOWN twice where nothing is."""
    if isinstance(store, ZipStore):
        member = store.members.get(store.prefix + path)
        return (UNKNOWN, UNKNOWN) if member is None else (member.size, member.crc)
    if isinstance(store, ShardStore):
        return store.stamp(path) or (UNKNOWN, UNKNOWN)
    try:
        about = os.stat(os.path.join(store.root, path)) if isinstance(store, FolderStore) else None
    except (OSError, ValueError):
        about = None
    return (UNKNOWN, UNKNOWN) if about is None else (about.st_size, about.st_mtime_ns)
