"""The classifier in an exported file: the calls of every predictor, in NumPy, so that nothing needs torch.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe, Recipe, parse
from convnext.data.evaluation import framed
from convnext.data.labelled import Dataset
from convnext.data.source import Source
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.explanation import Explanation, Method
from convnext.deploy.exported.opened import Exported, open_exported
from convnext.deploy.forms.table import LOGITS
from convnext.deploy.images import Pixels, Read
from convnext.deploy.predictor import Features
from convnext.errors import ConvNeXtError
from convnext.tasks.classification.decision import Decision
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.passing import PLAIN, Pass
from convnext.tasks.classification.several.metrics import Outcomes as LabelOutcomes
from convnext.tasks.result import Evaluation

if TYPE_CHECKING:
    from convnext.tasks.classification.conclusion import Wanted

Floats = NDArray[np.float32]


class ExportedClassifier(ClassificationPredictor):
    """A network in a file with everything that it needs to answer."""

    model: Exported

    @classmethod
    def of(cls, source: str | Path, *, backend: str = "auto", threads: int | None = None) -> "ExportedClassifier":
        """The predictor of a file that `convnext export` wrote. Raises what `open_exported` raises."""
        return cls.around(open_exported(source, backend=backend, threads=threads))

    @classmethod
    def around(cls, network: Exported) -> "ExportedClassifier":
        """The predictor of an opened file."""
        described, source = network.description, network.path
        recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
        Decision.of(described, source)  # a wrong one is refused now
        return cls(network, recipe, tuple(described["classes"]), "cpu", source, described)

    def _evaluated(self, source: Source, part: str | None, how: Pass, wanted: "Wanted", *, keep: bool) -> Evaluation:
        found: Evaluation = _scoring().evaluated(self, source, part, how, wanted, keep=keep)
        return found

    def outcomes(self, dataset: Dataset, how: Pass = PLAIN, *, only: Sequence[int] = ()) -> Outcomes:
        """As for every classifier."""
        self._require_labels("single")
        found: Outcomes = _scoring().outcomes(self, dataset, how, only)
        return found

    def label_outcomes(self, dataset: Dataset, how: Pass = PLAIN) -> LabelOutcomes:
        """As for every classifier."""
        self._require_labels("multi")
        found: LabelOutcomes = _scoring().label_outcomes(self, dataset, how)
        return found

    def _logits(self, images: Pixels) -> Floats:
        return self.logits(images)

    def logits(self, images: Pixels) -> Floats:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made.

        The graph would resize by itself, by products that cost more than Pillow's loops and of images of one size only. So
        it is given what its own resize leaves as it is.
        """
        found: Floats = self.model.run(framed(images, self.recipe.input), (LOGITS,))[0]
        return found

    def _explained(
        self, read: Sequence[Read], *, classes: str | Sequence[str] | None, method: Method, stage: int | None
    ) -> Iterable[Explanation]:
        raise ConvNeXtError(
            f"'{self.source}' gives logits alone, without the maps and gradients that explain them. Name the run that it was "
            "made of."
        )

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        raise ConvNeXtError(f"'{self.source}' gives logits alone. Load the run for its features.")


def _scoring() -> Any:
    """What labelled images take: half of all that there is to import, and of no use to who asks about one image."""
    return import_module("convnext.deploy.exported.scoring")
