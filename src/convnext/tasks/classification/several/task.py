"""Several labels an image: how a batch becomes a loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convnext.config import ClassificationRecipe, RunOptions
from convnext.data.labelled import Splits, rarest
from convnext.engine.distributed import World
from convnext.tasks.balance import Balance
from convnext.tasks.classification.several.losses import chance_loss, loss_of
from convnext.tasks.classification.several.metrics import metrics
from convnext.tasks.classification.several.scoring import evaluate
from convnext.tasks.classification.task import Classification, Targeted


class SeveralLabels(Classification):
    """The task that `engine.fit` trains when an image may have several labels, or none."""

    def __init__(self, model: nn.Module, recipe: ClassificationRecipe, options: RunOptions, splits: Splits):
        super().__init__(model, recipe, options, splits)
        self.yes, self.balance = (
            self.balance.weights,
            Balance(),
        )  # a class counts by who has it, not by whose class it is
        marks = self.train.labels()
        smoothing = recipe.augment.smoothing
        soft = _rates(marks, recipe) * (1 - smoothing) + smoothing / 2  # the mean of the targets, also of mixed ones
        how: dict[str, Any] = {"yes": self.yes, "smoothing": smoothing}
        self.chance_loss = chance_loss(recipe.loss, torch.from_numpy(soft).float(), **how)

    def loss(self, network: nn.Module, piece: Targeted) -> Tensor:
        """Each class for itself, in float32, the mean over classes and images; what is unknown counts as nothing."""
        how: dict[str, Any] = {"yes": self.yes, "smoothing": self.recipe.augment.smoothing}
        return loss_of(self.recipe.loss, network(piece.x).float(), piece.targets, **how)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Mean average precision, F1, exact matches and loss on the held-out images."""
        return metrics(evaluate(model, self.val, self.recipe, self.passing, world=world))


def _rates(marks: np.ndarray, recipe: ClassificationRecipe) -> np.ndarray:
    """(K,) how many of the images that training sees have each class, of (N, K) marks."""
    seen = np.ones(len(marks))
    if recipe.loss.balance == "sampler" and len(marks):
        group = rarest(marks)
        seen = 1 / np.bincount(group)[group]
    found: np.ndarray = seen @ (marks == 1) / np.maximum(seen @ (marks >= 0), np.finfo(float).tiny)
    return found
