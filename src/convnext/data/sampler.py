"""In which order training sees its images: each once an epoch, or each class as often as the others.

An order is a function of (seed, epoch, lap) alone, so that any process, and any restart, finds the same image in the
same place. Axes: N images.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convnext.data.labelled import rarest

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_CLASSES = 1  # what tells the numbers that an order of classes draws from those of an order of images
_KEPT = 4  # orders that are remembered


class Order(Protocol):
    """Which image stands in which place."""

    repeats: bool  # whether an image may stand in several places of one order

    def __call__(self, epoch: int, lap: int) -> NDArray[np.int64]:
        """(N,) indices; laps beyond 0 are for sets smaller than a batch and for replacements at the end."""
        ...


@lru_cache(maxsize=_KEPT)
def order_of(count: int, seed: int, epoch: int, lap: int) -> NDArray[np.int64]:
    """The permutation of one pass."""
    return np.random.default_rng([seed & _WORD, epoch, lap]).permutation(count)


class EachOnce:
    """Every image once an epoch."""

    repeats = False

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def __call__(self, epoch: int, lap: int) -> NDArray[np.int64]:
        return order_of(self.count, self.seed, epoch, lap)


class EachClassAlike:
    """As many images of each class as of the others, in an epoch of N places.

    The classes take turns in a new random order each turn. A class with more images than turns goes on in the next
    epoch where it stopped, so that none of its images comes twice before all have come once; one with fewer comes round.
    """

    repeats = True

    def __init__(self, labels: NDArray[np.integer], seed: int):
        self.count, self.seed = len(labels), seed
        by_class = np.argsort(labels, kind="stable")
        _, first = np.unique(labels[by_class], return_index=True)
        self.images = np.split(by_class, first[1:])  # of each class that has any
        self.turns = -(-len(labels) // len(self.images))
        self._kept: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __call__(self, epoch: int, lap: int) -> NDArray[np.int64]:
        if (epoch, lap) not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[epoch, lap] = self._made(epoch, lap)
        return self._kept[epoch, lap]

    def _made(self, epoch: int, lap: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed & _WORD, epoch, lap, _CLASSES])
        table = np.empty((self.turns, len(self.images)), np.int64)  # one row a turn
        for column, own in enumerate(self.images):
            if len(own) <= self.turns:
                rounds = np.tile(own, (-(-self.turns // len(own)), 1))
                table[:, column] = rng.permuted(rounds, axis=1).ravel()[: self.turns]
            else:
                table[:, column] = np.fromiter(self._window(column, epoch, lap), np.int64, self.turns)
        return rng.permuted(table, axis=1).ravel()[: self.count]

    def _window(self, column: int, epoch: int, lap: int) -> Iterator[int]:
        """This epoch's images of a class that has more of them than an epoch has turns."""
        own = self.images[column]
        place = epoch * self.turns
        left = self.turns
        while left:
            turn, inside = divmod(place, len(own))
            order = np.random.default_rng([self.seed & _WORD, turn, lap, _CLASSES, column]).permutation(own)
            part = order[inside : inside + left]
            yield from part.tolist()
            place, left = place + len(part), left - len(part)


def order_for(labels: Sequence[int] | NDArray[np.integer], seed: int, *, balanced: bool) -> Order:
    """The order of images with these labels; one with several marks stands among those of the rarest class that it has."""
    if not balanced:
        return EachOnce(len(labels), seed)
    said = np.asarray(labels)
    return EachClassAlike(said if said.ndim == 1 else rarest(said), seed)
