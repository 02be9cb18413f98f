"""Which fold holds out which image: classes spread evenly, copies kept together, a function of (seed, paths) alone.

Axes: N images, K classes, U images or groups of copies, which stay together.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convnext.errors import ConvNeXtError, number_of

LEAST = 2


def require_folds(folds: int, images: int) -> None:
    """Raise ConvNeXtError unless so many images can be held out in turns."""
    if folds < LEAST:
        raise ConvNeXtError(f"folds = {folds} is refused: it must be a whole number, {LEAST} or more.")
    if folds > images:
        raise ConvNeXtError(f"folds = {folds} is refused: there are only {number_of(images, 'image')}. Give fewer.")


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
