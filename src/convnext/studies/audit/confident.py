"""Which labels are likely wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068), in NumPy.

Each class has a threshold, the mean probability of the class over the images that are labelled with it. An image counts
for the likeliest class whose threshold its probabilities reach. Where that is another class than its label, the label is in
doubt. The paper takes all of these for wrong; of a network that is right for six images in ten, they are a third of the
images. Here the score must be SURE as well. It compares roots of probabilities: between differences, which find labels
mixed up with a similar class best, and ratios, which find random ones best. Probabilities must be of networks
that have not learnt from the image. Axes: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SURE = 0.75  # least score of a label that is told to be likely wrong

Probabilities = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Doubts:
    """What probabilities say of labels."""

    joint: NDArray[np.float64]  # (K, K) share of the images with a label (row) that are of a class (column)
    wrong: NDArray[np.bool_]  # (N,)
    score: NDArray[np.float64]  # (N,) 0 to 1: how much likelier another class is than the label; 0.5 as likely
    suggested: Labels  # (N,) that class


def doubts(probabilities: Probabilities, labels: Labels) -> Doubts:
    """What (N, K) probabilities, of networks that have not seen the images, say of (N,) labels."""
    rows = np.arange(len(labels))
    own = probabilities[rows, labels].astype(np.float64)
    others = probabilities.astype(np.float64, copy=True)
    others[rows, labels] = -1
    others[:, np.bincount(labels, minlength=others.shape[1]) == 0] = -1  # a class that labels nothing is no suggestion
    suggested = others.argmax(1).astype(np.int64)
    score = (1 + np.sqrt(others[rows, suggested].clip(0)) - np.sqrt(own)) / 2
    confident = confident_class(probabilities, labels)
    wrong = (confident >= 0) & (confident != labels) & (score >= SURE)
    return Doubts(_joint(confident, labels, probabilities.shape[1]), wrong, score, suggested)


def thresholds(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """(K,): the mean probability of each class over the images that are labelled with it; beyond 1 where there is none."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    sums = np.bincount(labels, weights=own, minlength=len(counts))
    return np.where(counts > 0, sums / np.maximum(counts, 1), 2.0)


def confident_class(probabilities: Probabilities, labels: Labels) -> Labels:
    """(N,): the likeliest of the classes whose threshold an image reaches; -1 where it reaches none."""
    reached = probabilities >= thresholds(probabilities, labels) - 1e-6
    best = np.where(reached, probabilities, -1).argmax(1)
    return np.where(reached.any(1), best, -1).astype(np.int64)


def _joint(confident: Labels, labels: Labels, classes: int) -> NDArray[np.float64]:
    """The confident counts, each row scaled to the images of its label; all of them together are 1."""
    counts = np.zeros((classes, classes))
    known = confident >= 0
    np.add.at(counts, (labels[known], confident[known]), 1)
    images = np.bincount(labels, minlength=classes)
    alone = counts.sum(1) == 0
    counts[alone, alone] = images[alone]  # a label of which nothing is known is taken as it is
    joint: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1) * images[:, None]
    return joint / max(joint.sum(), 1)
