"""The nearest of very many rows: each row is compared with those of a few cells, not with all.

All with all is a million times a million cosines. Here the rows are halved along the direction in which they differ most, and
the halves again, until a cell holds about as many rows as there are cells, whatever the rows are; a query is compared with the
rows of the cells whose means are nearest to it. That grows as N^1.5, and now and then misses a row that is no near one. Up to
ALL rows a query is compared with all cells, and the search is exact.

Products with one row are einsum's: those of some BLAS read beyond a short row, and warn of what they find there.
Axes: N rows, Q queries, C values, K nearest, M cells, P cells that a query is compared with.
"""

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Places = NDArray[np.int64]

ALL = 2**16  # rows that are compared with all: a minute or so
PROBED = 64  # cells that a query is compared with, of more rows
NOTHING = -2.0  # less than any cosine
_LEAST = 1024  # rows of a cell
_TURNS, _SAMPLE = 6, 1024  # of the search for a direction, and the rows that it looks at
_VALUES = 2**22  # products that are held at once: 16 MB
_BLOCK = 2**14  # rows that are copied at once


class Cells:
    """(N, C) rows, of length 1 where cosines are meant, parted into cells."""

    def __init__(self, rows: Rows, *, size: int | None = None, probed: int | None = None):
        """`size`: rows of a cell at most; `probed`: cells that a query is compared with; None: all where there are few rows."""
        self.rows = rows
        parts = _halved(rows, size or max(_LEAST, math.isqrt(len(rows)) + 1))
        self.probed = min(len(parts), probed or (len(parts) if len(rows) <= ALL else PROBED))
        self.held = np.concatenate(parts)  # (N,): the rows, cell after cell
        self.starts = np.cumsum([0, *map(len, parts)])  # (M + 1,)
        self._slots = np.empty(len(rows), np.int64)  # (N,): where a row stands in `held`
        self._slots[self.held] = np.arange(len(rows))
        self._means = np.stack([_mean(rows, part) for part in parts])
        self.compared = 0  # products of a query and a row so far

    def nearest(
        self, queries: Rows, most: int, *, own: Places | None = None, above: float = NOTHING
    ) -> tuple[Places, Rows]:
        """(Q, K) places of the rows with the largest products with (Q, C) queries, and these, the largest first.

        `own`: (Q,) the row that each query is not compared with, itself; `above`: what products must exceed. K is `most`, or
        fewer where there are fewer rows; a place is -1, its product `above`, where the cells held too few.
        """
        most = max(0, min(most, len(self.rows) - (own is not None)))
        found = np.full((len(queries), most), -1, np.int64), np.full((len(queries), most), above, np.float32)
        if not most:
            return found
        probed = self._probed(queries)
        for columns in (probed[:, :1], probed[:, 1:]):  # the nearest cell first: few rows of others are nearer
            asked = np.argsort(columns, axis=None, kind="stable") // max(1, columns.shape[1])
            ends = np.cumsum(np.bincount(columns.ravel(), minlength=len(self._means)))
            for cell, last in enumerate(ends.tolist()):
                first, block = (int(ends[cell - 1]) if cell else 0), max(1, _VALUES // self._size(cell))
                for start in range(first, last, block):
                    self._compare(cell, queries, asked[start : min(start + block, last)], own, found)
        places, values = found
        order = np.lexsort((places, -values), axis=1)
        return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)

    def _size(self, cell: int) -> int:
        return int(self.starts[cell + 1] - self.starts[cell])

    def _probed(self, queries: Rows) -> NDArray[np.int32]:
        """(Q, P): the cells whose means are nearest, the nearest first."""
        probed = np.empty((len(queries), self.probed), np.int32)
        block = max(1, _VALUES // len(self._means))
        for start in range(0, len(queries), block):
            away = -(queries[start : start + block] @ self._means.T)
            near = np.argpartition(away, self.probed - 1, axis=1)[:, : self.probed]
            best = np.take_along_axis(away, near, 1).argmin(1)
            rows = np.arange(len(near))
            near[rows, 0], near[rows, best] = near[rows, best], near[rows, 0]
            probed[start : start + block] = near
        return probed

    def _compare(self, cell: int, queries: Rows, asked: Places, own: Places | None, found: tuple[Places, Rows]) -> None:
        """Compare some queries with the rows of a cell; what is nearer goes into `found`, in any order."""
        (places, values), size = found, self._size(cell)
        held = self.held[self.starts[cell] : self.starts[cell + 1]]
        products = queries[asked] @ self.rows[held].T
        self.compared += products.size
        if own is not None:
            slots = self._slots[own[asked]] - self.starts[cell]
            inside = np.flatnonzero((slots >= 0) & (slots < size))
            products[inside, slots[inside]] = NOTHING
        most = places.shape[1]
        nearer = np.flatnonzero(products > values[asked].min(1)[:, None])
        if len(nearer) > 2 * most * len(asked):
            best = np.argpartition(-products, min(most, size) - 1, axis=1)[:, :most]
            nearer = (np.arange(len(asked))[:, None] * size + best).ravel()
            nearer = nearer[(products > values[asked].min(1)[:, None]).ravel()[nearer]]
        if not len(nearer):
            return
        rows = nearer // size
        changed, row = np.unique(rows, return_inverse=True)
        row = np.concatenate([np.repeat(np.arange(len(changed)), most), row])
        place = np.concatenate([places[asked[changed]].ravel(), held[nearer % size]])
        value = np.concatenate([values[asked[changed]].ravel(), products.ravel()[nearer]])
        order = np.lexsort((-value, row))
        first = np.searchsorted(row[order], np.arange(len(changed)))
        kept = order[first[:, None] + np.arange(most)]
        places[asked[changed]], values[asked[changed]] = place[kept], value[kept]


def _halved(rows: Rows, most: int) -> list[Places]:
    """Places of (N, C) rows in parts of `most` at most, halved where they differ most; the same every time."""
    random = np.random.default_rng(0)
    waiting, parts = [np.arange(len(rows))], []
    while waiting:
        part = waiting.pop()
        if len(part) <= most:
            parts.append(np.sort(part))
            continue
        along = _along(rows, part, _direction(rows[random.choice(part, min(_SAMPLE, len(part)), replace=False)]))
        order, middle = np.argpartition(along, len(part) // 2), len(part) // 2
        waiting += [part[order[middle:]], part[order[:middle]]]
    return parts


def _direction(sample: Rows) -> Rows:
    """(C,): about the first principal component of (S, C) rows, by the power method."""
    centred = sample - sample.mean(0)
    found: Rows = centred[np.argmax(np.einsum("sc,sc->s", centred, centred))]
    for _ in range(_TURNS):
        found = np.einsum("sc,s->c", centred, np.einsum("sc,c->s", centred, found))
        found /= max(float(np.linalg.norm(found)), 1e-20)
    return found


def _along(rows: Rows, part: Places, direction: Rows) -> Rows:
    starts = range(0, len(part), _BLOCK)
    blocks = (rows[part[start : start + _BLOCK]] for start in starts)
    return np.concatenate([np.einsum("bc,c->b", block, direction) for block in blocks])


def _mean(rows: Rows, part: Places) -> Rows:
    found: Rows = rows[part].mean(0)
    return found / max(float(np.linalg.norm(found)), 1e-20)
