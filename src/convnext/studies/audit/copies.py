"""Images that show the same: found by hash and by features, settled by comparing their pixels.

Two of them need not be the same file: one may be smaller, compressed again, without colour, mirrored, or lack a twentieth of
its edge. Axes: N images, P pairs, S rows and columns of a miniature, W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.studies.audit.looks import SIDE, Looks
from convnext.studies.similar.cells import Cells

Pairs = NDArray[np.int64]  # (P, 2), the smaller place first

ALIKE = 0.95  # least correlation of the pixels of two images that show the same
_LIKER = (0.97, 0.98, 0.99, 0.995, 1.0)  # of pairs of a group that is too large for a fold, one after the other
_BITS = 16  # of 64 that may differ for two images to be compared
_MOST = 16  # images that one is compared with
_PAIRS = 256  # pairs whose pixels are compared together
_WINDOW = 24  # rows and columns that are compared
_CROPS = ((1.0, 0.0), (0.95, 0.0), (0.95, 0.5), (0.95, 1.0), (0.9, 0.0), (0.9, 0.5), (0.9, 1.0))  # side, place
_WORTH = 0.6  # correlation of the whole images from which their crops are compared as well
_SAME = 0.9999  # from which they are not: no crop is more alike
_FLAT = 2.0  # grey levels, standard deviation: below it there is nothing to correlate


@dataclass(frozen=True)
class Copies:
    """Images that show the same, pair by pair, and the groups that the pairs make."""

    pairs: Pairs
    likeness: NDArray[np.float64]  # (P,) correlation of the pixels, 1 for the same
    groups: tuple[tuple[int, ...], ...]  # places, each group in order, the groups by their first

    def with_(self, other: "Copies", count: int) -> "Copies":
        """Both together, of `count` images."""
        pairs, first = np.unique(np.concatenate([self.pairs, other.pairs]), axis=0, return_index=True)
        return Copies(pairs, np.concatenate([self.likeness, other.likeness])[first], grouped(count, pairs))

    def fitting(self, labels: Sequence[int], folds: int) -> tuple[tuple[int, ...], ...]:
        """The groups of images that one fold can hold, where all others are taken apart down to their likest pairs.

        Small simple images, such as digits, are so alike that whole classes are chains of likenesses: kept together they
        would leave a fold without its class. Exact copies always stay together. `labels`: (N,) the class of each image.
        """
        most = np.maximum(2, -(-np.bincount(labels) // folds))[np.asarray(labels)]  # (N,) a fold's share of each class
        groups, pairs, likeness = self.groups, self.pairs, self.likeness
        for least in _LIKER:
            large = [place for group in groups if len(group) > most[list(group)].min() for place in group]
            apart = np.isin(pairs[:, 0], large) & (likeness < least)
            pairs, likeness = pairs[~apart], likeness[~apart]
            groups = grouped(len(labels), pairs)
        return groups


def copies(looks: Looks, proposed: Pairs | None = None) -> Copies:
    """The copies among the pairs that are proposed, by features; None: among those whose hashes are near.

    Files of the same bytes are copies, which need no look: the first of them is compared for all. So the pixels that are
    compared grow with the images that differ, however often each is there.
    """
    same = same_files(looks)
    first = np.arange(len(looks.hashes))
    first[same[:, 1]] = same[:, 0]
    alone = np.flatnonzero(looks.read & (first == np.arange(len(first))))
    pairs = near_hashes(looks, alone) if proposed is None else proposed
    pairs = np.sort(first[pairs], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    likeness = np.concatenate([np.zeros(0), *(_likeness(looks, part) for part in _parts(pairs))])
    kept = likeness >= ALIKE
    pairs, likeness = np.concatenate([same, pairs[kept]]), np.concatenate([np.ones(len(same)), likeness[kept]])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Copies(pairs[order], likeness[order], grouped(len(looks.hashes), pairs))


def same_files(looks: Looks) -> Pairs:
    """(P, 2): each image whose bytes an earlier one has, behind the first that has them."""
    places = np.flatnonzero(looks.read)
    _, first, kind = np.unique(looks.digests[places], return_index=True, return_inverse=True)
    pairs = np.stack([places[first[kind]], places], 1)
    found: Pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return found


def near_hashes(looks: Looks, places: NDArray[np.int64]) -> Pairs:
    """(P, 2) of those `places` whose hashes, one of them perhaps mirrored, differ in few bits; of one image the nearest.

    Each is compared with all, of very many with those in the cells around it: see `Cells`.
    """
    if len(places) < 2:
        return np.zeros((0, 2), np.int64)
    cells, found = Cells(_signs(looks.hashes[places])), []
    for hashes in (looks.hashes[places], looks.mirrored[places]):
        above = 1 - 2 * (_BITS + 0.5) / 64  # the product of signs, 1 where all are the same
        near, _ = cells.nearest(_signs(hashes), _MOST, own=np.arange(len(places)), above=above)
        row, column = np.nonzero(near >= 0)
        found.append(np.sort(np.stack([places[row], places[near[row, column]]], 1), axis=1))
    pairs: Pairs = np.unique(np.concatenate(found), axis=0)
    return pairs


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(N, 64) of length 1: 1/8 for a bit, -1/8 for none."""
    bits = np.unpackbits(hashes.astype("<u8")[:, None].view(np.uint8), axis=1)
    return np.where(bits, np.float32(0.125), np.float32(-0.125))


