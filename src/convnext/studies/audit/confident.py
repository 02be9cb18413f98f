"""Which labels are likely wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068), and a model of mistakes.

Each class has a threshold, the mean probability of the class over the images that are labelled with it. An image counts
for the likeliest class whose threshold its probabilities reach. Where that is another class than its label, the label is in
doubt. The paper takes all of these for wrong; of a network that is right for six images in ten, they are a third of the
images. Here the score must reach TOLD as well.

The score is the chance that a label is a mistake, where RATE of all labels are and a mistake turns class t into label j with
chance T[t, j]: RATE sum_t p_t T[t, label] beside (1 - RATE) p_label. T is learnt from the images themselves, by expectation and
maximisation (Dempster et al. 1977), from a first guess: mistakes go to all classes alike, some more to those that look alike.
So labels that were mixed up with one class stand before those of images that are merely hard, and random ones stay in front
where mistakes go anywhere: benchmarks/audit_ranking.py. Probabilities must be of networks that have not learnt from the image.
Axes: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLD = 0.2  # least score of a label that is told to be likely wrong
RATE = 0.05  # of the labels that are taken for mistakes
_ALIKE = 0.3  # share of the first guess that follows which classes look alike
_FIRST = 0.5  # how much the first guess counts, in the mistakes that are expected of a class
_STEPS = 10  # of expectation and maximisation; more change little
_LEAST = 1e-9  # probability of a class

Probabilities = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Doubts:
    """What probabilities say of labels."""

    joint: NDArray[np.float64]  # (K, K) share of the images with a label (row) that are of a class (column)
    wrong: NDArray[np.bool_]  # (N,)
    score: NDArray[np.float64]  # (N,) 0 to 1: the chance that the label is a mistake
    suggested: Labels  # (N,) the class that the image is of, if it is


def doubts(probabilities: Probabilities, labels: Labels) -> Doubts:
    """What (N, K) probabilities, of networks that have not seen the images, say of (N,) labels."""
    chances = mistakes(probabilities, labels)
    score = chances.sum(1)
    confident = confident_class(probabilities, labels)
    wrong = (confident >= 0) & (confident != labels) & (score >= TOLD)
    return Doubts(_joint(confident, labels, probabilities.shape[1]), wrong, score, chances.argmax(1).astype(np.int64))


def mistakes(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """(N, K): the chance that an image is of that class and its label a mistake; 0 of its own, and of those without images."""
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    images = np.bincount(labels, minlength=classes)
    p = probabilities.astype(np.float64).clip(_LEAST)
    order = np.argsort(labels, kind="stable")
    starts = np.append(0, np.cumsum(images[images > 0])[:-1])

    def by_label(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, K) of (N, K): the sum over the images of each label, as columns."""
        summed = np.zeros((classes, classes))
        summed[:, images > 0] = np.add.reduceat(values[order], starts, axis=0).T
        return summed

    alike = by_label(p).T / np.maximum(images, 1)[:, None]  # (t, j): how likely j looks where t is the label
    np.fill_diagonal(alike, 0)
    anywhere = (1 - np.eye(classes)) / max(1, classes - 1)
    first = (1 - _ALIKE) * anywhere + _ALIKE * alike / np.maximum(alike.sum(1, keepdims=True), _LEAST)
    others = np.where(images > 0, p, 0.0)
    others[rows, labels] = 0
    own, expected, turned = (1 - RATE) * p[rows, labels], RATE * len(labels) / classes, first
    for step in range(_STEPS + 1):
        found = RATE * others * turned[:, labels].T
        found /= (own + found.sum(1))[:, None]
        if step < _STEPS:
            turned = by_label(found) + _FIRST * expected * first
            turned /= np.maximum(turned.sum(1, keepdims=True), _LEAST)
    return found


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
