"""A linear head on frozen features: logistic regression, its penalty chosen crosswise on the training images.

Of one label an image it is multinomial; of several, one for each class with a penalty that all share.

Axes: N images, C features, K classes.
"""

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.config import LossConfig
from convnext.data.labelled import rarest
from convnext.tasks.balance import balance_of
from convnext.tasks.classification.several.losses import EachClass

PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # of the mean loss, on standardised features
PARTS = 5  # of the images, each held out once to choose the penalty
MOST_CHOOSING = 2000  # images that choose the penalty: more would change little and cost much
MOST_VALUES = (
    2**26
)  # features that a fit holds at once, half a gigabyte: of more images, as many of each class as there is room for
_STEPS, _LEAST_STEPS = 200, 30  # of L-BFGS at most: fewer where a step costs so much that all of them take more than
_WORK = 1e13  # multiply-accumulates
_USUAL_STEPS = 40  # of a fit that goes on from that of the next penalty
_STILL = 1e-6  # largest gradient of a fit that is done


PLAIN = LossConfig()


class Criterion(Protocol):
    """What a head is fitted by."""

    def cross_entropy(self, logits: Tensor, labels: Tensor, *, total: bool = False) -> Tensor:
        """The loss of (N, K) logits, a scalar: the mean over the images, or their `total`."""
        ...


@dataclass(frozen=True)
class Head:
    """A linear classifier of features as the network gives them, in float64."""

    weight: Tensor  # (K, C)
    bias: Tensor  # (K,)
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:  # (N, C) -> (N, K)
        """Logits in float64."""
        return F.linear(features.double(), self.weight, self.bias)


def fit_head(features: Tensor, labels: Tensor, classes: int, *, seed: int = 0, loss: LossConfig = PLAIN) -> Head:
    """The head for (V, N, C) features of V views of each image and (N,) labels, or (N, K) marks; on the CPU, in float64.

    The penalty is that of PENALTIES with the least loss on images that a fit has not seen, whose parts follow from
    `seed`. The same bits for the same features, where the number of threads is the same.
    """
    places, room = in_turns(labels, seed), room_for(features, classes)
    few = places[:MOST_CHOOSING]
    penalty = _penalty(features[:, few].double(), labels[few], classes, loss)
    if len(places) > room:
        features, labels = features[:, places[:room]], labels[places[:room]]
    return fitted(features.double(), labels, classes, penalty, loss=loss)


def room_for(features: Tensor, classes: int) -> int:
    """Images whose (V, N, C) features a fit holds at once in float64, however many there are."""
    return max(classes, MOST_VALUES // (len(features) * features.shape[2]))


def fitting_s(images: int, views: int, width: int, classes: int) -> float:
    """About how many seconds `fit_head` takes here for so many images, from one step of a fit to the smaller part of them."""
    few = min(images, MOST_CHOOSING) * views
    x, y = torch.zeros(few, width, dtype=torch.float64), torch.zeros(few, dtype=torch.int64)
    weight = torch.zeros(classes, width, dtype=torch.float64, requires_grad=True)
    seconds = 0.0
    for _ in range(2):  # the first prepares
        started = time.monotonic()
        F.cross_entropy(F.linear(x, weight), y).backward()
        seconds = time.monotonic() - started
    whole = min(images * views, MOST_VALUES // width) / few
    return seconds * (PARTS * len(PENALTIES) * _USUAL_STEPS + _STEPS * whole)


def _penalty(features: Tensor, labels: Tensor, classes: int, loss: LossConfig) -> float:
    """The best of PENALTIES; of fewer than two images a part, the middle one."""
    parts = min(PARTS, len(labels) // 2)
    if parts < 2:
        return PENALTIES[len(PENALTIES) // 2]
    part_of = torch.arange(len(labels)) % parts
    losses = dict.fromkeys(PENALTIES, 0.0)
    balance = _balance(labels, classes, loss)
    for part in range(parts):
        held = part_of == part
        head: Head | None = None
        for penalty in sorted(PENALTIES, reverse=True):  # from the smoothest on, each from the one before
            head = fitted(features[:, ~held], labels[~held], classes, penalty, first=head, loss=loss)
            losses[penalty] += float(balance.cross_entropy(head(features[0, held]), labels[held], total=True))
    return min(losses, key=lambda penalty: (losses[penalty], -penalty))


def in_turns(labels: Tensor, seed: int) -> Tensor:
    """Places of all images in a random order in which the classes take turns, so that parts are alike."""
    labels = labels if labels.ndim == 1 else torch.from_numpy(rarest(labels.numpy()))
    generator = torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    order = torch.randperm(len(labels), generator=generator)
    _, kind, counts = labels[order].unique(return_inverse=True, return_counts=True)
    by_class = torch.argsort(kind, stable=True)  # each class in its own order: all classes in one pass
    turn = torch.empty(len(labels), dtype=torch.int64)
    turn[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[torch.argsort(turn, stable=True)]


def fitted(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalty: float,
    *,
    first: Head | None = None,
    loss: LossConfig = PLAIN,
) -> Head:
    """The minimum of mean cross-entropy + penalty / 2 * |W|^2 over heads of standardised features, by L-BFGS.

    The cross-entropy is balanced as `loss` has it.
    """
    balance = _balance(labels, classes, loss)
    views, _, width = features.shape
    x = features.flatten(0, 1)  # (V N, C)
    mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
    x = (x - mean) / std
    y = labels.repeat(views, *[1] * (labels.ndim - 1))
    weight = torch.zeros(classes, width, dtype=torch.float64)
    bias = torch.zeros(classes, dtype=torch.float64)
    if first is not None:
        weight = first.weight * std
        bias = first.bias + first.weight @ mean
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=int(max(_LEAST_STEPS, min(_STEPS, _WORK / (2 * x.numel() * classes)))),
        tolerance_grad=_STILL,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        mean = balance.cross_entropy(F.linear(x, weight, bias), y) + penalty / 2 * weight.square().sum()
        mean.backward()
        return mean

    solver.step(objective)
    weight, bias = weight.detach() / std, bias.detach()
    return Head(weight, bias - weight @ mean, penalty)


def _balance(labels: Tensor, classes: int, loss: LossConfig) -> Criterion:
    """That of the images at hand, whose classes may be in other shares than those of all."""
    if labels.ndim == 2:
        return EachClass(balance_of(loss, (labels == 1).sum(0)).weights)
    return balance_of(loss, torch.bincount(labels, minlength=classes))
