"""The nearest images by the cosine of their features: exact, of very many see `Cells`. Far from all others: an outlier.

Axes: N images, C features, K neighbours, U images that differ in their bytes, B rows of a block.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.studies.similar.cells import Cells
from convnext.studies.similar.search import unit

NEAREST = 10  # neighbours of an image
_BLOCK = 2**13  # images whose neighbours are listed at once
_FAR = 3.0  # interquartile ranges above the third quartile: Tukey's far out


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each image that has features, the nearest first."""

    places: NDArray[np.int64]  # (N, K)
    cosines: NDArray[np.float32]  # (N, K)
    kinds: NDArray[np.int64]  # (U, 1 + K) the first image of each file, and of the files nearest to it; -1: of none

    def proposed(self, most: int) -> NDArray[np.int64]:
        """(P, 2): the first image of each file with those of the `most` files nearest to it."""
        near = self.kinds[:, 1 : 1 + most]
        pairs = np.stack([np.repeat(self.kinds[:, 0], near.shape[1]), near.ravel()], 1)
        found: NDArray[np.int64] = pairs[pairs[:, 1] >= 0]
        return found

    @property
    def distances(self) -> NDArray[np.float64]:
        """(N,): 1 - the mean cosine of the neighbours (Sun et al. 2022, arXiv 2204.06507, take the k-th)."""
        count, most = self.cosines.shape
        return 1 - self.cosines.mean(1, dtype=np.float64) if most else np.zeros(count)

    @property
    def far(self) -> NDArray[np.int64]:
        """Places of the outliers, the farthest first: beyond the third quartile by three interquartile ranges."""
        distances = self.distances
        if not len(distances):
            return np.zeros(0, np.int64)
        low, high = np.quantile(distances, [0.25, 0.75])
        order = np.argsort(-distances, kind="stable")
        found: NDArray[np.int64] = order[distances[order] > high + _FAR * max(high - low, 1e-6)]
        return found


def neighbours(
    features: NDArray[np.float32], most: int = NEAREST, *, kinds: NDArray[np.integer] | None = None
) -> Neighbours:
    """The nearest of each of (N, C) features among the others; of fewer than K others, all of them.

    `kinds`: (N,) equal where two images are the same file, so that one of a kind is compared for all; None: none are.
    """
    count = len(features)
    most = min(most, count - 1)
    if most < 1:
        alone = np.arange(count)[:, None]
        return Neighbours(np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32), alone)
    _, first, kind = np.unique(np.arange(count) if kinds is None else kinds, return_index=True, return_inverse=True)
    rows = unit(features[first])
    near, cosines = Cells(rows).nearest(rows, most, own=np.arange(len(rows)))
    members = _members(kind, len(first), most + 1)
    found = Neighbours(
        np.empty((count, most), np.int64),
        np.empty((count, most), np.float32),
        np.concatenate([first[:, None], np.where(near >= 0, first[near], -1)], 1),
    )
    for start in range(0, count, _BLOCK):
        own = np.arange(start, min(start + _BLOCK, count))
        around = np.concatenate([kind[own, None], near[kind[own]]], 1)  # (B, 1 + K): the own kind first
        alike = np.concatenate([np.ones((len(own), 1), np.float32), cosines[kind[own]]], 1)
        others = np.where(around[:, :, None] >= 0, members[around], -1).reshape(len(own), -1)
        left_out = (others < 0) | (others == own[:, None])
        kept = np.argsort(left_out, axis=1, kind="stable")[:, :most]
        found.places[own] = np.take_along_axis(others, kept, 1)
        found.cosines[own] = np.clip(np.take_along_axis(np.repeat(alike, members.shape[1], 1), kept, 1), -1, 1)
    return found


def _members(kind: NDArray[np.int64], kinds: int, most: int) -> NDArray[np.int64]:
    """(U, M) places of the first images of each kind, at most `most`, -1 where there are fewer."""
    order = np.argsort(kind, kind="stable")
    counts = np.bincount(kind, minlength=kinds)
    rank = np.arange(len(kind)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.full((kinds, min(most, int(counts.max(initial=0)))), -1, np.int64)
    few = rank < most
    found[kind[order[few]], rank[few]] = order[few]
    return found