def grouped(count: int, pairs: Pairs) -> tuple[tuple[int, ...], ...]:
    """The groups of two or more among `count` images that pairs connect."""
    above = list(range(count))

    def top(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    for one, other in pairs.tolist():
        low, high = sorted((top(one), top(other)))
        above[high] = low
    groups: dict[int, list[int]] = {}
    for place in np.unique(pairs).tolist():
        groups.setdefault(top(place), []).append(place)
    return tuple(tuple(group) for group in groups.values())


def _parts(pairs: Pairs) -> Sequence[Pairs]:
    return [pairs[first : first + _PAIRS] for first in range(0, len(pairs), _PAIRS)]


def _likeness(looks: Looks, pairs: Pairs) -> NDArray[np.float64]:
    """(P,): the highest correlation of one image with a crop of the other, mirrored or not; 0 of flat ones that differ."""
    one, other = (looks.small[pairs[:, side]].astype(np.float32) for side in (0, 1))
    best = np.zeros(len(pairs), np.float32)
    for shown in (other, other[:, :, ::-1]):
        plain = np.einsum("pn,pn->p", _unit(one.reshape(len(one), -1)), _unit(shown.reshape(len(one), -1)))
        best = np.maximum(best, plain)
        near = np.flatnonzero((plain >= _WORTH) & (best < _SAME))
        if not len(near):
            continue
        for left, right in ((one[near], shown[near]), (shown[near], one[near])):
            best[near] = np.maximum(best[near], _cropped(left, right))
    flat = (one.std((1, 2)) < _FLAT) | (other.std((1, 2)) < _FLAT)
    same = np.abs(one - other).max((1, 2)) <= _FLAT
    found: NDArray[np.float64] = np.where(flat, same, best).astype(np.float64)
    return found


def _cropped(cut: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,): the highest correlation of a window of `cut` with all of `whole`, both (P, S, S)."""
    crops = _crops()
    count, rows = len(_CROPS), crops.reshape(-1, SIDE)
    fixed = _unit(_windows(whole, crops[0]).reshape(len(whole), 1, -1))
    seen = _windows(cut, rows).reshape(-1, count, _WINDOW, count, _WINDOW).transpose(0, 1, 3, 2, 4)
    windows = _unit(seen.reshape(len(cut), count**2, -1))
    best: NDArray[np.float32] = np.matmul(windows, fixed.transpose(0, 2, 1))[..., 0].max(1)
    return best


def _windows(images: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, R, R) of (P, S, S) images and the (R, S) weights of rows and columns."""
    found: NDArray[np.float32] = (rows @ images @ rows.T).astype(np.float32)
    return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = rows - rows.mean(-1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(-1, keepdims=True))
    found: NDArray[np.float32] = (centred / np.maximum(length, 1e-6)).astype(np.float32)
    return found


def _crops() -> NDArray[np.float32]:
    """(W, n, S): the weights by which each row of a window is made of the rows of a miniature."""
    made = np.zeros((len(_CROPS), _WINDOW, SIDE), np.float32)
    for number, (side, place) in enumerate(_CROPS):
        step = side * SIDE / _WINDOW
        for row in range(_WINDOW):
            start = (1 - side) * SIDE * place + row * step
            edges = np.clip(np.arange(SIDE + 1), start, start + step)
            made[number, row] = np.diff(edges) / step
    return made
