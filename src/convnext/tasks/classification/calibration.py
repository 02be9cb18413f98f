"""What makes a classifier's scores mean what they say: a temperature (Guo et al. 2017, arXiv 1706.04599), and a stretch.

Scores are softmax(c z) of the logits z with a factor c > 0 for each image, so the order of the classes never changes:
c = 1 / temperature + stretch * margin^2, the margin being that of the first logit over the second. The temperature alone
is the rule. Label smoothing teaches a network to be no surer than its target even where it is always right, which no
temperature undoes: there the stretch is kept, and only where it is seen to help. Both are fitted on images that were held
out, of which there must be enough. No torch here. Axes: N images, K classes, F features of an image that c is made of.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convnext.errors import number_of

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
FOLDS = 5  # of cross-fitting
FEWEST = 30  # images that a temperature is fitted to: of 8 it may raise the loss of others by 1.5 (docs/log.md)
STRETCHED = 200  # images for the stretch, whose cross-fitted gain on fewer is chance as often as not
WIDEST = 20.0  # a temperature stays between 1 / 20 and 20
_STEPS = 50  # of the solver, at most; a dozen are usual
_ROWS = 4096  # that are in float64 at a time


@dataclass(frozen=True)
class Scale:
    """How logits become scores; the plain softmax where nothing was fitted."""

    temperature: float = 1.0
    stretch: float = 0.0

    def log_scores(self, logits: Logits) -> Floats:
        """(N, K) logits -> (N, K) logarithms of the scores."""
        if self == SOFTMAX:
            return log_softmax(logits)
        return log_softmax(logits.astype(np.float64) * self.factors(logits)[:, None])

    def factors(self, logits: Logits) -> Floats:
        """(N,) what the logits of each image are multiplied by."""
        return np.full(len(logits), 1 / self.temperature) + self.stretch * _margins(logits) ** 2


SOFTMAX = Scale()


def log_softmax(logits: Logits) -> Floats:
    """(N, K) logits -> (N, K) logarithms of probabilities."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    log_p: Floats = x - np.log(np.exp(x).sum(1, keepdims=True))
    return log_p


def fit(logits: Logits, labels: Labels) -> tuple[Scale, Floats]:
    """The scale of (N, K) logits with (N,) labels, and (N, K) logarithms of scores that no image's own label decided.

    For the second each of five folds, alike in their classes, is scored by what the others gave. The stretch is kept where
    it lowers the loss of these by more than its standard error; the whole only where it lowers it at all. Fewer than FEWEST
    images that give numbers, or images of one class alone, leave the softmax as it is.
    """
    plain = log_softmax(logits)
    sound = np.isfinite(logits).all(1)
    if not enough(labels[sound]):
        return SOFTMAX, plain
    folds, rows = _folds(labels), np.arange(len(labels))
    apart = [_out_of_fold(logits, labels, folds, False)]
    better = False
    if sound.sum() >= STRETCHED:
        apart.append(_out_of_fold(logits, labels, folds, True))
        gain = apart[1][rows, labels] - apart[0][rows, labels]
        better = bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))
    helps = (apart[better] - plain)[rows, labels][sound]
    if not helps.size or helps.mean() <= 0:  # a few images show nothing that holds for others
        return SOFTMAX, plain
    return fitted(logits, labels, stretched=better), apart[better]


def enough(labels: Labels) -> bool:
    """Whether a temperature may be fitted to images with these labels."""
    return len(labels) >= FEWEST and len(np.unique(labels)) > 1


def unfitted(n: int) -> str:
    """Why scores are those of the network, though `n` held-out images were there to fit a temperature to."""
    many = number_of(n, "held-out image")
    if n < FEWEST:
        return f"{many} {'is' if n == 1 else 'are'} too few to fit a temperature to: {FEWEST} would do"
    return f"what {many} would change does not hold for others"


