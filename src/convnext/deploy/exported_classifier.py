"""The classifier in an exported file: the calls of every predictor, in NumPy, so that a server needs no torch.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe, Recipe, parse
from convnext.data.evaluation import normalised
from convnext.deploy.classifier import BATCH, ClassificationPredictor
from convnext.deploy.exported import Exported, Floats, open_exported
from convnext.deploy.images import Pixels, Read
from convnext.deploy.predictor import Features
from convnext.errors import ConvNeXtError
from convnext.tasks.result import Evaluation


class ExportedClassifier(ClassificationPredictor):
    """A network in a file with everything that it needs to answer. Scoring it on labelled images takes torch."""

    model: Exported

    @classmethod
    def of(cls, source: str | Path, *, backend: str = "auto") -> "ExportedClassifier":
        """The predictor of a file that `convnext export` wrote. Raises what `open_exported` raises."""
        network = open_exported(source, backend=backend)
        described = network.description
        recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
        return cls(network, recipe, tuple(described["classes"]), "cpu", Path(source), described)

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        batch: int = BATCH,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """As for every classifier."""
        found: Evaluation = self._with_torch().evaluate(data, part, batch=batch, workers=workers, progress=progress)
        return found

    def outcomes(self, *arguments: Any, **more: Any) -> Any:
        """As for every classifier."""
        return self._with_torch().outcomes(*arguments, **more)

    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """(N, K) of (N, H, W, C) images that `eval_transform` made."""
        return softmax(self.logits(images))

    def logits(self, images: Pixels) -> Floats:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made."""
        return self.model.run(normalised(images, self.recipe.input))

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        raise ConvNeXtError(f"'{self.source}' gives logits alone. Load the run for its features.")

    def _with_torch(self) -> Any:
        return import_module("convnext.deploy.trained_classifier").TrainedClassifier.of_exported(
            self.source, backend=self.model.backend
        )


def softmax(logits: Floats) -> Floats:
    """(N, K) logits -> (N, K) probabilities, computed in float64."""
    x = logits.astype(np.float64)
    x = np.exp(x - x.max(1, keepdims=True))
    return (x / x.sum(1, keepdims=True)).astype(np.float32)
