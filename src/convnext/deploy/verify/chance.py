"""What chance alone may do to a figure: whether a second measurement contradicts the first, and how many images would tell.

No torch here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from convnext.tasks.classification.metrics import wilson

MARGIN = 0.1  # a fall of so much must be excluded before a figure is said to hold on other images
MOST = 1_000_000  # images; beyond, nobody is told how many would do
_DRAWS = 2000  # of the calibration error by chance
_ALPHA = 0.05


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_rate(cls, rate: float, n: int, tests: int = 1) -> "Figure":
        """A share of n images; with `tests` looked at together, wide enough for all of them (Bonferroni)."""
        z = NormalDist().inv_cdf(1 - _ALPHA / 2 / tests)
        return cls(rate, *wilson(rate, n, z))


def change(promised: Figure, measured: Figure) -> tuple[float, float]:
    """The 95 % interval of measured less promised, of two independent collections (Newcombe 1998, method 10)."""
    difference = measured.value - promised.value
    down = math.hypot(measured.value - measured.low, promised.high - promised.value)
    up = math.hypot(measured.high - measured.value, promised.value - promised.low)
    return difference - down, difference + up


def needed(promised: Figure) -> int | None:
    """How many images, as right as was promised, exclude a fall of MARGIN; None where the promise itself is too vague."""
    n = 10.0
    while n <= MOST:
        again = Figure.of_rate(promised.value, int(n))
        if change(promised, again)[0] > -MARGIN:
            return int(n)
        n *= 1.05
    return None


def calibration_by_chance(bins: Sequence[dict[str, Any]]) -> float:
    """The calibration error that scores which are true stay below in 95 of 100 collections, by their images in each bin."""
    rows = [row for row in bins if row["n"]]
    many = np.array([row["n"] for row in rows])
    claimed = np.clip(np.array([row["confidence"] for row in rows]), 0.0, 1.0)
    right = np.random.RandomState(0).binomial(many, claimed, (_DRAWS, len(rows))) / many
    return float(np.quantile((np.abs(right - claimed) * many).sum(1) / many.sum(), 1 - _ALPHA))
