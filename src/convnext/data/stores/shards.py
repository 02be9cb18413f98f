"""The files of a data set inside shards: any of them is read by its name, wherever the shards lie."""

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from convnext.data.band_store import BandStore
from convnext.data.limits import require_bytes
from convnext.data.shards.index import ABSENT, Files, Member
from convnext.data.store import Store, printable
from convnext.data.stores.ahead import Ahead
from convnext.data.stores.place import Place
from convnext.errors import DataError


class ShardStore:
    """Files by the names that they had; each is compared with its CRC-32 when it is read."""

    def __init__(
        self, place: Place, shards: Sequence[str], files: Files, notes: tuple[str, ...] = (), prefix: str = ""
    ):
        self.place, self.shards, self.files = place, tuple(shards), files
        self.notes, self.prefix = notes, prefix
        self._ahead: tuple[int, Ahead] | None = None  # of which process

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": None}

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.files.find(self.prefix + path) is not None

    def below(self, prefix: str) -> "ShardStore":
        """The same files, with paths counted from the folder `prefix` (which ends in '/')."""
        return ShardStore(self.place, self.shards, self.files, self.notes, self.prefix + prefix)

    def read(self, path: str) -> bytes:
        """The whole file. Raises DataError with the reason where it is not what was written, Unreachable where none answers."""
        member = self._member(path)
        if member is None:
            raise DataError(f"'{printable(path)}' is not in the shards of '{printable(self.place.name)}'")
        if member.shard == ABSENT:
            raise DataError("it could not be read, or was not needed, when the shards were written")
        require_bytes(path, member.size)
        ahead = self._ahead
        if ahead is not None and ahead[0] == os.getpid() and (data := ahead[1].take(path)) is not None:
            return data
        return self._read(member, once=False)

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Bytes and CRC-32 of a file, None where there is none."""
        member = self._member(path)
        return None if member is None or member.shard == ABSENT else (member.size, member.crc)

    def expect(self, paths: Iterable[str]) -> None:
        """Begin to fetch what is read next, in this order, where shards lie in an object store.

        It changes no byte and raises nothing: what cannot be fetched ahead is fetched by `read`.
        """
        if self.place.far is None:
            return
        if self._ahead is None or self._ahead[0] != os.getpid():
            self._ahead = (os.getpid(), Ahead(self._fetch))
        members = {path: self._member(path) for path in paths}
        there = {path: each.size for path, each in members.items() if each is not None and each.shard != ABSENT}
        self._ahead[1].expect(there)

    def _member(self, path: str) -> Member | None:
        row = self.files.find(self.prefix + path)
        return None if row is None else self.files.member(row)

    def _fetch(self, path: str) -> bytes:
        member = self._member(path)
        assert member is not None
        return self._read(member, once=True)

    def _read(self, member: Member, *, once: bool) -> bytes:
        shard = self.shards[member.shard]
        for fresh in (False, True):
            try:
                data = self.place.read(shard, member.first, member.size, fresh=fresh, once=once)
            except FileNotFoundError:
                raise DataError(f"its shard '{shard}' is missing") from None
            if len(data) == member.size and zlib.crc32(data) == member.crc:
                return data
        raise DataError(f"its shard '{shard}' is damaged (wrong checksum); `convnext verify` looks at all of it")


def expect(store: Store, paths: Callable[[], Iterable[str]]) -> None:
    """Tell a `store` that is far away which `paths` are read next; they are not asked for where it is not."""
    if isinstance(store, BandStore):
        expect(store.store, lambda: [file for path in paths() for file in store.files(path)])
    elif isinstance(store, ShardStore) and store.place.far is not None:
        store.expect(paths())
