"""The segmenter of a run: torch computes."""

from collections.abc import Iterable, Sequence
from functools import cached_property
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
from convnext.deploy.segmenter import Labelled, SegmentationPredictor
from convnext.deploy.trained.checkpoint import Trained
from convnext.deploy.trained.replayed import folded, images_of_a_pass
from convnext.kernels.graphs import Graphs
from convnext.streams import tell
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.result import Evaluation
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.inference import predict, seen_logits
from convnext.tasks.segmentation.metrics import Outcomes
from convnext.tasks.segmentation.scoring import evaluate as outcomes_of
from convnext.tasks.together import alike


class TrainedSegmenter(SegmentationPredictor):
    """The segmenter of a run or a checkpoint.

    On a GPU it answers with a folded backbone, replays its work for images of a size that it has seen, and takes images
    of one size together; its evaluation replays `model` itself.
    """

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "TrainedSegmenter":
        """The predictor of a checkpoint."""
        model = trained.into(build(trained.recipe), device)
        recipe = expect(trained.recipe, SegmentationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    def _evaluated(self, source: Source, part: str | None, **how: Any) -> Evaluation:
        return evaluate(self._replayed, source, self.recipe, self.metadata, device=self.device, part=part, **how)

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
                self._replayed, dataset, self.recipe, workers=workers, skipped=skipped, multi_scale=multi_scale
            )

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(K, H, W) float32 logits of an image at the size of evaluation, in float32."""
        with torch.inference_mode():
            found: NDArray[np.float32] = seen_logits(self.model, image, self.recipe).cpu().numpy()
        return found

    @cached_property
    def _network(self) -> Graphs:
        """What answers."""
        return Graphs(folded(self.model, self.device), tell)

    @property
    def _replayed(self) -> Graphs:
        """What evaluation asks; its recorded runs go when it is done."""
        return Graphs(self.model, tell)

    @property
    def _batch(self) -> int:
        return images_of_a_pass(self.device, self.recipe.input)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_network"}  # again when it is asked

    def _labelled(self, images: Sequence[Pixels], multi_scale: bool) -> Iterable[Labelled]:
        for group in alike(images, np.shape, self._batch):
            with answering(self.recipe, self.device):
                found = predict(self._network, group, self.recipe, multi_scale=multi_scale)
            yield from found

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        for one in read:
            with answering(self.recipe, self.device):
                shown = torch.from_numpy(sample_of(self.recipe.input, one.shown).image)[None]
                last = self.model.backbone(normalise(shown.to(self.device), self.recipe.input))[-1]
            yield last.float().mean((2, 3))[0].cpu().numpy()
