"""The nearest images by the cosine of their features: exact, a block of rows at a time. Far from all others: an outlier.

Axes: N images, C features, B rows of a block, K neighbours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.studies.similar.search import unit

NEAREST = 10  # neighbours of an image
_VALUES = 2**24  # cosines that are held at once: 64 MB
_FAR = 3.0  # interquartile ranges above the third quartile: Tukey's far out


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each image that has features, the nearest first."""

    places: NDArray[np.int64]  # (N, K)
    cosines: NDArray[np.float32]  # (N, K)

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


def neighbours(features: NDArray[np.float32], most: int = NEAREST) -> Neighbours:
    """The nearest of each of (N, C) features among the others; of fewer than K others, all of them."""
    rows = unit(features)
    count = len(rows)
    most = min(most, count - 1)
    if most < 1:
        return Neighbours(np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32))
    places, cosines = np.empty((count, most), np.int64), np.empty((count, most), np.float32)
    block = max(1, _VALUES // count)
    for first in range(0, count, block):
        own = np.arange(first, min(first + block, count))
        found = np.clip(rows[own] @ rows.T, -1, 1)
        found[np.arange(len(own)), own] = -2  # nobody is their own neighbour
        near = np.argpartition(-found, most - 1, axis=1)[:, :most]
        values = np.take_along_axis(found, near, 1)
        order = np.lexsort((near, -values), axis=1)
        places[own], cosines[own] = np.take_along_axis(near, order, 1), np.take_along_axis(values, order, 1)
    return Neighbours(places, cosines)
