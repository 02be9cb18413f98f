"""Which fold holds out which image: classes spread evenly, copies kept together, a function of (seed, paths) alone.

Axes: N images, K classes, U images or groups of copies, which stay together.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from convnext.data.drawn import Units, cut
from convnext.data.series import series_in
from convnext.errors import ConvNeXtError, number_of
from convnext.studies.audit.copies import Copies, grouped
from convnext.studies.audit.looks import Looks

LEAST = 2


def require_folds(folds: int, images: int) -> None:
    """Raise ConvNeXtError unless so many images can be held out in turns."""
    if folds < LEAST:
        raise ConvNeXtError(f"folds = {folds} is refused: it must be a whole number, {LEAST} or more.")
    if folds > images:
        raise ConvNeXtError(f"folds = {folds} is refused: there are only {number_of(images, 'image')}. Give fewer.")


def together(
    whole: Copies, looks: Looks, paths: Sequence[str], labels: NDArray[np.int64], groups: Units | None, folds: int
) -> tuple[tuple[int, ...], ...]:
    """The places of images that stay in one fold: copies, and with them series or the groups that a person names.

    `labels`: (N,) classes. Series and copies are taken apart where a fold could not hold them, named groups never.
    """

    def look(places: Sequence[int]) -> list[bytes]:
        return [looks.small[place].tobytes() if not looks.reasons[place] else b"" for place in places]

    series = series_in(paths, labels, look) if groups is None else groups
    units = cut(series, paths, labels, least=folds, pieces=folds) if groups is None else groups
    pairs = [pair for group in whole.fitting(labels.tolist(), folds) for pair in pairwise(group)]
    taken_apart = (series > 0) & (series != units)
    pairs = [(one, other) for one, other in pairs if not (taken_apart[one] and series[one] == series[other])]
    order = np.argsort(units, kind="stable")
    order = order[units[order] > 0]
    pairs += [(one, other) for one, other in pairwise(order.tolist()) if units[one] == units[other]]
    return grouped(len(paths), np.sort(np.array(pairs, np.int64).reshape(-1, 2), axis=1))


def parts(
    paths: Sequence[str],
    labels: Sequence[int] | NDArray[np.integer],
    groups: Sequence[Sequence[int]],
    folds: int,
    *,
    seed: int = 0,
) -> NDArray[np.int64]:
    """(N,): the fold, from 0, that holds out each image. `groups` are places of images that stay together.

    `labels` are (N,), or (N, K) marks, 1 where an image has the class. Groups come in the order of a hash of (seed, path);
    each goes where its class, and then everything, has the fewest; of marks see `_by_marks`.
    Raises ConvNeXtError where there are fewer images than folds.
    """
    require_folds(folds, len(paths))
    keys = [_key(path, seed) for path in paths]
    if np.ndim(labels) == 2:
        return _by_marks(np.asarray(labels) == 1, keys, groups, folds)
    together = {place: tuple(group) for group in groups for place in group}
    of_class = np.zeros((max(labels, default=0) + 1, folds), np.int64)
    whole, found = np.zeros(folds, np.int64), np.full(len(paths), -1, np.int64)
    for place in sorted(range(len(paths)), key=lambda place: (keys[place], place)):
        if found[place] >= 0:
            continue
        group = list(together.get(place, (place,)))
        fold = int(np.lexsort((whole, of_class[labels[place]]))[0])
        found[group] = fold
        whole[fold] += len(group)
        for each in group:
            of_class[labels[each], fold] += 1
    return found


def _by_marks(
    has: NDArray[np.bool_], keys: Sequence[bytes], groups: Sequence[Sequence[int]], folds: int
) -> NDArray[np.int64]:
    """(N,) folds of images that have the classes of (N, K) `has`, by iterative stratification (Sechidis et al. 2011).

    The class with the fewest free images comes next; each of these goes to the fold that lacks most of the class, then of
    all images. At the end come the images without a class.
    """
    held = {place for group in groups for place in group}
    units = [tuple(group) for group in groups] + [(place,) for place in range(len(has)) if place not in held]
    units.sort(key=lambda unit: min((keys[place], place) for place in unit))
    counts = np.array([has[list(unit)].sum(0) for unit in units], np.float64)  # (U, K)
    lacking = np.repeat(counts.sum(0)[:, None] / folds, folds, 1)  # (K, folds)
    room, free = np.full(folds, len(has) / folds), np.ones(len(units), bool)
    found = np.full(len(has), -1, np.int64)

    def put(unit: int, order: NDArray[np.float64]) -> None:
        fold = int(np.lexsort((-room, -order))[0])
        found[list(units[unit])] = fold
        lacking[:, fold] -= counts[unit]
        room[fold] -= len(units[unit])
        free[unit] = False

    while (left := counts[free].sum(0)).any():
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        for unit in np.flatnonzero(free & (counts[:, label] > 0)).tolist():
            put(unit, lacking[label].round(9))
    for unit in np.flatnonzero(free).tolist():
        put(unit, np.zeros(folds))
    return found


def _key(path: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:fold:{path}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
