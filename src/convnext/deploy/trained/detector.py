"""The detector of a run or a checkpoint: torch computes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
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
from convnext.deploy.trained.replayed import ReplayedDetector, folded, images_of_a_pass
from convnext.tasks.detection.build import build
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.inference import find, images_of
from convnext.tasks.detection.metrics import Outcomes
from convnext.tasks.detection.scoring import evaluate as outcomes_of
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.result import Evaluation
from convnext.tasks.together import alike


class TrainedDetector(DetectionPredictor):
    """A detector with the weights of a checkpoint.

    On a GPU it answers with a folded backbone, replays what is the same work for all images of a size, and takes images of
    one size together; its evaluation replays `model` itself.
    """

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "TrainedDetector":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, DetectionRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    def _evaluated(self, source: Source, part: str | None, **how: Any) -> Evaluation:
        return evaluate(self._replayed, source, self.recipe, self.metadata, device=self.device, part=part, **how)

    def outcomes(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """As for every detector."""
        with answering(self.recipe, self.device):
            return outcomes_of(self._replayed, dataset, self.recipe, workers=workers, skipped=skipped)

    @cached_property
    def _network(self) -> ReplayedDetector:
        """What answers."""
        return ReplayedDetector(folded(self.model, self.device))

    @property
    def _replayed(self) -> ReplayedDetector:
        """What evaluation asks; its recorded runs go when it is done."""
        return ReplayedDetector(self.model)

    @property
    def _batch(self) -> int:
        return images_of_a_pass(self.device, self.recipe.input)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_network"}  # again when it is asked

    @property
    def _transform(self) -> Transform:
        return partial(sample_of, self.recipe.input)

    def _found(self, read: Sequence[Read]) -> Iterable[Found]:
        for group in alike(map(_placed, read), lambda sample: sample.image.shape, self._batch):
            with answering(self.recipe, self.device):
                found = find(self._network, group, self.recipe)
            yield from found

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                last: Tensor = self.model.backbone(images_of([one.shown], self.recipe, self.device).x)[-1]
            stride = self.model.backbone.strides[-1]
            rows, columns = (math.ceil(side / stride) for side in one.shown.image.shape[:2])  # the rest is padding
            yield last[0, :, :rows, :columns].float().mean((1, 2)).cpu().numpy()


def _placed(read: Read) -> Sample:
    """What was read, with its place in the image as it came."""
    seen: Sample = read.shown
    frame = Frame(seen.size[1] / read.size[1], seen.size[0] / read.size[0])  # 1, where it was decoded whole
    frame = frame.then(seen.frame.scale_x, seen.frame.scale_y, seen.frame.shift_x, seen.frame.shift_y)
    return replace(seen, path=read.given.path, image_id=read.image_id, size=read.size, frame=frame)
