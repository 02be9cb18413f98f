"""The segmenter in an exported file: the calls of every predictor, in NumPy, so that nothing needs torch.

Axes: H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import Recipe, SegmentationHeadConfig, SegmentationRecipe, parse
from convnext.data.dataset import DenseDataset
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.deploy.exported.annotated import fitted_samples, opened
from convnext.deploy.exported.opened import Exported, Run
from convnext.deploy.forms.table import LOGITS, SIZE
from convnext.deploy.images import Pixels, Read, sample_of
from convnext.deploy.predictor import Features
from convnext.deploy.segmenter import Labelled, SegmentationPredictor
from convnext.errors import ConvNeXtError
from convnext.tasks.finite import NotFinite
from convnext.tasks.groups import GROUPS
from convnext.tasks.judged import judged_on
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.exact import labelled
from convnext.tasks.segmentation.facts import fingerprint
from convnext.tasks.segmentation.metrics import Judged, Outcomes, confusion
from convnext.tasks.segmentation.places import seen, windows
from convnext.tasks.segmentation.report import report

MULTIPLE = 32  # that the sides of an image which is seen at once are filled up to
_WINDOWS = 4  # that run together

Floats = NDArray[np.float32]


class ExportedSegmenter(SegmentationPredictor):
    """A network in a file with everything that it needs to answer, at one scale."""

    model: Exported

    @classmethod
    def around(cls, network: Exported) -> "ExportedSegmenter":
        """The predictor of a file that `convnext export` wrote."""
        described = network.description
        recipe: SegmentationRecipe = parse(
            Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{network.path}'"
        )
        return cls(network, recipe, tuple(described["classes"]), "cpu", network.path, described)

    def _evaluated(
        self, source: Source, part: str | None, *, multi_scale: bool, workers: int, progress: bool
    ) -> Evaluation:
        """Raises ConvNeXtError for `multi_scale`."""
        self._refuse(multi_scale)
        dataset, skipped = opened(
            source, self.recipe, self.metadata, fingerprint, part=part, run=self.source.parent, workers=workers
        )
        outcomes = self._outcomes(dataset, workers, skipped, progress)
        found = report(outcomes, dataset.classes, [printable(entry.path) for entry in dataset.entries])
        about = judged_on(dataset, self.recipe, self.metadata, fingerprint)
        return Evaluation.of("segmentation", found).with_about(skipped=skipped, **about)

    def outcomes(
        self,
        dataset: DenseDataset,
        *,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        multi_scale: bool = False,
    ) -> Outcomes:
        """As for every segmenter; `workers` are threads. Raises ConvNeXtError for `multi_scale`."""
        self._refuse(multi_scale)
        return self._outcomes(dataset, workers, {} if skipped is None else skipped, False)

    def logits(self, image: Pixels) -> Floats:
        """(K, H, W) float32 logits of an image at the size of evaluation."""
        return logits_of(self.model.run, image, self.recipe.head)

    def _outcomes(self, dataset: DenseDataset, workers: int, skipped: dict[str, str], progress: bool) -> Outcomes:
        classes = self.recipe.head.classes
        groups = np.zeros((GROUPS, classes, classes), np.int64)
        judged: list[Judged] = []
        how: dict[str, Any] = {"channels": len(self.recipe.input.mean), "masks": True, "workers": workers}
        passing = fitted_samples(dataset, partial(seen, self.recipe.input), **how, skipped=skipped, progress=progress)
        for index, sample in passing:
            assert sample.semantic is not None, "every image of a segmentation dataset has a mask"
            logits = self.logits(sample.image)
            if not np.isfinite(logits).all():
                raise NotFinite(sample.path)
            answer = labelled(logits, sample.size, sample.semantic)
            own = confusion(answer.mask, sample.semantic, classes)
            groups[index % GROUPS] += own
            judged.append(Judged.of(index, own, answer.loss, answer.mask))
        return Outcomes(groups.sum(0), tuple(judged), groups)

    def _labelled(self, images: Sequence[Pixels], multi_scale: bool) -> Iterable[Labelled]:
        self._refuse(multi_scale)
        for image in images:
            found = labelled(self.logits(sample_of(self.recipe.input, image).image), (image.shape[0], image.shape[1]))
            yield found.mask, found.scores

    def _refuse(self, multi_scale: bool) -> None:
        if multi_scale:
            raise ConvNeXtError(f"'{self.source}' answers at one scale. Name the run that it was made of.")

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        raise ConvNeXtError(f"'{self.source}' gives logits alone. Load the run for its features.")


def logits_of(run: Run, image: Pixels, head: SegmentationHeadConfig) -> Floats:
    """(K, H, W) of an image at the size of evaluation: at once, or the mean over the windows that see a pixel."""
    height, width = image.shape[:2]
    if not head.window_px:
        return _seen(run, [_filled(image, -height % MULTIPLE, -width % MULTIPLE)], (height, width))[0]
    window = head.window_px
    shown = _filled(image, max(0, window - height), max(0, window - width))
    places = list(windows(shown.shape[0], shown.shape[1], window, head.stride))
    total = np.zeros((head.classes, *shown.shape[:2]), np.float32)
    times = np.zeros(shown.shape[:2], np.float32)
    for first in range(0, len(places), _WINDOWS):
        some = places[first : first + _WINDOWS]
        parts = _seen(run, [shown[place] for place in some], (min(height, window), min(width, window)), cut=False)
        for (rows, columns), part in zip(some, parts, strict=True):
            total[:, rows, columns] += part
            times[rows, columns] += 1
    total /= times
    return total[:, :height, :width]


def _seen(run: Run, images: Sequence[Pixels], size: tuple[int, int], *, cut: bool = True) -> Floats:
    """(N, K, H, W) of images of which `size` is filled."""
    found: Floats = run(np.stack(images), (LOGITS,), **{SIZE: np.array(size, np.int64)})[0]
    return found[:, :, : size[0], : size[1]] if cut else found


def _filled(image: Pixels, below: int, right: int) -> Pixels:
    return np.pad(image, ((0, below), (0, right), (0, 0)))