def fitted(logits: Logits, labels: Labels, *, stretched: bool = False) -> Scale:
    """The scale with the least mean loss on these images, of a temperature alone or with a stretch.

    The loss is convex in both factors: Newton's steps, shortened until the loss falls and kept inside the bounds, find the
    least. Images that are all right would ask for scores of 100 %. So 1 / (n + 2) of each label goes to all classes alike,
    in the manner of Platt 1999: of thousands of images it is not felt.
    """
    sound = np.isfinite(logits).all(1)
    logits, labels = logits[sound], labels[sound]
    if not len(logits) or logits.shape[1] < 2:
        return SOFTMAX
    features = np.ones((len(logits), 2 if stretched else 1))
    unit = 1.0
    if stretched:
        squares = _margins(logits) ** 2
        unit = float(squares.mean()) or 1.0
        features[:, 1] = squares / unit
    low = np.array([1 / WIDEST, 0.0])[: features.shape[1]]
    high = np.array([WIDEST, WIDEST])[: features.shape[1]]
    x = np.array([1.0, 0.0])[: features.shape[1]]
    loss, gradient, curve = _loss(logits, labels, features, x)
    if not curve[0, 0]:  # all classes alike, in every image
        return SOFTMAX
    for _ in range(_STEPS):
        free = ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))
        step = np.zeros_like(x)
        if free.any():
            inside = curve[np.ix_(free, free)] + 1e-12 * np.trace(curve) * np.eye(free.sum())
            step[free] = -np.linalg.solve(inside, gradient[free])
        shorter = 1.0
        while shorter > 1e-9:
            found = np.clip(x + shorter * step, low, high)
            there = _loss(logits, labels, features, found)
            if there[0] <= loss + 1e-4 * float(gradient @ (found - x)):
                break
            shorter /= 2
        else:
            break
        moved = float(np.abs(found - x).max())
        x, (loss, gradient, curve) = found, there
        if moved <= 1e-10:
            break
    return Scale(float(1 / x[0]), float(x[1] / unit) if stretched else 0.0)


def _folds(labels: Labels) -> NDArray[np.int64]:
    """(N,) the fold of each image, the classes dealt out in turn."""
    found = np.zeros(len(labels), np.int64)
    found[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS
    return found


def _out_of_fold(logits: Logits, labels: Labels, folds: NDArray[np.int64], stretched: bool) -> Floats:
    log_p = np.empty(logits.shape)
    for part in np.unique(folds):
        held = folds == part
        log_p[held] = fitted(logits[~held], labels[~held], stretched=stretched).log_scores(logits[held])
    return log_p


def _margins(logits: Logits) -> Floats:
    """(N,) first logit less second; 0 of one class alone, also where all others are ruled out."""
    if logits.shape[1] < 2:
        return np.zeros(len(logits))
    second, first = np.partition(logits, -2, axis=1)[:, -2:].astype(np.float64).T
    return np.where(np.isfinite(second), first - second, 0.0)


def _loss(logits: Logits, labels: Labels, features: Floats, x: Floats) -> tuple[float, Floats, Floats]:
    """The mean loss where c = features @ x, its (F,) gradient and its (F, F) curvature by x."""
    n, share = len(labels), 1 / (len(labels) + 2)
    loss, gradient, curve = 0.0, np.zeros(len(x)), np.zeros((len(x), len(x)))
    for start in range(0, n, _ROWS):
        z = logits[start : start + _ROWS].astype(np.float64)
        z -= z.max(1, keepdims=True)
        f = features[start : start + _ROWS]
        c = f @ x
        target = (1 - share) * z[np.arange(len(z)), labels[start : start + _ROWS]] + share * z.mean(1)
        p = np.exp(c[:, None] * z)
        total = p.sum(1)
        p /= total[:, None]
        mean = (p * z).sum(1)
        variance = (p * (z - mean[:, None]) ** 2).sum(1)
        loss += float((np.log(total) - c * target).sum())
        gradient += f.T @ (mean - target)
        curve += (f * variance[:, None]).T @ f
    return loss / n, gradient / n, curve / n
