"""Sets of classes that hold the right one as often as was asked: split conformal prediction.

An image's classes are ranked by their scores. What speaks against a class is the score of all classes before it, and
`penalty` for each rank beyond the `free` ones (RAPS, Angelopoulos et al. 2020, arXiv 2009.14193; without the penalty APS,
Romano et al. 2020). A set holds the classes against which no more speaks than against the right class of all but a few of
the images that it was measured on; the first class always belongs. For images of the same kind the share of sets that hold
the right class is then the one asked for or more, whatever the network. Nothing is randomised, so an image has one set.

No torch here. Axes: N images, K classes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.errors import ConvNeXtError
from convnext.tasks.classification.calibration import Floats, Labels

_PENALTIES = (0.0, 0.001, 0.01, 0.05, 0.2, 1.0)  # that are tried
_TUNED = 5  # one image of so many chooses among them, and is not measured on
_SLACK = 1e-6  # by which two programs round otherwise


@dataclass(frozen=True)
class Sets:
    """Which classes belong to a set."""

    coverage: float  # asked for
    most: float  # that may speak against a class of the set
    penalty: float
    free: int  # ranks without penalty, 1 or more
    n: int  # images that it was measured on
    part: str  # what they were: 'held out', which also chose the weights, or 'test'

    def sizes(self, log_scores: Floats) -> NDArray[np.int64]:
        """(N,) how many classes, the likeliest, belong to the set of each image; 1 or more."""
        p = -np.sort(-np.exp(log_scores), axis=1)
        against = np.cumsum(p, 1) - p + self.penalty * _beyond(log_scores.shape[1], self.free)
        found: NDArray[np.int64] = np.maximum(1, (against <= self.most + _SLACK).sum(1))
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def require_coverage(coverage: float, name: str = "sets") -> float:
    """The same. Raises ConvNeXtError for a coverage that no set can have, called `name`."""
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0.5 <= coverage <= 0.999:
        raise ConvNeXtError(
            f"{name} = {coverage} is refused: it is the share of the sets that shall hold the right class, from 0.5 to 0.999."
        )
    return float(coverage)


def fewest(coverage: float) -> int:
    """How many images it takes to measure a coverage, those that choose the penalty included."""
    measured = math.ceil(coverage / (1 - coverage) - 1e-9)
    return next(n for n in range(measured, 2 * measured + 10) if n - math.ceil(n / _TUNED) >= measured)


def sets_of(log_scores: Floats, labels: Labels, coverage: float, part: str) -> Sets | None:
    """The sets that (N, K) logarithms of scores with (N,) labels ask for; None where the images are too few."""
    if len(labels) < fewest(coverage):
        return None
    tuned = np.arange(len(labels)) % _TUNED == 0
    ranks = _rank(log_scores[tuned], labels[tuned])
    free = max(1, int(np.quantile(ranks, coverage, method="higher")))
    made = [
        _measured(log_scores[tuned], labels[tuned], coverage, penalty, free, part) for penalty in _PENALTIES
    ]  # of these few images: too few for the coverage, enough to say which sets are smallest
    best = min(made, key=lambda each: float(each.sizes(log_scores[tuned]).mean()))
    return _measured(log_scores[~tuned], labels[~tuned], coverage, best.penalty, free, part)


def covered(sizes: NDArray[np.int64], log_scores: Floats, labels: Labels) -> NDArray[np.bool_]:
    """(N,) whether the set of each image holds its label."""
    return _rank(log_scores, labels) <= sizes


def sets_text(about: Mapping[str, Any]) -> str:
    """What evaluation.json says of sets, in a sentence for people."""
    asked, images = f"Sets of {100 * about['coverage']:g} %", f"{about['n']:,} images"
    if not about["kept"]:
        return f"{asked}: {images} are too few to measure them on: {about['least']:,} would be needed. None are kept."
    here = about["here"]
    return (
        f"{asked}: {here['mean_size']:.2f} classes each; {here['covered']:.1%} of {here['n']:,} hold the right class."
    )


def _measured(log_scores: Floats, labels: Labels, coverage: float, penalty: float, free: int, part: str) -> Sets:
    p = np.exp(log_scores)
    rows = np.arange(len(labels))
    own = p[rows, labels]
    before = np.where(p >= own[:, None], p, 0.0).sum(1) - own
    against = np.sort(before + penalty * np.maximum(0, _rank(log_scores, labels) - free))
    place = min(len(labels), math.ceil((len(labels) + 1) * coverage - 1e-9)) - 1
    return Sets(coverage, float(against[place]), penalty, free, len(labels), part)


def _rank(log_scores: Floats, labels: Labels) -> NDArray[np.int64]:
    """(N,) 1 where the label is first; classes of the same score come before it."""
    own = log_scores[np.arange(len(labels)), labels][:, None]
    found: NDArray[np.int64] = np.maximum(1, (log_scores >= own).sum(1))
    return found


def _beyond(classes: int, free: int) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.maximum(0, np.arange(1, classes + 1) - free)
    return found
