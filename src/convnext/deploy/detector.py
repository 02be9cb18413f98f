"""A trained detector: boxes, masks and class names out, in pixels of the images as they came."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnext.config import DetectionRecipe, expect
from convnext.data.dataset import DenseDataset
from convnext.data.sample import Frame, Sample
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage, Read, Transform, sample_of
from convnext.deploy.prediction import DetectionPrediction
from convnext.deploy.predictor import Features, Predictor, require_top
from convnext.deploy.trained import Trained
from convnext.tasks.detection.build import build
from convnext.tasks.detection.inference import Found, find, images_of
from convnext.tasks.detection.metrics import Outcomes
from convnext.tasks.detection.scoring import evaluate as outcomes_of
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.opening import scored_source
from convnext.tasks.result import Evaluation

SHOWN = 0.5  # least score of what is shown, unless one asks for another


class DetectionPredictor(Predictor[DetectionPrediction]):
    """A trained detector of boxes, and of masks where it was trained on them."""

    recipe: DetectionRecipe

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "DetectionPredictor":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, DetectionRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's number of each class."""
        return tuple(self.metadata.get("category_ids") or range(1, len(self.classes) + 1))

    def __call__(
        self, image: OneImage, *, top: int | None = None, score: float = SHOWN, channel_order: ChannelOrder = "rgb"
    ) -> DetectionPrediction:
        """As for every predictor; only objects with at least this `score`."""
        return self._one(image, channel_order, partial(self.answers, top=top, score=score))

    def predict(
        self,
        images: ManyImages,
        *,
        top: int | None = None,
        score: float = SHOWN,
        channel_order: ChannelOrder = "rgb",
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[DetectionPrediction]:
        """As for every predictor; only objects with at least this `score`."""
        return self._many(images, channel_order, workers, skipped, partial(self.answers, top=top, score=score))

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        images: str | Path | None = None,
        form: str | None = None,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """Average precision of boxes and masks, as for every predictor.

        `images`: where they are, if not beside the annotations; `form`: of the annotations, if not recognised.
        """
        source = scored_source(data, self.recipe.task, images=images, form=form)
        how: dict[str, Any] = {"device": self.device, "part": part, "workers": workers, "progress": progress}
        return evaluate(self.model, source, self.recipe, self.metadata, **how).without("details")

    def outcomes(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """What the network finds in every readable image of an annotated dataset; broken ones go into `skipped`."""
        with answering(self.recipe, self.device):
            return outcomes_of(self.model, dataset, self.recipe, workers=workers, skipped=skipped)

    @property
    def _transform(self) -> Transform:
        return partial(sample_of, self.recipe.input)

    def answers(
        self, read: Sequence[Read], *, top: int | None = None, score: float = SHOWN
    ) -> Iterable[DetectionPrediction]:
        require_top(top)
        for one in read:
            seen: Sample = one.shown
            frame = Frame(seen.size[1] / one.size[1], seen.size[0] / one.size[0])  # 1, where it was decoded whole
            frame = frame.then(seen.frame.scale_x, seen.frame.scale_y, seen.frame.shift_x, seen.frame.shift_y)
            sample = replace(seen, path=one.given.path, image_id=one.image_id, size=one.size, frame=frame)
            with answering(self.recipe, self.device):
                found = find(self.model, sample, self.recipe).above(score)
            yield self._prediction(one, found.first(top or len(found)))

    def _prediction(self, read: Read, found: Found) -> DetectionPrediction:
        names = dict(zip(self.category_ids, self.classes, strict=True))
        rows = ({**row, "file_name": found.path} for row in found.rows(self.category_ids))
        return DetectionPrediction(
            given=read.given,
            image_id=read.image_id,
            size=read.size,
            classes=self.classes,
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
            outlines=found.masks,
            rows=tuple({**row, "category": names[row["category_id"]]} for row in rows),
        )

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                last: Tensor = self.model.backbone(images_of([one.shown], self.recipe, self.device).x)[-1]
            stride = self.model.backbone.strides[-1]
            rows, columns = (math.ceil(side / stride) for side in one.shown.image.shape[:2])  # the rest is padding
            yield last[0, :, :rows, :columns].float().mean((1, 2)).cpu().numpy()
