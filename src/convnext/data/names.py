"""Many paths in a few buffers: a folder of a million images would otherwise be a million Python objects.

N paths. Each is a prefix, its folder with the slash, of which there are few, and a name in one joined text.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

_CHUNK = 4096  # names that are made into text at once
_CODEC = ("utf-8", "surrogatepass")  # whatever a name is made of comes back as it was


class Names(Sequence[str]):
    """Paths in a fixed order. A `str` exists only while somebody looks at it; pickled and forked it stays small."""

    def __init__(
        self,
        prefixes: tuple[str, ...],
        prefix: np.ndarray,
        text: bytes | memoryview,
        first: np.ndarray,
        last: np.ndarray,
    ):
        self.prefixes, self.prefix = prefixes, prefix  # (N,) int32: which of the prefixes
        self.text, self.first, self.last = text, first, last  # (N,) int64: where a name begins and ends in the text

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Names":
        """The same paths in the same order."""
        made = NamesBuilder()
        for path in paths:
            place = path.rfind("/") + 1
            made.add(path[:place], (path[place:],))
        return made.names()

    def __len__(self) -> int:
        return len(self.prefix)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Names": ...
    def __getitem__(self, place: int | slice) -> "str | Names":
        if isinstance(place, slice):
            return self.take(place)
        name = self.text[self.first[place] : self.last[place]]
        return self.prefixes[self.prefix[place]] + str(name, *_CODEC)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            part = slice(start, start + _CHUNK)
            ends = zip(self.prefix[part].tolist(), self.first[part].tolist(), self.last[part].tolist(), strict=True)
            for prefix, first, last in ends:
                yield self.prefixes[prefix] + str(self.text[first:last], *_CODEC)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash((len(self), self[0] if len(self) else ""))

    def __getstate__(self) -> dict[str, Any]:
        own = {key: value for key, value in self.__dict__.items() if key != "_endings"}
        return own | {"text": bytes(self.text)}

    def joined(self) -> "Names":
        """The same paths, whose names are all of the text, one behind the other."""
        whole = len(self) and (int(self.first[0]), int(self.last[-1])) == (0, len(self.text))
        return self if whole and np.array_equal(self.first[1:], self.last[:-1]) else Names.of(self)

    def take(self, places: "np.ndarray | slice") -> "Names":
        """Those at `places`: numbers, a bool for each, or a slice. The text is shared."""
        return Names(self.prefixes, self.prefix[places], self.text, self.first[places], self.last[places])

    def below(self, folder: str) -> "Names":
        """Those whose path begins with `folder`, which ends in '/', counted from there."""
        inside = np.array([prefix.startswith(folder) for prefix in self.prefixes], bool)
        shorter = tuple(prefix[len(folder) :] if prefix.startswith(folder) else "" for prefix in self.prefixes)
        chosen = self.take(inside[self.prefix] if len(self.prefixes) else slice(0, 0))
        return Names(shorter, chosen.prefix, self.text, chosen.first, chosen.last)

    def ending_in(self, endings: Collection[str]) -> np.ndarray:
        """(N,) bool: whose ending is among `endings`, which are in small letters with their dot."""
        known, which = self._endings
        return np.array([ending.lower() in endings for ending in known], bool)[which]

    def endings(self) -> Iterator[tuple[str, int]]:
        """(ending as it is written, how many have it); '' for none."""
        known, which = self._endings
        return zip(known, np.bincount(which, minlength=len(known)).tolist(), strict=True)

    @cached_property
    def _endings(self) -> tuple[tuple[str, ...], np.ndarray]:
        """(the different endings, (N,) int32: which of them)."""
        places: dict[bytes, int] = {}
        which = np.empty(len(self), np.int32)
        for start in range(0, len(self), _CHUNK):
            ends = zip(
                self.first[start : start + _CHUNK].tolist(), self.last[start : start + _CHUNK].tolist(), strict=True
            )
            for place, (first, last) in enumerate(ends, start):
                name = bytes(self.text[first:last])
                dot = name.rfind(b".", 1)  # a dot in front of all makes no ending
                which[place] = places.setdefault(name[dot:] if dot > 0 else b"", len(places))
        known = (ending.decode(*_CODEC) for ending in places)
        return (tuple(known) or ("",)), which


class NamesBuilder:
    """Collects paths, folder by folder."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._prefixes: dict[str, int] = {}
        self._prefix: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._short: list[tuple[int, int]] = []  # (prefix, size) of those that came one by one

    def add(self, prefix: str, names: Sequence[str]) -> None:
        """`names` in the folder `prefix`, which is empty or ends in '/'."""
        number = self._prefixes.setdefault(prefix, len(self._prefixes))
        encoded = [name.encode(*_CODEC) for name in names]
        self._text += b"".join(encoded)
        self._short += [(number, len(name)) for name in encoded]
        if len(self._short) >= _CHUNK:
            self._pack()

    def _pack(self) -> None:
        pairs = np.array(self._short, np.int64).reshape(-1, 2)
        self._prefix.append(pairs[:, 0].astype(np.int32))
        self._sizes.append(pairs[:, 1].astype(np.int32))
        self._short = []

    def names(self) -> Names:
        """All that were added, in that order."""
        self._pack()
        last = np.cumsum(np.concatenate(self._sizes), dtype=np.int64)
        first = np.concatenate([np.zeros(1, np.int64), last[:-1]]) if len(last) else last
        return Names(tuple(self._prefixes), np.concatenate(self._prefix), bytes(self._text), first, last)
