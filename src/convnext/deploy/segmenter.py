"""A trained segmenter: a class for every pixel out, at the size of the images as they came."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convnext.config import SegmentationRecipe, expect
from convnext.data.dataset import DenseDataset
from convnext.data.transforms import normalise
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage, Pixels, Read, Transform, sample_of
from convnext.deploy.prediction import SegmentationPrediction
from convnext.deploy.predictor import Features, Predictor, require_numbers, require_top
from convnext.deploy.trained import Trained
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.opening import scored_source
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.inference import predict
from convnext.tasks.segmentation.metrics import Outcomes
from convnext.tasks.segmentation.scoring import evaluate as outcomes_of


class SegmentationPredictor(Predictor[SegmentationPrediction]):
    """A trained segmenter."""

    recipe: SegmentationRecipe

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "SegmentationPredictor":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, SegmentationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

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
        how: dict[str, Any] = {"device": self.device, "part": part, "workers": workers, "progress": progress}
        found = evaluate(self.model, source, self.recipe, self.metadata, multi_scale=multi_scale, **how)
        return found.without("details")

    def outcomes(
        self,
        dataset: DenseDataset,
        *,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        multi_scale: bool = False,
    ) -> Outcomes:
        """What the network makes of every readable image of an annotated dataset; broken ones go into `skipped`."""
        with answering(self.recipe, self.device):
            return outcomes_of(
                self.model, dataset, self.recipe, workers=workers, skipped=skipped, multi_scale=multi_scale
            )

    @property
    def _transform(self) -> Transform:
        return _whole

    def answers(
        self, read: Sequence[Read], *, top: int | None = None, multi_scale: bool = False
    ) -> Iterable[SegmentationPrediction]:
        require_top(top)
        for one in read:
            with answering(self.recipe, self.device):
                mask, scores = predict(self.model, one.shown, self.recipe, multi_scale=multi_scale)
            require_numbers(scores, one.given.path, self.source)
            yield SegmentationPrediction(
                given=one.given,
                image_id=one.image_id,
                size=(
                    mask.shape[0],
                    mask.shape[1],
                ),  # of one that is too large to be decoded whole, less than the image's
                classes=self.classes,
                mask=mask,
                scores=scores,
                top=top,
            )

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                shown = torch.from_numpy(sample_of(self.recipe.input, one.shown).image)[None]
                last = self.model.backbone(normalise(shown.to(self.device), self.recipe.input))[-1]
            yield last.float().mean((2, 3))[0].cpu().numpy()


def _whole(pixels: Pixels) -> Pixels:
    """An image as it is: `predict` resizes it, since it answers in the original's size."""
    return pixels
