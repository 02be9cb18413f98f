"""A store that notes which files are read: what belongs into shards is what a reader of the data asks for."""

from dataclasses import dataclass, field
from typing import NamedTuple

from convnext.data.store import Once, Tree, TreeStore

File = tuple[int, str]  # (number of its tree, its name there)


@dataclass
class Log:
    """Files that were read, in order."""

    seen: dict[File, None] = field(default_factory=dict)  # since the beginning
    bytes_of: dict[File, bytes] = field(default_factory=dict)  # since they were last taken

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
        data = self.store.read(path)
        name = (self.number, self.prefix + path)
        self.log.seen[name] = None
        self.log.bytes_of[name] = data
        return data


class RecordingTree(NamedTuple):
    """A tree of which is noted what is read."""

    tree: Tree
    store: RecordingStore  # its own


def recording(tree: Tree, number: int, log: Log) -> RecordingTree:
    """The same files, noted in `log` as they are read."""
    store = RecordingStore(tree.store, number, log)
    return RecordingTree(Tree(tree.files, tree.folders, store, Once(store)), store)
