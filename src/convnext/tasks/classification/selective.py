"""Answering only where the score is high enough: how often that is wrong (Geifman, El-Yaniv 2017, arXiv 1705.08500).

No torch here. Axes: N images.
"""

import numpy as np
from numpy.typing import NDArray

from convnext.tasks.classification.metrics import Outcomes

_POINTS = 200  # of the curve that is kept


def aurc(outcomes: Outcomes) -> float:
    """Area under the risk-coverage curve: the share of wrong answers among the surest n images, meant over all n.

    Images of one score are answered together, so where they are wrong is spread over all of them.
    """
    return float(_risks(outcomes).mean())


def risk_coverage(outcomes: Outcomes) -> list[list[float]]:
    """[share of the images that is answered, share of these answers that is wrong], the surest first; few points of many."""
    risks = _risks(outcomes)
    places = np.unique(np.linspace(0, len(risks) - 1, min(len(risks), _POINTS)).round().astype(int))
    return [[float((place + 1) / len(risks)), float(risks[place])] for place in places]


def _risks(outcomes: Outcomes) -> NDArray[np.float64]:
    """(N,) the share of wrong answers among the surest 1, 2, ..., N images."""
    order = np.argsort(-outcomes.score, kind="stable")
    wrong = (outcomes.rank[order] > 0).astype(np.float64)
    score = outcomes.score[order]
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)) + 1  # of each group of one score
    totals = np.append(0.0, np.cumsum(wrong)[ends - 1])
    n = np.arange(1, len(wrong) + 1)
    spread: NDArray[np.float64] = np.interp(n, np.append(0, ends), totals) / n
    return spread
