"""The one inference path of classification: a run or a checkpoint in, class names with scores out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import ClassificationRecipe, Recipe, expect, parse
from convnext.data.evaluation import Change, eval_transform
from convnext.data.labelled import Dataset
from convnext.data.loader import eval_batches
from convnext.data.opening import open_unlabelled
from convnext.data.transforms import normalise
from convnext.deploy.exported import is_exported
from convnext.deploy.images import ImageInput, pixels_of
from convnext.deploy.optimize import optimize
from convnext.deploy.results import Prediction
from convnext.deploy.runtime import module_of
from convnext.deploy.trained import Trained, answering, read_trained
from convnext.engine.distributed import World, choose_device
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.kernels.dispatch import without_compiled
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.tasks.classification import Attacker, eval_batch, evaluate
from convnext.tasks.evaluation import Outcomes


@dataclass
class Predictor:
    """A trained network with everything it needs to answer: class names, preprocessing, precision, device.

    In float32 and bfloat16 on a CPU, `logits` and all that stand on it use `convnext.optimize(model)`, made at the first
    image, which is at least as exact; with `plain` they use `model` itself, as `evaluate` always does.
    """

    model: nn.Module
    recipe: ClassificationRecipe
    classes: tuple[str, ...]
    device: torch.device
    source: Path
    metadata: dict[str, Any] = field(repr=False)
    plain: bool = False

    @classmethod
    def of(cls, trained: Trained, device: torch.device, *, plain: bool = False) -> "Predictor":
        """The predictor of a checkpoint."""
        model = trained.into(build_model(trained.recipe.model), device)
        recipe = expect(trained.recipe, ClassificationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata, plain)

    def __call__(self, image: ImageInput, *, top: int = 5) -> Prediction:
        """The `top` classes of one image: a path, encoded bytes, a PIL image or a (H, W, C) uint8 array.

        Raises DataError when the image cannot be read.
        """
        name, decoded = pixels_of(image, len(self.recipe.input.mean))
        ready = torch.from_numpy(eval_transform(decoded, self.recipe.input))[None]
        return self._top(self.logits(ready), [name], top)[0]

    def predict(
        self,
        paths: str | Path | Iterable[str | Path] | Dataset,
        *,
        top: int = 5,
        batch: int = 32,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions for files, folders, globs or zips, in order. Broken images are left out, noted in `skipped`."""
        if not isinstance(paths, Dataset):
            paths = open_unlabelled([str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)])
        for raw in eval_batches(paths, self.recipe.input, batch=batch, workers=workers):
            if skipped is not None:
                skipped.update(raw.skipped)
            if len(raw.indices):
                names = [paths.entries[i].path for i in raw.indices.tolist()]
                yield from self._top(self.logits(raw.images), names, top)

    def evaluate(
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
    def _folded(self) -> nn.Module | None:
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

    def _top(self, logits: Tensor, names: list[str], top: int) -> list[Prediction]:
        scores, order = logits.softmax(1).topk(min(top, len(self.classes)))
        return [
            Prediction(name, tuple((self.classes[k], p) for k, p in zip(ks, ps, strict=True)))
            for name, ks, ps in zip(names, order.tolist(), scores.tolist(), strict=True)
        ]


def of_exported(source: str | Path, *, backend: str = "auto") -> Predictor:
    """The predictor of a file that `convnext export` wrote: the same path, another runtime under it, on the CPU.

    `backend`: 'onnxruntime', 'openvino' or 'auto'. Raises CheckpointError for a file that is missing, damaged or foreign.
    """
    network = module_of(source, backend=backend)
    described = network.exported.description
    recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
    place = torch.device("cpu")
    return Predictor(network, recipe, tuple(described["classes"]), place, Path(source), described, plain=True)


def load(source: str | Path, *, weights: str = "best", device: str = "auto", plain: bool = False) -> Predictor:
    """The classifier of a run folder or of a single checkpoint file; `deploy.load` takes runs of every task.

    `weights`: 'best' (raw or EMA, whichever scored higher), 'raw', 'ema' or 'last'; a file has only its own.
    A file of `convnext export` runs on the CPU. `plain`: nothing is folded. Raises CheckpointError when there is
    nothing to load, it is damaged, or of another task.
    """
    if is_exported(source):
        return of_exported(source)
    trained = read_trained(source, weights)
    if trained.recipe.task != "classification":
        raise CheckpointError(
            f"'{source}' is for {trained.recipe.task}, and a classifier is needed here. Name a run of class folders."
        )
    return Predictor.of(trained, choose_device(device), plain=plain)
