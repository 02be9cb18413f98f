"""Several labels an image: how a batch becomes a loss."""

import numpy as np
import torch
from torch import Tensor, nn

from convnext.config import ClassificationRecipe, RunOptions
from convnext.data.labelled import Splits
from convnext.engine.distributed import World
from convnext.tasks.classification.several.losses import chance_loss, loss_of
from convnext.tasks.classification.several.metrics import metrics
from convnext.tasks.classification.several.scoring import evaluate
from convnext.tasks.classification.task import Classification, Targeted


class SeveralLabels(Classification):
    """The task that `engine.fit` trains when an image may have several labels, or none."""

    def __init__(self, model: nn.Module, recipe: ClassificationRecipe, options: RunOptions, splits: Splits):
        super().__init__(model, recipe, options, splits)
        marks = self.train.labels()
        rates = (marks == 1).sum(0) / np.maximum(1, (marks >= 0).sum(0))
        smoothing = recipe.augment.smoothing
        soft = rates * (1 - smoothing) + smoothing / 2  # the mean of the targets, also of mixed ones
        self.chance_loss = chance_loss(recipe.loss, torch.from_numpy(soft).float())

    def loss(self, network: nn.Module, piece: Targeted) -> Tensor:
        """Each class for itself, in float32, the mean over classes and images; what is unknown counts as nothing."""
        return loss_of(self.recipe.loss, network(piece.x).float(), piece.targets)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Mean average precision, F1, exact matches and loss on the held-out images."""
        outcomes = evaluate(
            model,
            self.val,
            self.recipe,
            workers=self.options.workers,
            world=world,
            skipped=self.skipped,
            progress=self.options.progress,
        )
        return metrics(outcomes)
