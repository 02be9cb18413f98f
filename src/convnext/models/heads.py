"""Which rows of the head in some weights serve the classes of a network: those of classes with the same name.

Axes: K classes of the weights, M of the network. A layer of classes has K rows, K + 1 with the background last, or 4 K
for the sides of a box.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext.errors import number_of

_WORDNET = re.compile(r"n\d{8}")  # what ImageNet calls a class


@dataclass(frozen=True)
class Rows:
    """What of a head is taken over."""

    held: int  # K
    asked: int  # M
    taken: Mapping[int, int]  # class of the network -> class of the weights
    note: str = ""  # in one sentence, what was not simply taken over

    def fit(self, head: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`fresh` tensors of the network with the rows that `head`, the same ones of the weights, has for its classes.

        A tensor whose rows are no classes, or which differs in more than their number, is that of `head`.
        """
        return {key: self._tensor(value, fresh[key]) if key in fresh else value for key, value in head.items()}

    def whole(self) -> bool:
        """Whether every class of the network has its row."""
        return len(self.taken) == self.asked

    def none(self) -> bool:
        """Whether nothing of the head is taken over."""
        return not self.taken

    def _tensor(self, held: Tensor, fresh: Tensor) -> Tensor:
        if held.shape[1:] != fresh.shape[1:]:
            return held
        counts = len(held), len(fresh)
        if counts == (self.held, self.asked):
            pairs = list(self.taken.items())
        elif counts == (self.held + 1, self.asked + 1):  # the background is no class of a name
            pairs = [*self.taken.items(), *([(self.asked, self.held)] if self.taken else [])]
        elif counts == (4 * self.held, 4 * self.asked):
            pairs = [(4 * one + side, 4 * other + side) for one, other in self.taken.items() for side in range(4)]
        else:
            return held
        made = fresh.detach().clone()
        if pairs:
            ours, theirs = (torch.tensor(places) for places in zip(*pairs, strict=True))
            made[ours] = held[theirs].to(made)
        return made


def matched(held: int, asked: int, held_names: Sequence[str] | None, asked_names: Sequence[str]) -> Rows:
    """The rows of a head of `held` classes for a network of `asked`, by their names as far as they are known.

    `asked_names`: of the data; () where a network is filled that has none, whose head is then taken over whole where
    the numbers agree. A head without names is taken over for ImageNet's classes alone, whose names are WordNet ids in a
    published order.
    """
    every = {i: i for i in range(asked)}
    replaced = f"head of {number_of(held, 'class', 'classes')} replaced by a new one for {asked}"
    if not asked_names:
        return Rows(held, asked, every) if held == asked else Rows(held, asked, {}, replaced)
    if not held_names:
        if held == asked == 1000 and _imagenet(asked_names):
            note = "head of 1,000 classes taken over: the classes are named by WordNet ids, as ImageNet's are"
            return Rows(held, asked, every, note)
        return Rows(held, asked, {}, f"{replaced}: the weights do not name their classes")
    places = {_plain(name): i for i, name in enumerate(held_names)}
    taken = {i: places[_plain(name)] for i, name in enumerate(asked_names) if _plain(name) in places}
    if taken == every and held == asked:
        return Rows(held, asked, taken)
    if not taken:
        return Rows(held, asked, {}, f"{replaced}: no class has the name of one of these")
    fresh = f", {asked - len(taken)} fresh" if len(taken) < asked else ""
    return Rows(
        held, asked, taken, f"head: {len(taken)} of {number_of(asked, 'class', 'classes')} matched by name{fresh}"
    )


def _imagenet(names: Sequence[str]) -> bool:
    return all(_WORDNET.fullmatch(name) for name in names) and list(names) == sorted(names)


def _plain(name: str) -> str:
    """One way to write it: an accent may be a sign of its own."""
    return unicodedata.normalize("NFC", name)
