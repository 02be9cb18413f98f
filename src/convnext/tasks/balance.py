"""What makes up for classes with few images, or few pixels: weights, or a shift of the logits, in training alone.

Class-balanced weights: Cui et al. 2019, arXiv 1901.05555. Logit adjustment: Menon et al. 2020, arXiv 2007.07314.
Axes: N images, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.config import LossConfig, SegmentationLoss
from convnext.errors import ConvNeXtError
from convnext.kernels.transfer import beside


@dataclass(frozen=True)
class Balance:
    """How much each class counts in training; with neither, each counts by its images. float64, on the CPU."""

    weights: Tensor | None = None  # (K,) of an image of the class; 1 on average over the images
    shift: Tensor | None = None  # (K,) added to the logits: tau times the logarithm of the class's share

    def targets(self, targets: Tensor, smoothing: float) -> Tensor:
        """(N, K) targets, mixed and smoothed alike over all classes, made those of a balanced loss.

        A weight is that of the class an image is of, not of those that smoothing or mixing add: each component of a mixed
        image is weighted as a whole, and rows no longer sum to 1. Under a shift, smoothing is spread by the shifted
        shares: spread alike, it would say of every image that it may well be of a rare class.
        """
        classes = targets.shape[1]
        if self.weights is not None:
            weights = beside(self.weights, targets)
            own = (targets - smoothing / classes) * weights  # (1 - smoothing) * share * weight of each component
            return own + own.sum(1, keepdim=True) * smoothing / (classes * (1 - smoothing))
        if self.shift is not None:
            return targets + smoothing * (beside(self.shift, targets).softmax(0) - 1 / classes)
        return targets

    def logits(self, logits: Tensor) -> Tensor:
        """(N, K) or (N, K, H, W), as training compares them with targets."""
        if self.shift is None:
            return logits
        return logits + beside(self.shift, logits).view(-1, *[1] * (logits.ndim - 2))

    def cross_entropy(self, logits: Tensor, labels: Tensor, *, total: bool = False) -> Tensor:
        """The balanced loss of (N, K) logits for (N,) labels, a scalar: the mean over the images, or their `total`."""
        if self.weights is None:
            return F.cross_entropy(self.logits(logits), labels, reduction="sum" if total else "mean")
        losses = F.cross_entropy(logits, labels, reduction="none") * beside(self.weights, logits)[labels]
        return losses.sum() if total else losses.mean()

    def of_knowing_nothing(self, counts: Tensor) -> float:
        """The loss, without smoothing, of one answer to all images, of which (K,) `counts` are of each class."""
        if self.shift is None:
            return math.log(len(counts))  # of logits that are all the same; the weights are 1 on average
        return float(-(counts / counts.sum() * self.shift.log_softmax(0)).sum())


def balance_of(loss: LossConfig, counts: Tensor) -> Balance:
    """What `loss` asks for on images of which (K,) `counts` are of each class; a class without any is taken to have one.

    Images that a balanced sampler has drawn need nothing; others are weighted as if it had: by 1 over their class's share.
    """
    counts = counts.double().clamp_min(1)
    shares = counts / counts.sum()
    if loss.balance == "logits":
        return Balance(shift=loss.tau * shares.log())
    if loss.balance == "none":
        return Balance()
    beta = 1 - 1 / float(counts.mean()) if loss.beta is None else loss.beta
    inverse = 1 / (shares if loss.balance == "sampler" else effective_number(counts, beta))
    return Balance(weights=inverse / (shares * inverse).sum())


def balance_of_pixels(loss: SegmentationLoss) -> Balance:
    """What `loss` asks for. A weight is the class's share to the power of -tau: 0.5 the root of what evens them out, 1 all.

    Raises ConvNeXtError where the shares are not known.
    """
    if loss.balance == "none":
        return Balance()
    given = given_to_rare(loss)
    if loss.balance == "logits":
        return Balance(shift=-given)
    shares, rare = torch.tensor(loss.shares, dtype=torch.float64), given.exp()
    return Balance(weights=rare / (shares * rare).sum())


def given_to_rare(loss: SegmentationLoss) -> Tensor:
    """(K,) float64, of each class: by how much a balanced loss raises its logit, -tau times the logarithm of its share.

    Weights and a shift of the logits come to the same here: where the loss is least, the posterior is that of classes whose
    shares have the power 1 - tau. Raises ConvNeXtError where the shares are not known.
    """
    if not loss.shares:
        raise ConvNeXtError(f"loss.balance = '{loss.balance}' needs loss.shares, which a run measures. Name them.")
    return -loss.tau * torch.tensor(loss.shares, dtype=torch.float64).log()


def effective_number(counts: Tensor, beta: float) -> Tensor:
    """(1 - beta^n) / (1 - beta): how many images say something that those before have not said (1901.05555, section 3.2)."""
    return (1 - beta**counts) / (1 - beta)
