"""A classifier as its users see it: class names with probabilities out. No torch here.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe
from convnext.data.evaluation import Change, eval_transform
from convnext.data.labelled import Dataset
from convnext.deploy.images import ChannelOrder, ManyImages, Pixels, Read, Transform
from convnext.deploy.prediction import ClassificationPrediction
from convnext.deploy.predictor import Predictor, require_numbers, require_top
from convnext.tasks.result import Evaluation

if TYPE_CHECKING:
    from convnext.tasks.classification.metrics import Outcomes
    from convnext.tasks.classification.scoring import Attacker

TOP = 5  # classes that are named unless one asks for another number
BATCH = 32  # images of one forward pass


@dataclass(repr=False)
class ClassificationPredictor(Predictor[ClassificationPrediction]):
    """A trained classifier."""

    recipe: ClassificationRecipe

    def predict(
        self,
        images: ManyImages,
        *,
        top: int | None = None,
        channel_order: ChannelOrder = "rgb",
        batch: int = BATCH,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[ClassificationPrediction]:
        """As for every predictor; `batch` images pass the network together."""
        return self._many(images, channel_order, workers, skipped, partial(self._answers, top=top), batch)

    @abstractmethod
    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        batch: int = BATCH,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """Top-1, top-5, loss, calibration and confusion, as for every predictor."""

    @abstractmethod
    def outcomes(
        self,
        dataset: Dataset,
        *,
        workers: int = 0,
        batch: int = 0,
        skipped: dict[str, str] | None = None,
        change: Change | None = None,
        attack: "Attacker | None" = None,
        only: Sequence[int] = (),
        progress: bool = False,
    ) -> "Outcomes":
        """What the network makes of every readable image of a labelled dataset; broken ones are noted in `skipped`.

        `change`, `attack`, `only` and `progress` are those of `convnext.tasks.classification.scoring.evaluate`.
        """

    @abstractmethod
    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """(N, K) of (N, H, W, C) images that `eval_transform` made."""

    @property
    def _transform(self) -> Transform:
        return partial(eval_transform, config=self.recipe.input)

    @property
    def _batch(self) -> int:
        return BATCH

    def _answers(self, read: Sequence[Read], *, top: int | None = None) -> Iterable[ClassificationPrediction]:
        require_top(top)
        scores = self.probabilities(stacked(read))
        order = np.argsort(-scores, axis=1, kind="stable")[:, : top or TOP]
        best = np.take_along_axis(scores, order, 1)
        for one, row in zip(read, scores, strict=True):
            require_numbers(row, one.given.path, self.source)
        for one, ks, ps in zip(read, order.tolist(), best.tolist(), strict=True):
            scored = tuple((self.classes[k], p) for k, p in zip(ks, ps, strict=True))
            about: dict[str, Any] = {"given": one.given, "image_id": one.image_id, "size": one.size}
            yield ClassificationPrediction(classes=self.classes, scored=scored, **about)


def stacked(read: Sequence[Read]) -> Pixels:
    """(N, H, W, C)."""
    return np.stack([one.shown for one in read])
