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
from convnext.kernels.transfer import beside

_GRID = 401  # logits from -10 to 10, among which the best constant answer is looked for


def loss_of(
    config: LossConfig, logits: Tensor, targets: Tensor, *, yes: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """A scalar: the mean over N images and K classes of (N, K) float32 logits and targets from 0 to 1, NaN for unknown.

    An unknown entry adds nothing and has no gradient; the mean is still over K, so that micro-batches add up. `yes`: (K,)
    how much an image that has the class counts for it; targets are smoothed by `smoothing`.
    """
    known = ~targets.isnan()
    targets = torch.where(known, targets, 0.0)
    each = entries(config, logits, targets)
    if yes is not None:
        each = each + heavier(config, logits, targets, beside(yes, logits), smoothing)
    return torch.where(known, each, 0.0).mean()


def heavier(config: LossConfig, z: Tensor, t: Tensor, yes: Tensor, smoothing: float) -> Tensor:
    """What (K,) weights of a yes add to each entry: of a mixed image each component is weighted as a whole, smoothing too."""
    share = (t - smoothing / 2) / (1 - smoothing)  # that has the class
    return (yes - 1) * share * entries(config, z, torch.full_like(t, 1 - smoothing / 2))


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


def chance_loss(config: LossConfig, rates: Tensor, *, yes: Tensor | None = None, smoothing: float = 0.0) -> float:
    """The least loss of a network that answers all images alike, where (K,) `rates` are the mean targets.

    `yes` and `smoothing` are those of `loss_of`.
    """
    if not len(rates):
        return math.inf
    z = torch.linspace(-10, 10, _GRID)[:, None]
    has, lacks = (entries(config, z, torch.full_like(z, target)) for target in (1.0, 0.0))
    each = rates * has + (1 - rates) * lacks
    if yes is not None:
        each = each + heavier(config, z.expand_as(each), rates.expand_as(each), yes.to(each), smoothing)
    return float(each.min(0).values.mean())


@dataclass(frozen=True)
class EachClass:
    """What a linear head is fitted by, whatever the loss of the network: the cross-entropy of each class, summed over them."""

    yes: Tensor | None = None  # (K,) how much an image that has the class counts for it

    def cross_entropy(self, logits: Tensor, labels: Tensor, *, total: bool = False) -> Tensor:
        """The loss of (N, K) logits for (N, K) marks, a scalar: the mean over the images, or their `total`."""
        each = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits), reduction="none")
        if self.yes is not None:
            each = torch.where(labels == 1, beside(self.yes, each), 1.0) * each
        summed = torch.where(labels == UNKNOWN, 0.0, each).sum(1)
        return summed.sum() if total else summed.mean()
