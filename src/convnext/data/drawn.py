"""Which images are held out of data without a val part, where some of them stay together: groups and series are whole.

What is drawn so does not follow from the paths alone, so a checkpoint keeps it as a text. Axes: N images, K classes, U units,
which are groups, series, or single images.
"""

import base64
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.data.names import Names
from convnext.data.series import looked_at_series, number_in, series_note
from convnext.data.split import held_out_of_classes, key_of, many_of
from convnext.data.store import Store
from convnext.errors import DataError, number_of

_FEW = 20_000  # images, up to which what stays together is kept too: only runs on few images part them again
Units = NDArray[np.int32]


@dataclass(frozen=True)
class Drawn:
    """The images that are held out, and those that stay together."""

    held: NDArray[np.bool_]  # (N,)
    units: Units  # (N,): images of one number stay together, those of 0 go alone
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What `of` reads; '' where it follows from the paths."""
        if not self.units.any():
            return ""
        units = self.units if len(self.units) <= _FEW else np.minimum(self.units, 1)
        packed = zlib.compress((2 * units + self.held).astype("<i4").tobytes(), 9)
        return f"{len(units)}:{base64.b64encode(packed).decode()}"

    @classmethod
    def of(cls, text: str, count: int) -> "Drawn":
        """What was drawn of `count` images. Raises DataError where they were others, and where the text is damaged."""
        if not is_drawn(text):
            raise DataError(
                "what the run says that it held out is damaged. Restore its checkpoint, or name a new --out."
            )
        total, _, packed = text.partition(":")
        if total != str(count):
            raise DataError(
                f"the run parted {number_of(int(total), 'image')}, and {count:,} are there now. Give it the images of then, or "
                "a new --out."
            )
        values = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<i4")
        return cls((values & 1).astype(bool), (values >> 1).astype(np.int32))


def is_drawn(text: object) -> bool:
    """Whether a text is one that `Drawn.of` reads."""
    if not isinstance(text, str):
        return False
    total, _, packed = text.partition(":")
    try:
        return len(zlib.decompress(base64.b64decode(packed, validate=True))) == 4 * int(total)
    except (ValueError, zlib.error):
        return False


def draw(
    paths: Names,
    labels: np.ndarray,
    store: Store,
    *,
    groups: np.ndarray | None,
    val_share: float,
    seed: int,
    repeated: bool,
    known: str | None,
) -> Drawn:
    """Hold out `val_share` of each class; `labels` are (N,), or (N, K) marks of several an image.

    `groups`: (N,) numbers of those that a person names, 0 for none; without, series are looked for. `known`: what was drawn
    before, '' by the paths alone; None: it is drawn now. `repeated`: a path may be there twice. Raises DataError where what
    was drawn is of other images.
    """
    if known:
        return Drawn.of(known, len(paths))
    units, notes = np.zeros(len(paths), np.int32), tuple[str, ...]()
    if known is None and groups is not None:
        units = groups.astype(np.int32)
        notes = (_groups_note(units),)
    elif known is None and val_share:
        series = looked_at_series(paths, labels, store)
        units = cut(series, paths, labels, least=2, pieces=max(2, round(1 / val_share)))
        notes = tuple(filter(None, (series_note(paths, series), _cut_note(series, units))))
    if not units.any():
        held = held_out_of_classes(paths, labels, val_share, seed, repeated=repeated)
        return Drawn(held, np.zeros(len(paths), np.int32))
    if repeated:
        units = _joined(units, paths)
    held = held_out_whole(paths, labels, units, val_share, seed)
    return Drawn(held, units, (*notes, *_lacking(held, labels, groups is not None)))


def held_out_whole(
    paths: Sequence[str], labels: np.ndarray, units: Units, val_share: float, seed: int
) -> NDArray[np.bool_]:
    """(N,) bool: about `val_share` of each class and of all, each unit as a whole.

    Units come in the order of a hash of (seed, path). One is held out where that brings the counts nearer to what is wanted,
    and leaves images of each of its classes to train on. A class of two units or more has one that is held out.
    """
    of, first = _numbered(units)
    keys = [key_of(min(paths[place] for place in places), seed) for places in first]
    counts, total = _counts(of, labels)
    wanted = {label: many_of(count, val_share) for label, count in total.items()}
    held, chosen = dict.fromkeys(total, 0), np.zeros(len(first), bool)
    everything = max(total)

    def leaves_some(unit: int) -> bool:
        return all(held[label] + many < total[label] for label, many in counts[unit].items())

    def take(unit: int) -> None:
        chosen[unit] = True
        for label, many in counts[unit].items():
            held[label] += many

    order = sorted(range(len(first)), key=keys.__getitem__)
    for unit in order:
        lacks = ((wanted[label] - held[label], many) for label, many in counts[unit].items())
        if sum(abs(lack) - abs(lack - many) for lack, many in lacks) > 0 and leaves_some(unit):
            take(unit)
    having = defaultdict(list)
    for unit in order:
        for label in counts[unit]:
            having[label].append(unit)
    for label in sorted(total, key=total.__getitem__):
        if label == everything or not wanted[label] or held[label]:
            continue
        able = [unit for unit in having[label] if not chosen[unit] and leaves_some(unit)]
        if able:
            take(min(able, key=lambda unit: counts[unit][label]))
    return chosen[of]


def cut(units: Units, paths: Sequence[str], labels: np.ndarray, *, least: int, pieces: int) -> Units:
    """The same where each class of many images has `least` units: its series are cut into `pieces` of neighbours.

    What is cut lies in two parts, with neighbours at the borders alone.
    """
    if not units.any():
        return units
    of, places_of = _numbered(units)
    rows, classes = (np.arange(len(of)), labels) if labels.ndim == 1 else np.nonzero(labels == 1)
    order = np.argsort(classes, kind="stable")
    found, free = units.copy(), int(units.max()) + 1
    for own in np.split(rows[order], np.flatnonzero(np.diff(classes[order])) + 1):
        mine = np.unique(of[own])
        if len(own) < pieces or len(mine) >= least:
            continue
        for unit in mine.tolist():
            places = places_of[unit]
            if len(places) < 2 or len(np.unique(found[places])) > 1:  # cut for another class
                continue
            places = np.array(sorted(places.tolist(), key=lambda place: (number_in(paths[place]), place)))
            for piece in np.array_split(places, min(pieces, len(places))):
                found[piece], free = free, free + 1
    return found


def _numbered(units: Units) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """((N,) the unit of each image, from 0, single ones too; the places of each)."""
    whole = units.astype(np.int64)
    alone = whole == 0
    whole[alone] = whole.max(initial=0) + 1 + np.arange(alone.sum())
    _, of = np.unique(whole, return_inverse=True)
    order = np.argsort(of, kind="stable")
    return of, np.split(order, np.flatnonzero(np.diff(of[order])) + 1)


def _counts(of: NDArray[np.int64], labels: np.ndarray) -> tuple[list[dict[int, int]], dict[int, int]]:
    """(of each unit class -> images, of all units); the class behind all others is every image."""
    rows, classes = (np.arange(len(of)), labels) if labels.ndim == 1 else np.nonzero(labels == 1)
    every = int(classes.max(initial=-1)) + 1
    units = np.concatenate([of[rows], of])
    pairs, many = np.unique(
        np.stack([units, np.concatenate([classes, np.full(len(of), every)])]), axis=1, return_counts=True
    )
    counts = [dict[int, int]() for _ in range(int(of.max()) + 1)]
    total: dict[int, int] = defaultdict(int)
    for unit, label, count in zip(*pairs.tolist(), many.tolist(), strict=True):
        counts[unit][label] = count
        total[label] += count
    return counts, dict(total)


def _joined(units: Units, paths: Sequence[str]) -> Units:
    """The same where rows of one path are of one unit."""
    first: dict[str, int] = {}
    found, free = units.copy(), int(units.max()) + 1
    above = list(range(free + len(paths)))  # of each unit another that it is one with, at the top itself

    def top(unit: int) -> int:
        while above[unit] != unit:
            above[unit] = unit = above[above[unit]]
        return unit

    for place, path in enumerate(paths):
        before = first.setdefault(path, place)
        if before == place:
            continue
        if not found[before]:
            found[before], free = free, free + 1
        if found[place]:
            above[top(int(found[place]))] = top(int(found[before]))
        found[place] = found[before]
    numbers, of = np.unique(found, return_inverse=True)
    tops: Units = np.array([top(unit) for unit in numbers.tolist()], found.dtype)[of]
    return tops


def _cut_note(series: Units, units: Units) -> str:
    count = len(np.unique(series[series != units]))
    if not count:
        return ""
    them = (
        "One of them is all that a class has, and was"
        if count == 1
        else f"{count:,} are all that a class has, and were"
    )
    return f"{them} cut: what is held out is a piece of it, whose ends have their neighbours in training."


def _groups_note(units: Units) -> str:
    groups = len(np.unique(units[units > 0]))
    alone = int((units == 0).sum())
    more = f"; {number_of(alone, 'image')} without one go alone" if alone else ""
    return f"{number_of(groups, 'group')} of images stay whole, each in one part{more}."


def _lacking(held: NDArray[np.bool_], labels: np.ndarray, named: bool) -> tuple[str, ...]:
    """That classes are not held out, because all their images are in one group."""
    if labels.ndim == 1:
        shown = [np.unique(labels[part]) for part in (held, ~held)]
    else:
        shown = [np.flatnonzero((labels[part] == 1).any(0)) for part in (held, ~held)]
    lost = len(np.setdiff1d(shown[1], shown[0]))
    if not lost or not named:
        return ()
    have = "class has its images" if lost == 1 else "classes have their images"
    return (f"{lost:,} {have} in one group, so none of them is held out.",)


def torn_note(groups: np.ndarray | None, val: np.ndarray) -> tuple[str, ...]:
    """That groups, of images that a person names, lie in both parts of data that were parted before."""
    if groups is None:
        return ()
    torn = np.intersect1d(groups[val & (groups > 0)], groups[~val & (groups > 0)])
    if not len(torn):
        return ()
    whole = len(np.unique(groups[groups > 0]))
    return (
        f"{len(torn):,} of {number_of(whole, 'group')} {'has' if len(torn) == 1 else 'have'} images in both parts, which "
        "flatters the result; the data say which part an image is in.",
    )
