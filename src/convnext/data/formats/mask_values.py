"""What masks hold: values or colours, how many pixels of each, and whether these are areas or edges.

Axes: H W pixel rows and columns.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from convnext.data.colours import packed
from convnext.data.decode import decode, decode_mask
from convnext.data.store import Tree
from convnext.errors import DataError

_VALUES = 256
_EDGE = 0.2  # share of a value's pixels inside areas, below which it is of an edge
_SMOOTH = 3  # values between 0 and 255 that a smoothed edge has at least
_FEW = 64  # values or colours of a mask at most, whatever its areas
_FLAT = 0.5  # share of a mask's pixels that are like their neighbours
_LOSSY_SHADES = 16  # shades, of 8 a channel, that hold nearly all of a mask saved as JPEG
_PEEKS = 16


@dataclass
class Held:
    """Pixels of all masks: by value, those of them inside areas, and by colour where a mask shows colours."""

    values: np.ndarray = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    inside: np.ndarray = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    colours: Counter[int] = field(default_factory=Counter)

    @property
    def seen(self) -> set[int]:
        """The values that occur."""
        return set(np.flatnonzero(self.values).tolist())

    @property
    def soft(self) -> bool:
        """0 and 255 with values between them that are nowhere areas: the edges were smoothed."""
        between = self.values[1:255]
        if not (self.values[0] and self.values[255]) or np.count_nonzero(between) < _SMOOTH:
            return False
        return bool(self.inside[1:255].sum() < _EDGE * between.sum())

    @property
    def edges(self) -> set[int]:
        """The values that are nowhere areas."""
        return set(np.flatnonzero((self.values > 0) & (self.inside < _EDGE * self.values)).tolist())


def held(tree: Tree, masks: Sequence[str], *, colours: bool = False) -> Held:
    """What all masks hold; those that cannot be read are named when their image is. `colours`: greys are colours too."""

    def look(path: str) -> np.ndarray | None:
        try:
            return decode_mask(tree.once.take(path), colours=colours)
        except (DataError, OSError):
            return None

    total = Held()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda path: _counted(look(path)), masks):
            total.values += found.values
            total.inside += found.inside
            total.colours.update(found.colours)
    return total


def show_colours(tree: Tree, masks: Sequence[str]) -> bool:
    """Whether one of a few masks shows colours."""
    return any(mask.ndim == 3 for mask in _peeked(tree, masks))


def values_in_few(tree: Tree, masks: Sequence[str]) -> set[int]:
    """The numbers in these few."""
    return {int(value) for mask in _peeked(tree, masks) if mask.ndim == 2 for value in np.unique(mask)}


def _peeked(tree: Tree, masks: Sequence[str]) -> Iterator[np.ndarray]:
    for path in masks[:: max(1, len(masks) // _PEEKS)][:_PEEKS]:
        try:
            yield decode_mask(tree.once.read(path))
        except (DataError, OSError):
            continue


def in_colours(tree: Tree, masks: Sequence[str]) -> dict[str, bool]:
    """Whether each mask shows colours, where others hold numbers; without those that cannot be read."""

    def look(path: str) -> bool | None:
        try:
            return decode_mask(tree.once.take(path)).ndim == 3
        except (DataError, OSError):
            return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = zip(masks, pool.map(look, masks), strict=True)
        return {path: shown for path, shown in found if shown is not None}


def is_mask(data: bytes) -> bool:
    """Whether an image is a mask by what it shows: few values or colours, or areas of one value.

    Raises DataError where it cannot be decoded.
    """
    values = decode_mask(data)
    values = packed(values) if values.ndim == 3 else values
    return len(np.unique(values)) <= _FEW or float(_like_neighbours(values).mean()) >= _FLAT


def was_mask(data: bytes) -> bool:
    """The same for a JPEG, whose areas are only nearly of one value."""
    try:
        shades = packed(decode(data) >> 5)
    except DataError:
        return False
    counts = np.sort(np.unique(shades, return_counts=True)[1])[::-1]
    return bool(counts[:_LOSSY_SHADES].sum() >= 0.9 * shades.size) and float(_like_neighbours(shades).mean()) >= 0.7


def _counted(pixels: np.ndarray | None) -> Held:
    if pixels is None:
        return Held()
    if pixels.ndim == 3:
        shown, counts = np.unique(packed(pixels), return_counts=True)
        return Held(colours=Counter(dict(zip(shown.tolist(), counts.tolist(), strict=True))))
    like = _like_neighbours(pixels)
    return Held(
        np.bincount(pixels.ravel(), minlength=_VALUES),
        np.bincount(pixels[: like.shape[0], : like.shape[1]][like], minlength=_VALUES),
    )


def _like_neighbours(values: np.ndarray) -> np.ndarray:
    """(H - 1, W - 1) bool: as the pixel to the right and that below."""
    here = values[:-1, :-1]
    like: np.ndarray = (here == values[:-1, 1:]) & (here == values[1:, :-1])
    return like if like.size else np.ones((1, 1), bool)
