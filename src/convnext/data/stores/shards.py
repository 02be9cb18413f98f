"""The files of a data set inside shards: any of them is read by its name, wherever the shards lie."""

import zlib
from collections.abc import Sequence

from convnext.data.limits import require_bytes
from convnext.data.shards.index import ABSENT, Files
from convnext.data.store import printable
from convnext.data.stores.place import Place
from convnext.errors import DataError


class ShardStore:
    """Files by the names that they had; each is compared with its CRC-32 when it is read."""

    def __init__(
        self, place: Place, shards: Sequence[str], files: Files, notes: tuple[str, ...] = (), prefix: str = ""
    ):
        self.place, self.shards, self.files = place, tuple(shards), files
        self.notes, self.prefix = notes, prefix

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.files.find(self.prefix + path) is not None

    def below(self, prefix: str) -> "ShardStore":
        """The same files, with paths counted from the folder `prefix` (which ends in '/')."""
        return ShardStore(self.place, self.shards, self.files, self.notes, self.prefix + prefix)

    def read(self, path: str) -> bytes:
        """The whole file. Raises DataError with the reason where it is not what was written, Unreachable where none answers."""
        row = self.files.find(self.prefix + path)
        if row is None:
            raise DataError(f"'{printable(path)}' is not in the shards of '{printable(self.place.name)}'")
        member = self.files.member(row)
        if member.shard == ABSENT:
            raise DataError("it could not be read, or was not needed, when the shards were written")
        require_bytes(path, member.size)
        shard = self.shards[member.shard]
        for fresh in (False, True):
            try:
                data = self.place.read(shard, member.first, member.size, fresh=fresh)
            except FileNotFoundError:
                raise DataError(f"its shard '{shard}' is missing") from None
            if len(data) == member.size and zlib.crc32(data) == member.crc:
                return data
        raise DataError(f"its shard '{shard}' is damaged (wrong checksum); `convnext verify` looks at all of it")
