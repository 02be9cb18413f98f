"""A promise: the threshold on the score above which answers are right as often as was asked, with 95 % confidence.

Thresholds are tried in an order that is fixed before any label is seen, from few answered images to all, and each is a
test: could so few mistakes be luck if the accuracy were below the promise? The binomial distribution says so exactly
(Clopper, Pearson 1934). The first test that fails ends the sequence, and what passed before it holds for all of them
together (Angelopoulos et al. 2021, arXiv 2110.01052, fixed sequence testing). Where there are many images the 5 % are shared:
most for a sequence that begins where the scores themselves, in which no label has a say, make it likeliest to pass; some for
one that begins at a third of the images, should scores be wrong, for one that begins at the surest, and for all images at
once. What passed hands its share on (Wiens 2003). That accuracy does not fall as the threshold rises is taken for granted.

No torch here. Axes: N images.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.errors import ConvNeXtError

CONFIDENCE = 0.95
_EARLY, _THIRD, _ALL = (
    0.1,
    0.2,
    0.1,
)  # of the 5 %: for sequences that begin early and at a third, and for the test of all
_APART = 1.02  # how many times more images the next test answers
PARTS = {  # what the images are -> how a sentence calls them
    "held out": "held-out images",
    "test": "images of the test part",
}
_MOST = 1_000_000  # images: beyond, nobody is told how many would do
_FEW = 20  # images, or this part of all, at least, whose mistakes say how many more would have
_ROUNDED = 1e-6  # of a mistake, which arithmetic adds

Scores = NDArray[np.floating]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Promise:
    """That of the images whose first score is `threshold` or more, `accuracy` are right at least."""

    accuracy: float
    threshold: float  # 0: all images are answered
    answered: float  # the share of the images that it was measured on
    n: int  # how many these were
    part: str  # what they were: 'held out', which also chose the weights, or 'test'

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def require_promise(accuracy: float, name: str = "promise") -> float:
    """The same. Raises ConvNeXtError for an accuracy that nobody can promise, called `name`."""
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0.5 <= accuracy <= 0.9999:
        raise ConvNeXtError(
            f"{name} = {accuracy} is refused: it is the share of the answers that shall be right, from 0.5 to 0.9999."
        )
    return float(accuracy)


def least(accuracy: float, doubt: float = 1 - CONFIDENCE) -> int:
    """How many images without a mistake show an accuracy: 299 for 0.99."""
    return math.ceil(math.log(doubt) / math.log(accuracy))


def threshold_of(score: Scores, right: Flags, accuracy: float) -> float | None:
    """The lowest threshold on (N,) scores that keeps the promise; None where these images show none."""
    n = len(score)
    order = np.argsort(-score, kind="stable")
    ranked = score[order].astype(np.float64)
    wrong = np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1 if n else np.zeros(0, int)
    best, carried = 0, 0.0
    spent = _starts(np.cumsum(1 - ranked), accuracy)
    for answered in _sequence(n, spent):
        level = carried + spent.get(answered, 0.0)
        at = ends[np.searchsorted(ends, answered)]  # images of one score are answered together
        carried = level if level and luck(int(wrong[at - 1]), int(at), accuracy) <= level else 0.0
        best = max(best, int(at)) if carried else best
    if not best:
        return None
    return 0.0 if best == n else float((ranked[best - 1] + ranked[best]) / 2)


def luck(wrong: int, n: int, accuracy: float) -> float:
    """The chance of `wrong` mistakes or fewer among n answers, were the accuracy no higher than promised."""
    k = np.arange(wrong + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    logs = ways + k * math.log1p(-accuracy) + (n - k) * math.log(accuracy)
    return float(min(1.0, np.exp(logs).sum()))


def wanted(score: Scores, right: Flags, accuracy: float) -> int | None:
    """About how many images like these would show the promise by `threshold_of`; None where very many would not.

    `like` makes more of these images. Their number rises by a half until it is enough, and is then halved in, to a
    fiftieth.
    """
    n = len(score)
    wrong = np.cumsum(~right[np.argsort(-score, kind="stable")])
    few, enough = n, 0
    share = (wrong / np.arange(1, n + 1))[max(_FEW, n // _FEW) - 1 :]  # of so few mistakes can be chance
    if not (share < 1 - accuracy).any():
        return None
    while not enough:
        more = max(few + few // 2 + 1, least(accuracy))
        if more > max(_MOST, n):
            return None
        few, enough = (few, more) if threshold_of(*like(score, right, more), accuracy) is not None else (more, 0)
    while enough - few > max(1, few // 50):
        middle = (few + enough) // 2
        shown = threshold_of(*like(score, right, middle), accuracy) is not None
        few, enough = (few, middle) if shown else (middle, enough)
    return enough


def like(score: Scores, right: Flags, count: int) -> tuple[Scores, Flags]:
    """(`count`,) scores and whether their images are right, as (N,) others are: between their scores lie more, and of as
    large a share of the surest so many are wrong as there, rounded up."""
    order, n = np.argsort(-score, kind="stable"), len(score)
    places = np.arange(1, count + 1) * (n / count)
    wrong = np.interp(places, np.arange(n + 1), np.append(0, np.cumsum(~right[order]))) * (count / n)
    mistakes = np.minimum(np.ceil(wrong - _ROUNDED), np.arange(1, count + 1))
    return np.interp(places, np.arange(1, n + 1), score[order]), np.diff(mistakes, prepend=0) < 1


def kept(score: Scores, right: Flags, accuracy: float, part: str) -> Promise | None:
    """The promise that (N,) images of `part` show; None where they show none."""
    found = threshold_of(score, right, accuracy)
    return None if found is None else Promise(accuracy, found, float((score >= found).mean()), len(score), part)


def refused(score: Scores, right: Flags, accuracy: float, part: str) -> dict[str, Any]:
    """What evaluation.json says of a promise that these images cannot carry, and how many would."""
    about = {"accuracy": accuracy, "confidence": CONFIDENCE, "kept": False, "n": len(score), "part": part}
    return about | {"least": least(accuracy), "wanted": wanted(score, right, accuracy)}


def promise_text(about: Mapping[str, Any]) -> str:
    """What evaluation.json says of a promise, in a sentence for people."""
    promised = f"Promise of {100 * about['accuracy']:g} %"
    images = f"{about['n']:,} {PARTS.get(about['part'], 'images')}"
    if not about["kept"]:
        more = about["wanted"]
        if about["n"] < about["least"]:
            way = f"{about['least']:,} without a mistake would be needed at least"
        elif more is None:
            way = "even their surest answers are not right that often"
        else:
            way = f"with mistakes as often as among these, about {more:,} would be needed"
        return f"{promised}: {images} cannot carry it: {way}. No threshold is kept, and all images are answered."
    here = about["here"]
    right = "" if here["right"] is None else f", {here['right']:.2%} of them right"
    biased = " They also chose the weights: a part 'test' would be a better judge." * (about["part"] == "held out")
    return (
        f"{promised}: answers from a score of {about['threshold']:.3f} on, as {images} show; here {here['answered']:.1%} of "
        f"{here['n']:,} images are answered{right}.{biased}"
    )


def _starts(expected: NDArray[np.float64], accuracy: float) -> dict[int, float]:
    """Where the sequences of tests begin -> the chance of error that each may spend.

    `expected`: (N,) how many mistakes the scores admit to among the surest 1, 2, ... images.
    """
    n, doubt = len(expected), 1 - CONFIDENCE
    first = least(accuracy)
    if n < 2 * first:
        return {_likeliest(expected, accuracy, first): doubt} if n >= first else {}
    found = {n: _ALL * doubt}
    for place, share in ((least(accuracy, _EARLY * doubt), _EARLY), (n // 3, _THIRD)):
        if least(accuracy, share * doubt) <= place <= n // 3:  # else there are too few images to share among sequences
            found[place] = found.get(place, 0.0) + share * doubt
    left = doubt - sum(found.values())
    place = _likeliest(expected, accuracy, least(accuracy, left))
    return found | {place: found.get(place, 0.0) + left}


def _likeliest(expected: NDArray[np.float64], accuracy: float, first: int) -> int:
    """How many images, `first` or more, are likeliest to pass: where the mistakes that may be and those that the scores
    admit to are farthest apart. Their square roots have one spread, whatever their number (Anscombe 1948)."""
    if first >= len(expected):
        return len(expected)
    answered = np.arange(first, len(expected) + 1)
    apart = np.sqrt(answered * (1 - accuracy)) - np.sqrt(np.maximum(0, expected[first - 1 :]) + 3 / 8)
    return int(answered[np.argmax(apart)])


def _sequence(n: int, starts: Mapping[int, float]) -> list[int]:
    """How many images are answered in each test, rising to all."""
    found = set(starts)
    answered = float(min(starts, default=n + 1))
    while answered <= n:
        found.add(int(answered))
        answered = max(answered + 1, answered * _APART)
    return sorted(found | {n} if starts else found)
