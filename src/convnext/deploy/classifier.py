"""A classifier as its users see it: class names with probabilities out. No torch here.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe
from convnext.data.evaluation import eval_transform
from convnext.data.labelled import Dataset
from convnext.data.source import NamedColumns, Source
from convnext.deploy.explanation import Explanation, Method
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage, Pixels, Read, Transform
from convnext.deploy.prediction import ClassificationPrediction, LabelsPrediction
from convnext.deploy.predictor import Predictor, require_numbers, require_top
from convnext.errors import ConvNeXtError
from convnext.tasks.classification.decision import Decision
from convnext.tasks.classification.passing import PLAIN, Pass
from convnext.tasks.classification.several.metrics import Outcomes as LabelOutcomes
from convnext.tasks.classification.several.metrics import probabilities
from convnext.tasks.classification.several.thresholds import Thresholds
from convnext.tasks.result import Evaluation

if TYPE_CHECKING:
    from convnext.tasks.classification.conclusion import Wanted
    from convnext.tasks.classification.metrics import Outcomes

TOP = 5  # classes that are named unless one asks for another number
_FOR_LABELLED = (  # imported when there are labelled images: who asks about one does not wait for all forms of data
    "convnext.tasks.classification.conclusion",
    "convnext.tasks.opening",
    "convnext.tasks.judged",
)
BATCH = 32  # images of one forward pass on a CPU


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
        batch: int = 0,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        threshold: float | None = None,
    ) -> Iterator[ClassificationPrediction]:
        """As for every predictor; `batch` images pass the network together, 0: as many as are usual.

        `threshold`: where an image may have several labels, from which score on each is an answer; None: that which the
        held-out images chose for its class.
        """
        if threshold is not None and not self.several:
            raise ConvNeXtError(
                f"threshold = {threshold:g} is for several labels an image; '{self.source}' names one. Leave it out."
            )
        make = partial(self.answers, top=top, threshold=threshold)
        return self._many(images, channel_order, workers, skipped, make, batch)

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.recipe.labels == "multi"

    @cached_property
    def thresholds(self) -> Thresholds:
        """From which score on each class is an answer, where an image may have several labels."""
        return Thresholds.of(self.metadata, len(self.classes), self.source)

    def _require_labels(self, labels: Literal["single", "multi"]) -> None:
        """Raise ConvNeXtError where images have another number of labels than the outcomes that are asked for."""
        if self.several != (labels == "multi"):
            how, way = ("several labels", "label_outcomes") if self.several else ("one label", "outcomes")
            raise ConvNeXtError(f"'{self.source}' gives an image {how}. Take {way}().")

    def explain(
        self,
        image: OneImage,
        *,
        classes: str | Sequence[str] | None = None,
        method: Method = "auto",
        stage: int | None = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Explanation:
        """Where on one image the reasons for `classes` are, by default for the likeliest.

        `method`: 'gradcam', 'layercam', or 'cam', the shares of the logit, where the network's head allows them; 'auto':
        gradcam. `stage`: whose maps are taken, from 0, by default the last; with 'auto' the last of at least 7 x 7
        positions. Raises DataError when the image cannot be read, ConvNeXtError for a class that is not known, and for a
        network or a file that has no maps to explain by.
        """
        how: dict[str, Any] = {"classes": classes, "method": method, "stage": stage}
        return self._one(image, channel_order, partial(self._explained, **how))

    def explain_many(
        self,
        images: ManyImages,
        *,
        classes: str | Sequence[str] | None = None,
        method: Method = "auto",
        stage: int | None = None,
        channel_order: ChannelOrder = "rgb",
        batch: int = BATCH,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Explanation]:
        """`explain` of many images, one after the other; images, workers and `skipped` are those of `predict`."""
        how: dict[str, Any] = {"classes": classes, "method": method, "stage": stage}
        return self._many(images, channel_order, workers, skipped, partial(self._explained, **how), batch)

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        images: str | Path | None = None,
        label_column: str | None = None,
        path_column: str | None = None,
        batch: int = 0,
        workers: int = 0,
        progress: bool = False,
        promise: float | None = None,
        sets: float | None = None,
        keep: bool = False,
    ) -> Evaluation:
        """Top-1, top-5, loss, calibration and confusion, as for every predictor; of several labels average precision.

        `images`: where those of a table are, if not beside it; `label_column`, `path_column`: which of its columns are meant,
        where they are others than the run's. `promise`: from which score on at least this share of the
        answers is right, with 95 % confidence, of several labels for each class; `sets`: sets of classes of which this share
        holds the right one. Both are measured on these images, of which a test part goes first where no `part` is named, as it
        did not choose the weights; with `keep` the checkpoint holds them from now on, for predictors and exports. Raises
        ConvNeXtError for shares that nobody can promise, where there is nothing to `keep`, and for `keep` of an exported file,
        which stays what was exported; DataError for a promise on images that the weights have learnt from.
        """
        conclusion, opening, judged = map(import_module, _FOR_LABELLED)
        wanted = conclusion.Wanted.of(promise, sets)
        wanted.require(several=self.several)
        if keep and not wanted:
            raise ConvNeXtError(
                "keep = True keeps a promise or sets, and none is asked for. Add promise=0.99, or sets=0.9."
            )
        columns = NamedColumns.of(label_column, path_column)
        source = opening.scored_source(data, self.recipe.task, images=images, columns=columns)
        if wanted and part is None:
            part = judged.judging_part(source, self.recipe, self.classes)
        return self._evaluated(source, part, Pass(workers, batch, progress), wanted, keep=keep)

    @abstractmethod
    def _evaluated(self, source: Source, part: str | None, how: Pass, wanted: "Wanted", *, keep: bool) -> Evaluation:
        """The scores on the images of recognised data."""

    @abstractmethod
    def outcomes(self, dataset: Dataset, how: Pass = PLAIN, *, only: Sequence[int] = ()) -> "Outcomes":
        """What the network makes of every readable image of a labelled dataset.

        `only`: the classes that may be answered, for data whose classes are a part of the network's; empty for all. Raises
        DataError where no image can be read, ConvNeXtError for an attack on an exported file, which has no gradients.
        """

    @abstractmethod
    def label_outcomes(self, dataset: Dataset, how: Pass = PLAIN) -> LabelOutcomes:
        """`outcomes` where an image may have several labels; unknown entries stay unknown."""

    @cached_property
    def decision(self) -> Decision:
        """How logits become an answer: what was fitted on held-out images, and travels with the weights."""
        return Decision.of(self.metadata, self.source)

    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """(N, K) of (N, H, W, C) images that `eval_transform` made."""
        logits = self._logits(images)
        if self.several:
            return probabilities(logits)
        return np.exp(self.decision.scale.log_scores(logits)).astype(np.float32)

    @abstractmethod
    def _logits(self, images: Pixels) -> NDArray[np.float32]:
        """(N, K) of (N, H, W, C) images that `eval_transform` made."""

    @abstractmethod
    def _explained(
        self, read: Sequence[Read], *, classes: str | Sequence[str] | None, method: Method, stage: int | None
    ) -> Iterable[Explanation]:
        """One explanation for each image."""

    @property
    def _transform(self) -> Transform:
        return partial(eval_transform, config=self.recipe.input)

    @property
    def _batch(self) -> int:
        return BATCH

    def answers(
        self,
        read: Sequence[Read],
        *,
        top: int | None = None,
        threshold: float | None = None,
        explain: str | None = None,
    ) -> Iterable[ClassificationPrediction]:
        """As for every predictor; `threshold` is that of `predict`.

        `explain`: each answer carries where the reasons for this class are; '': for the likeliest, None: for none.
        """
        found = self._scored(read, top, threshold)
        if explain is None:
            return found
        reasons = self._explained(read, classes=[explain] if explain else None, method="auto", stage=None)
        return (replace(one, explanation=reason) for one, reason in zip(found, reasons, strict=True))

    def _scored(
        self, read: Sequence[Read], top: int | None, threshold: float | None
    ) -> Iterable[ClassificationPrediction]:
        """What `answers` gives where nobody asks for reasons."""
        require_top(top)
        logits = self._logits(stacked(read))
        for one, row in zip(read, logits, strict=True):
            require_numbers(row, one.given.path, self.source)
        if self.several:
            yield from self._labels(read, probabilities(logits), top, threshold)
            return
        log_scores = self.decision.scale.log_scores(logits)
        scores = np.exp(log_scores).astype(np.float32)
        promise, sets = self.decision.promise, self.decision.sets
        sizes = sets.sizes(log_scores).tolist() if sets else [0] * len(read)
        for one, row, score, size in zip(read, logits, scores, sizes, strict=True):
            order = best_of(row, max(top or TOP, size))
            names, ps = [self.classes[k] for k in order.tolist()], score[order].tolist()
            yield ClassificationPrediction(
                classes=self.classes,
                scored=tuple(zip(names, ps, strict=True))[: top or TOP],
                answered=ps[0] >= promise.threshold if promise else None,
                label_set=tuple(names[:size]) if sets else None,
                **_about(one),
            )

    def _labels(
        self, read: Sequence[Read], scores: NDArray[np.float32], top: int | None, threshold: float | None
    ) -> Iterable[LabelsPrediction]:
        """Every class whose score reaches its threshold, or `threshold`; or else what was promised of it."""
        sure = self.thresholds.sure()
        least = np.minimum(self.thresholds.array(), sure) if threshold is None else np.full(len(sure), threshold)
        for one, row in zip(read, scores, strict=True):
            order = [int(k) for k in np.argsort(-row, kind="stable") if row[k] >= least[k]][:top]
            scored = tuple((self.classes[k], float(row[k])) for k in order)
            told = None if self.thresholds.promise is None else tuple(bool(row[k] >= sure[k]) for k in order)
            yield LabelsPrediction(classes=self.classes, scored=scored, sure=told, **_about(one))


def best_of(row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """(count,) places of the highest of (K,) values, the highest first, of equal ones the first; all where K is less.

    Those alone are sorted: of 20,000 classes an answer shows five.
    """
    if count >= len(row):
        return np.argsort(-row, kind="stable")
    least = np.partition(row, len(row) - count)[len(row) - count]
    places = np.flatnonzero(row >= least)
    return places[np.argsort(-row[places], kind="stable")][:count]


def _about(one: Read) -> dict[str, Any]:
    """What a prediction holds of its image."""
    return {"given": one.given, "image_id": one.image_id, "size": one.size, "frames": one.frames}


def stacked(read: Sequence[Read]) -> Pixels:
    """(N, H, W, C)."""
    return np.stack([one.shown for one in read])
