"""Which images are held out of data that have no val part: by a hash, the same on every machine and in a zip."""

import hashlib
from collections.abc import Iterable

import numpy as np

from convnext.data.names import Names
from convnext.errors import DataError


def require_share(val_share: float) -> None:
    """Raise DataError unless `val_share` can be held out."""
    if not 0 <= val_share < 1:
        raise DataError(f"val_share = {val_share:g} must be at least 0 and less than 1.")


def held_out(paths: Iterable[str], val_share: float, seed: int) -> list[int]:
    """Places among `paths` of the share to hold out: at least one of two, by the order of a hash of (seed, path)."""
    keys = [key_of(path, seed) for path in paths]
    return sorted(range(len(keys)), key=keys.__getitem__)[: many_of(len(keys), val_share)]


def held_out_of_classes(paths: Names, labels: np.ndarray, val_share: float, seed: int, *, repeated: bool) -> np.ndarray:
    """(N,) bool: a share of each class; `labels` are (N,), or (N, K) marks of several an image.

    `repeated`: a path may be there twice, and is held out as a whole.
    """
    if labels.ndim == 2:
        return _held_out_of_marks(paths, labels == 1, val_share, seed)
    order = np.argsort(labels, kind="stable")
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    chosen = np.zeros(len(order), bool)
    for places in np.split(order, borders):
        chosen[places[held_out(paths.take(places), val_share, seed)]] = True
    if repeated:
        together = set(paths.take(chosen))
        chosen = np.array([path in together for path in paths], bool)
    return chosen


def _held_out_of_marks(paths: Names, has: np.ndarray, val_share: float, seed: int) -> np.ndarray:
    """Iterative stratification (Sechidis et al. 2011): the class with the fewest images that are still free comes next, and
    gets its share of them; what it has already, by the classes before it, counts. At the end the images without a class.
    """
    keys = [key_of(path, seed) for path in paths]
    rank = np.empty(len(keys), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    chosen, free = np.zeros(len(keys), bool), np.ones(len(keys), bool)
    wanted = [many_of(int(count), val_share) for count in has.sum(0)]
    left = has.sum(0)
    while (left > 0).any():
        label = int(np.argmin(np.where(left > 0, left, len(keys) + 1)))
        mine = np.flatnonzero(free & has[:, label])
        lacking = max(0, wanted[label] - int((chosen & has[:, label]).sum()))
        chosen[mine[np.argsort(rank[mine])][:lacking]] = True
        free[mine] = False
        left = left - has[mine].sum(0)
    rest = np.flatnonzero(free)
    chosen[rest[np.argsort(rank[rest])][: many_of(len(rest), val_share)]] = True
    return chosen


def many_of(count: int, val_share: float) -> int:
    """How many of `count` images are held out: at least one of two, and never all."""
    return max(0, min(count - 1, max(1, round(count * val_share)))) if val_share else 0


def key_of(path: str, seed: int) -> bytes:
    """What images are ordered by, from which the first are held out."""
    return hashlib.blake2b(f"{seed}:{path}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
