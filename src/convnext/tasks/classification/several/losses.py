"""What a classifier of several labels minimises: each class is a question of its own, and unknown entries count as nothing.

Focal loss: Lin et al. 2017, arXiv 1708.02002, without alpha. Asymmetric loss: Ridnik et al. 2021, arXiv 2009.14119.
Axes: N images, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.config import LossConfig
from convnext.data.labelled import UNKNOWN

_GRID = 401  # logits from -10 to 10, among which the best constant answer is looked for


def loss_of(config: LossConfig, logits: Tensor, targets: Tensor) -> Tensor:
    """A scalar: the mean over N images and K classes of (N, K) float32 logits and targets from 0 to 1, NaN for unknown.

    An unknown entry adds nothing and has no gradient; the mean is still over K, so that micro-batches add up.
    """
    known = ~targets.isnan()
    each = entries(config, logits, torch.where(known, targets, 0.0))
    return torch.where(known, each, 0.0).mean()


def entries(config: LossConfig, z: Tensor, t: Tensor) -> Tensor:
    """The loss of each entry, for logits z and targets t: t times that of a yes, and 1 - t times that of a no.

    bce: -log p and -log(1 - p), with p = sigmoid(z). focal: times (1 - p)^gamma and p^gamma. asymmetric: of a no
    with gamma_no, and p lowered by the margin, at least to 0: what is surely no counts as nothing.
    """
    if config.kind == "bce":
        return F.binary_cross_entropy_with_logits(z, t, reduction="none")
    p, yes = z.sigmoid(), -F.logsigmoid(z)
    if config.kind == "focal":
        return t * (1 - p) ** config.gamma * yes - (1 - t) * p**config.gamma * F.logsigmoid(-z)
    lowered = (p - config.margin).clamp_min(0)
    no = -torch.log1p(-lowered) if config.margin else -F.logsigmoid(-z)
    return t * (1 - p) ** config.gamma * yes + (1 - t) * lowered**config.gamma_no * no


def chance_loss(config: LossConfig, rates: Tensor) -> float:
    """The least loss of a network that answers all images alike, where (K,) `rates` of the images have each class."""
    if not len(rates):
        return math.inf
    z = torch.linspace(-10, 10, _GRID)[:, None]
    yes, no = (entries(config, z, torch.full_like(z, target)) for target in (1.0, 0.0))
    return float((rates * yes + (1 - rates) * no).min(0).values.mean())


@dataclass(frozen=True)
class EachClass:
    """What a linear head is fitted by, whatever the loss of the network: the cross-entropy of each class, summed over them."""

    def cross_entropy(self, logits: Tensor, labels: Tensor, *, total: bool = False) -> Tensor:
        """The loss of (N, K) logits for (N, K) marks, a scalar: the mean over the images, or their `total`."""
        each = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits), reduction="none")
        summed = torch.where(labels == UNKNOWN, 0.0, each).sum(1)
        return summed.sum() if total else summed.mean()


def strata(marks: Tensor) -> Tensor:
    """(N, K) marks -> (N,) the rarest class of each image, K where it has none: parts with as many of each are alike."""
    has = marks == 1
    order = has.sum(0).argsort(stable=True)  # the rarest class first
    first = has[:, order].to(torch.uint8).argmax(1)
    return torch.where(has.any(1), order[first], marks.shape[1])
