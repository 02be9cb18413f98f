"""The classifier of a run: torch computes, on the network as it was trained or folded.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import ClassificationRecipe, expect
from convnext.data.labelled import Dataset
from convnext.data.source import Source
from convnext.data.transforms import normalise
from convnext.deploy.classifier import BATCH, ClassificationPredictor, stacked
from convnext.deploy.explain import explanations, numbers_of
from convnext.deploy.explanation import Explanation, Method
from convnext.deploy.folded import Folded
from convnext.deploy.images import Pixels, Read
from convnext.deploy.optimize import optimize
from convnext.deploy.predictor import Features, require_numbers
from convnext.deploy.trained.checkpoint import Trained
from convnext.engine.forks import tell_once
from convnext.engine.room import images_together
from convnext.engine.run import amend_whole
from convnext.errors import ConvNeXtError
from convnext.kernels.dispatch import without_compiled
from convnext.kernels.graphs import Graphs
from convnext.kernels.transfer import queued, sent
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.streams import tell
from convnext.tasks.classification.conclusion import GIVEN, TEST, Wanted
from convnext.tasks.classification.decision import KEY, Decision
from convnext.tasks.classification.inference import logits as in_halves
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.passing import PLAIN, Pass
from convnext.tasks.classification.scoring import evaluate as outcomes_of
from convnext.tasks.classification.several import thresholds
from convnext.tasks.classification.several.metrics import Outcomes as LabelOutcomes
from convnext.tasks.classification.several.scoring import evaluate as label_outcomes_of
from convnext.tasks.evaluate import answering, evaluate
from convnext.tasks.result import Evaluation


@dataclass(repr=False)
class TrainedClassifier(ClassificationPredictor):
    """The classifier of a run or a checkpoint.

    In float32 and bfloat16 on a CPU, and in any precision on a GPU, `logits` and all that stand on it use
    `convnext.optimize(model)`, made at the first image, which is at least as exact; a GPU replays batches of a shape that it
    has seen as CUDA graphs. With `plain` they use `model` itself, as `evaluate` always does.
    """

    plain: bool = False

    @classmethod
    def of(cls, trained: Trained, device: torch.device, *, plain: bool = False) -> "TrainedClassifier":
        """The predictor of a checkpoint."""
        model = trained.into(build_model(trained.recipe.model), device)
        recipe = expect(trained.recipe, ClassificationRecipe)
        Decision.of(trained.metadata, trained.source)  # a wrong one is refused now
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata, plain)

    def _evaluated(self, source: Source, part: str | None, how: Pass, wanted: Wanted, *, keep: bool) -> Evaluation:
        """Raises ConvNeXtError where there is no checkpoint to `keep` it."""
        found = evaluate(
            self.model,
            source,
            self.recipe,
            self.metadata,
            device=self.device,
            part=part,
            workers=how.workers,
            progress=how.progress,
            run=self.source.parent,
            batch=how.batch or self._batch,
            wanted=wanted,
            measured=TEST if part == TEST else GIVEN,
            **{"thresholds": self.thresholds} if self.several else {"decision": self.decision},
        )
        if keep:
            key = thresholds.KEY if self.several else KEY
            amend_whole(self.source, {key: found.about[key]})
        return found

    def outcomes(self, dataset: Dataset, how: Pass = PLAIN, *, only: Sequence[int] = ()) -> Outcomes:
        """As for every classifier."""
        self._require_labels("single")
        with answering(self.recipe, self.device):
            return outcomes_of(self.model, dataset, self.recipe, how, only=only, scale=self.decision.scale)

    def label_outcomes(self, dataset: Dataset, how: Pass = PLAIN) -> LabelOutcomes:
        """As for every classifier."""
        self._require_labels("multi")
        with answering(self.recipe, self.device):
            return label_outcomes_of(self.model, dataset, self.recipe, how)

    def logits(self, images: Tensor) -> Tensor:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made."""
        if self._folded is not None and self._takes_pixels:
            tell_once()
            with torch.inference_mode():
                return self._folded(images.permute(0, 3, 1, 2)).float()
        with answering(self.recipe, self.device):
            return in_halves(self._network, normalise(sent(images, self.device), self.recipe.input)).float()

    @cached_property
    def _network(self) -> Any:
        """What answers to normalised images."""
        return self.model if self.plain else Graphs(self._folded or self.model, tell)

    @property
    def _batch(self) -> int:
        """On a GPU as many as fit."""
        config = self.recipe.input
        return images_together(self.device, config.eval_size_px**2 * len(config.mean), BATCH)

    @cached_property
    def _takes_pixels(self) -> bool:
        """Whether mean and deviation are folded too: not on a GPU, whose 16 bits would round their difference."""
        return all(parameter.is_cpu for parameter in self.model.parameters())

    @cached_property
    def _folded(self) -> Any:
        """The network from pixels to logits with less to do, where it answers as exactly."""
        if self.plain or not isinstance(self.model, ConvNeXt):
            return None
        try:
            if queued(self.device):
                return optimize(self.model)
            bf16 = self.recipe.precision == "bf16" and not without_compiled()
            if not self._takes_pixels or not (bf16 or self.recipe.precision == "fp32"):
                return None
            white = 1 if self.recipe.input.wide else 255
            mean, std = ([white * v for v in values] for values in (self.recipe.input.mean, self.recipe.input.std))
            made: Any = optimize(self.model, mean=mean, std=std, matmul_dtype=torch.bfloat16 if bf16 else None)
        except ConvNeXtError:  # someone put other layers into `model`; it answers itself
            return None
        if isinstance(made, Folded) and self.recipe.input.eval_size_px >= made.config.patch:
            made.release()
        return made

    def __getstate__(self) -> dict[str, Any]:
        made = ("_folded", "_network")  # again when they are asked
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def _logits(self, images: Pixels) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.logits(torch.from_numpy(images)).cpu().numpy()
        return found

    def _explained(
        self, read: Sequence[Read], *, classes: str | Sequence[str] | None, method: Method, stage: int | None
    ) -> Iterable[Explanation]:
        scores = self.probabilities(stacked(read))
        if not scores.shape[1] or self.recipe.model.classes == 0:
            raise ConvNeXtError(
                f"'{self.source}' has no head, and so no classes to explain. Name a run, or weights with one."
            )
        for one, row in zip(read, scores, strict=True):
            require_numbers(row, one.given.path, self.source)
        names = self.classes or tuple(map(str, range(scores.shape[1])))  # weights may not say them
        how: dict[str, Any] = {"device": self.device, "method": method, "stage": stage}
        return explanations(self.model, read, self.recipe, scores, names, classes=numbers_of(classes, names), **how)

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        images = torch.from_numpy(stacked(read))
        if self._folded is not None and self._takes_pixels:
            tell_once()
            with torch.inference_mode():
                found: Tensor = self._folded.embed(images.permute(0, 3, 1, 2))
        else:
            with answering(self.recipe, self.device):
                found = (self._folded or self.model).embed(normalise(sent(images, self.device), self.recipe.input))
        return list(found.float().cpu().numpy())
