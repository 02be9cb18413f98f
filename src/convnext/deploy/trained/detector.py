"""The detector of a run or a checkpoint: torch computes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from convnext.config import DetectionRecipe, expect
from convnext.data.dataset import DenseDataset
from convnext.data.sample import Frame, Sample
from convnext.data.source import Source
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.images import Read, Transform, sample_of
from convnext.deploy.predictor import Features
from convnext.deploy.trained.checkpoint import Trained
from convnext.tasks.detection.build import build
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.inference import find, images_of
from convnext.tasks.detection.metrics import Outcomes
from convnext.tasks.detection.scoring import evaluate as outcomes_of
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.result import Evaluation


class TrainedDetector(DetectionPredictor):
    """A detector with the weights of a checkpoint."""

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "TrainedDetector":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, DetectionRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    def _evaluated(self, source: Source, part: str | None, **how: Any) -> Evaluation:
        return evaluate(self.model, source, self.recipe, self.metadata, device=self.device, part=part, **how)

    def outcomes(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """As for every detector."""
        with answering(self.recipe, self.device):
            return outcomes_of(self.model, dataset, self.recipe, workers=workers, skipped=skipped)

    @property
    def _transform(self) -> Transform:
        return partial(sample_of, self.recipe.input)

    def _found(self, read: Read) -> Found:
        seen: Sample = read.shown
        frame = Frame(seen.size[1] / read.size[1], seen.size[0] / read.size[0])  # 1, where it was decoded whole
        frame = frame.then(seen.frame.scale_x, seen.frame.scale_y, seen.frame.shift_x, seen.frame.shift_y)
        sample = replace(seen, path=read.given.path, image_id=read.image_id, size=read.size, frame=frame)
        with answering(self.recipe, self.device):
            return find(self.model, sample, self.recipe)

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                last: Tensor = self.model.backbone(images_of([one.shown], self.recipe, self.device).x)[-1]
            stride = self.model.backbone.strides[-1]
            rows, columns = (math.ceil(side / stride) for side in one.shown.image.shape[:2])  # the rest is padding
            yield last[0, :, :rows, :columns].float().mean((1, 2)).cpu().numpy()
