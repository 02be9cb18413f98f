"""The classifier of a run: torch computes, on the network as it was trained or folded.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import ClassificationRecipe, Recipe, expect, parse
from convnext.data.evaluation import Change
from convnext.data.labelled import Dataset
from convnext.data.opening import open_labelled, recognise
from convnext.data.store import printable
from convnext.data.transforms import normalise
from convnext.deploy.classifier import BATCH, ClassificationPredictor, stacked
from convnext.deploy.evaluation import Evaluation
from convnext.deploy.images import Pixels, Read
from convnext.deploy.optimize import optimize
from convnext.deploy.predictor import Features
from convnext.deploy.runtime import module_of
from convnext.deploy.trained import Trained, answering
from convnext.engine.distributed import World
from convnext.errors import ConvNeXtError, DataError
from convnext.kernels.dispatch import without_compiled
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.tasks.classification import Attacker, eval_batch, evaluate, held_out
from convnext.tasks.evaluation import Outcomes, report


@dataclass(repr=False)
class TrainedClassifier(ClassificationPredictor):
    """The classifier of a run or a checkpoint.

    In float32 and bfloat16 on a CPU, `logits` and all that stand on it use `convnext.optimize(model)`, made at the first
    image, which is at least as exact; with `plain` they use `model` itself, as `evaluate` always does.
    """

    plain: bool = False

    @classmethod
    def of(cls, trained: Trained, device: torch.device, *, plain: bool = False) -> "TrainedClassifier":
        """The predictor of a checkpoint."""
        model = trained.into(build_model(trained.recipe.model), device)
        recipe = expect(trained.recipe, ClassificationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata, plain)

    @classmethod
    def of_exported(cls, source: str | Path, *, backend: str = "auto") -> "TrainedClassifier":
        """The predictor of a file that `convnext export` wrote: another runtime under the same calls, on the CPU.

        `backend`: 'onnxruntime', 'openvino' or 'auto'. Raises CheckpointError for a file that is missing, damaged or
        foreign.
        """
        network = module_of(source, backend=backend)
        described = network.exported.description
        recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
        place = torch.device("cpu")
        return cls(network, recipe, tuple(described["classes"]), place, Path(source), described, plain=True)

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        batch: int = BATCH,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """Top-1, top-5, loss, calibration and confusion, as for every predictor."""
        source = recognise(data, annotated=False)
        held = held_out(source, self.metadata) if part in (None, "val") else None
        dataset = open_labelled(source, classes=self.classes, split=_split(part)) if held is None else held
        skipped: dict[str, str] = {}
        outcomes = self.outcomes(dataset, batch=batch, workers=workers, skipped=skipped, progress=progress)
        result = report(outcomes, self.classes, [printable(entry.path) for entry in dataset.entries])
        return Evaluation(result | {"skipped": skipped, "weights": self.metadata.get("weights", "raw")})

    def outcomes(
        self,
        dataset: Dataset,
        *,
        workers: int = 0,
        batch: int = 0,
        skipped: dict[str, str] | None = None,
        change: Change | None = None,
        attack: Attacker | None = None,
        only: Sequence[int] = (),
        progress: bool = False,
    ) -> Outcomes:
        """What the network makes of every readable image of a labelled dataset; broken ones are noted in `skipped`.

        `change`, `attack`, `only` and `progress` are those of `convnext.tasks.classification.evaluate`.
        """
        size = batch or eval_batch(self.recipe)
        with answering(self.recipe, self.device):
            return evaluate(
                self.model,
                dataset,
                self.recipe.input,
                batch=size,
                workers=workers,
                world=World(),
                skipped=skipped,
                change=change,
                attack=attack,
                only=only,
                progress=progress,
            )

    def logits(self, images: Tensor) -> Tensor:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made."""
        if self._folded is not None:
            with torch.inference_mode():
                return self._folded(images.permute(0, 3, 1, 2)).float()
        with answering(self.recipe, self.device):
            return self.model(normalise(images.to(self.device), self.recipe.input)).float()

    @cached_property
    def _folded(self) -> Any:
        """The network from pixels to logits with less to do, where it answers as exactly."""
        ours = isinstance(self.model, ConvNeXt) and all(parameter.is_cpu for parameter in self.model.parameters())
        bf16 = self.recipe.precision == "bf16" and not without_compiled()
        if self.plain or not ours or not (bf16 or self.recipe.precision == "fp32"):
            return None
        mean, std = ([255 * v for v in values] for values in (self.recipe.input.mean, self.recipe.input.std))
        try:
            return optimize(self.model, mean=mean, std=std, matmul_dtype=torch.bfloat16 if bf16 else None)
        except ConvNeXtError:  # someone put other layers into `model`; it answers itself
            return None

    def probabilities(self, images: Pixels) -> NDArray[np.float32]:
        """(N, K) of (N, H, W, C) images that `eval_transform` made."""
        found: NDArray[np.float32] = self.logits(torch.from_numpy(images)).softmax(1).cpu().numpy()
        return found

    def _features(self, read: Sequence[Read]) -> Iterable[Features]:
        images = torch.from_numpy(stacked(read))
        if self._folded is not None:
            with torch.inference_mode():
                found: Tensor = self._folded.embed(images.permute(0, 3, 1, 2))
        else:
            with answering(self.recipe, self.device):
                found = self.model.embed(normalise(images.to(self.device), self.recipe.input))
        return list(found.float().cpu().numpy())


def _split(part: str | None) -> Any:
    """The part of class folders that is asked for."""
    if part not in (None, "train", "val"):
        raise DataError(f"part = '{part}' is refused: class folders have 'train' and 'val'.")
    return part or "val"
