"""The detector in an exported file: the calls of every predictor, in NumPy, so that nothing needs torch.

Axes: H W pixel rows and columns, C channels.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from convnext.config import DetectionRecipe, Recipe, parse
from convnext.data.annotated_policy import eval_dense
from convnext.data.dataset import DenseDataset
from convnext.data.sample import Sample
from convnext.data.source import Source
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.exported.annotated import fitted_samples, opened
from convnext.deploy.exported.opened import Exported
from convnext.deploy.images import Pixels, Read, Size, Transform, sample_of
from convnext.deploy.predictor import Features
from convnext.errors import ConvNeXtError
from convnext.tasks.detection.facts import fingerprint
from convnext.tasks.detection.found import Found, inside, outlines
from convnext.tasks.detection.metrics import Outcomes, limit_of
from convnext.tasks.detection.report import report
from convnext.tasks.finite import NotFinite
from convnext.tasks.judged import judged_on
from convnext.tasks.result import Evaluation

IMAGES = "images"  # the input, (1, H, W, C) uint8, float32 of wide bands
BOXES, SCORES, LABELS, MASKS, FINITE = "boxes", "scores", "labels", "masks", "finite"  # the outputs


class ExportedDetector(DetectionPredictor):
    """A network in a file with everything that it needs to answer."""

    model: Exported

    @classmethod
    def around(cls, network: Exported) -> "ExportedDetector":
        """The predictor of an opened file."""
        described = network.description
        where = f"'{network.path}'"
        recipe: DetectionRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=where)
        return cls(network, recipe, tuple(described["classes"]), "cpu", network.path, described)

    def _evaluated(self, source: Source, part: str | None, *, workers: int, progress: bool) -> Evaluation:
        """Without a loss, which an exported file does not give."""
        dataset, skipped = opened(
            source, self.recipe, self.metadata, fingerprint, part=part, run=self.source.parent, workers=workers
        )
        outcomes = self._outcomes(dataset, workers, skipped, progress=progress)
        found = Evaluation.of("detection", report(outcomes, dataset, most=limit_of(self.recipe)))
        about = judged_on(dataset, self.recipe, self.metadata, fingerprint)
        return found.with_about(skipped=skipped, **about)

    def outcomes(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """As for every detector; `workers` are threads, and every loss is nan."""
        return self._outcomes(dataset, workers, {} if skipped is None else skipped, progress=False)

    def _outcomes(self, dataset: DenseDataset, workers: int, skipped: dict[str, str], *, progress: bool) -> Outcomes:
        indices: list[int] = []
        found: list[Found] = []

        def fit(sample: Sample) -> Sample:
            return eval_dense(sample, self.recipe.input)

        how: dict[str, Any] = {"channels": len(self.recipe.input.mean), "masks": False, "workers": workers}
        for index, fitted in fitted_samples(dataset, fit, **how, skipped=skipped, progress=progress):
            entry = dataset.entries[index]
            indices.append(index)
            found.append(self.found_in(fitted.image, fitted.size, entry.path, entry.image_id))
        return Outcomes(tuple(indices), tuple(found), (math.nan,) * len(found))

    @property
    def _transform(self) -> Transform:
        return partial(sample_of, self.recipe.input)

    def _found(self, read: Sequence[Read]) -> Iterable[Found]:
        return (self.found_in(one.shown.image, one.size, one.given.path, one.image_id) for one in read)

    def found_in(self, pixels: Pixels, size: Size, path: str, image_id: int) -> Found:
        """What is in (H, W, C) pixels of an image of `size`.

        The graph resizes by itself what is of another size. Here Pillow has done that, as for the run: then runtimes whose
        resize is another answer alike.
        """
        more = (MASKS,) if self.recipe.head.masks else ()
        boxes, scores, labels, finite, *masks = self.model.run(pixels[None], (BOXES, SCORES, LABELS, FINITE, *more))
        if not finite:
            raise NotFinite(path, f"'{self.source}'")
        height, width = pixels.shape[:2]
        ratio = np.array([size[1] / width, size[0] / height] * 2, np.float32)
        original = inside(boxes * ratio, size)
        return Found(
            path, image_id, size, original, scores, labels, outlines(masks[0], original, size) if masks else None
        )

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        raise ConvNeXtError(f"'{self.source}' gives objects alone. Load the run for its features.")
