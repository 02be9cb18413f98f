"""The segmenter of a run: torch computes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnext.config import SegmentationRecipe, expect
from convnext.data.dataset import DenseDataset
from convnext.data.source import Source
from convnext.data.transforms import normalise
from convnext.deploy.images import Pixels, Read, sample_of
from convnext.deploy.predictor import Features
from convnext.deploy.segmenter import SegmentationPredictor
from convnext.deploy.trained.checkpoint import Trained
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.inference import predict, seen_logits
from convnext.tasks.segmentation.metrics import Outcomes
from convnext.tasks.segmentation.scoring import evaluate as outcomes_of


class TrainedSegmenter(SegmentationPredictor):
    """The segmenter of a run or a checkpoint."""

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "TrainedSegmenter":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, SegmentationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    def _evaluated(self, source: Source, part: str | None, **how: Any) -> Evaluation:
        return evaluate(self.model, source, self.recipe, self.metadata, device=self.device, part=part, **how)

    def outcomes(
        self,
        dataset: DenseDataset,
        *,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        multi_scale: bool = False,
    ) -> Outcomes:
        """As for every segmenter."""
        with answering(self.recipe, self.device):
            return outcomes_of(
                self.model, dataset, self.recipe, workers=workers, skipped=skipped, multi_scale=multi_scale
            )

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(K, H, W) float32 logits of an image at the size of evaluation, in float32."""
        with torch.inference_mode():
            found: NDArray[np.float32] = seen_logits(self.model, image, self.recipe).cpu().numpy()
        return found

    def _labelled(self, image: Pixels, multi_scale: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        with answering(self.recipe, self.device):
            return predict(self.model, image, self.recipe, multi_scale=multi_scale)

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                shown = torch.from_numpy(sample_of(self.recipe.input, one.shown).image)[None]
                last = self.model.backbone(normalise(shown.to(self.device), self.recipe.input))[-1]
            yield last.float().mean((2, 3))[0].cpu().numpy()
