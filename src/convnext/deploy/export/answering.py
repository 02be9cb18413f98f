"""A classifier as one graph: decoded images in, logits, scores and answers out.

What `ClassificationPredictor` does in NumPy around a network is in the graph here, so that other programs give the same
answers without it. Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.export.pixels import Transformed
from convnext.deploy.forms.table import ANSWERS, LOGITS, SCORES
from convnext.tasks.classification.calibration import Scale


class Answering(nn.Module):
    """`network` between the evaluation transform and the decision of its predictor."""

    least: Tensor

    def __init__(self, network: nn.Module, predictor: ClassificationPredictor):
        super().__init__()
        self.transformed, self.network = Transformed(predictor.recipe.input), network
        self.several, self.scale = predictor.several, predictor.decision.scale
        promise = predictor.decision.promise
        least = predictor.thresholds.array() if self.several else np.array([promise.threshold if promise else 0.0])
        self.register_buffer("least", torch.from_numpy(_reached(least)))  # (K,), or (1,) of the first class

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # (N, H, W, C) -> (N, K) each
        return self.answers(self.network(self.transformed(images)).float())

    def answers(self, logits: Tensor) -> dict[str, Tensor]:  # (N, K) -> (N, K) each
        """What is said of images whose logits these are."""
        if self.several:
            scores = logits.sigmoid()
            answers = scores >= self.least
        else:
            scores = (logits * _factors(logits, self.scale)).softmax(1)
            first = torch.arange(logits.shape[1]) == logits.argmax(1, keepdim=True)
            answers = first & (scores >= self.least)
        return {LOGITS: logits, SCORES: scores, ANSWERS: answers}


def _factors(logits: Tensor, scale: Scale) -> Tensor:
    """(N, 1) what the logits of each image are multiplied by, as `Scale.factors` says."""
    factor = torch.full_like(logits[:, :1], 1 / scale.temperature)
    if not scale.stretch or logits.shape[1] < 2:
        return factor
    first, second = logits.topk(2).values.split(1, 1)
    return factor + scale.stretch * (first - second) ** 2


def _reached(least: np.ndarray) -> np.ndarray:
    """The smallest float32 that are `least` or more: a score in float32 reaches both or none."""
    rounded = least.astype(np.float32)
    return np.where(rounded < least, np.nextafter(rounded, np.float32(np.inf)), rounded).astype(np.float32)
