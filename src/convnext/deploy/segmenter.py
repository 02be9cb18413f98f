"""A segmenter as its users see it: a class for every pixel out, at the size of the images as they came. No torch here."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import SegmentationRecipe
from convnext.data.dataset import DenseDataset
from convnext.data.source import Source
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage, Pixels, Read, Transform
from convnext.deploy.prediction import SegmentationPrediction
from convnext.deploy.predictor import Predictor, require_numbers, require_top
from convnext.tasks.opening import scored_source
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.metrics import Outcomes

Labelled = tuple[NDArray[np.uint8], NDArray[np.float32]]


class SegmentationPredictor(Predictor[SegmentationPrediction]):
    """A trained segmenter."""

    recipe: SegmentationRecipe

    def __call__(
        self, image: OneImage, *, top: int | None = None, multi_scale: bool = False, channel_order: ChannelOrder = "rgb"
    ) -> SegmentationPrediction:
        """As for every predictor; `multi_scale`: at the scales of the recipe, with flips."""
        return self._one(image, channel_order, partial(self.answers, top=top, multi_scale=multi_scale))

    def predict(
        self,
        images: ManyImages,
        *,
        top: int | None = None,
        multi_scale: bool = False,
        channel_order: ChannelOrder = "rgb",
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[SegmentationPrediction]:
        """As for every predictor; `multi_scale`: at the scales of the recipe, with flips."""
        make = partial(self.answers, top=top, multi_scale=multi_scale)
        return self._many(images, channel_order, workers, skipped, make)

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        images: str | Path | None = None,
        form: str | None = None,
        colours: str | Path | None = None,
        multi_scale: bool = False,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """IoU, accuracy and confusion, as for every predictor.

        `images`: where they are, if not beside the masks; `form`: of the annotations, if not recognised; `colours`: a
        file that names the colours of masks.
        """
        source = scored_source(data, self.recipe.task, images=images, form=form, colours=colours)
        how: dict[str, Any] = {"multi_scale": multi_scale, "workers": workers, "progress": progress}
        return self._evaluated(source, part, **how).without("details")

    @abstractmethod
    def _evaluated(
        self, source: Source, part: str | None, *, multi_scale: bool, workers: int, progress: bool
    ) -> Evaluation:
        """The scores on the images of recognised data."""

    @abstractmethod
    def outcomes(
        self,
        dataset: DenseDataset,
        *,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        multi_scale: bool = False,
    ) -> Outcomes:
        """What the network makes of every readable image of an annotated dataset; broken ones go into `skipped`."""

    @abstractmethod
    def _labelled(self, images: Sequence[Pixels], multi_scale: bool) -> Iterable[Labelled]:
        """(H, W) classes and (H, W) their scores of each image as it came."""

    @property
    def _transform(self) -> Transform:
        return _whole

    def answers(
        self, read: Sequence[Read], *, top: int | None = None, multi_scale: bool = False
    ) -> Iterable[SegmentationPrediction]:
        require_top(top)
        answers = self._labelled([one.shown for one in read], multi_scale)
        for one, (mask, scores) in zip(read, answers, strict=True):
            require_numbers(scores, one.given.path, self.source)
            yield SegmentationPrediction(
                given=one.given,
                image_id=one.image_id,
                frames=one.frames,
                size=(
                    mask.shape[0],
                    mask.shape[1],
                ),  # of one that is too large to be decoded whole, less than the image's
                classes=self.classes,
                mask=mask,
                scores=scores,
                top=top,
            )


def _whole(pixels: Pixels) -> Pixels:
    """An image as it is: `predict` resizes it, since it answers in the original's size."""
    return pixels
