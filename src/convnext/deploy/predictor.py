"""The one inference path: a run or a checkpoint in, class names with scores out."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from convnext.config import Recipe, parse
from convnext.data.decode import decode
from convnext.data.loader import Change, eval_batches
from convnext.data.source import Dataset, open_unlabelled
from convnext.data.transforms import eval_transform, normalise
from convnext.engine import checkpoint
from convnext.engine.distributed import World, choose_device
from convnext.engine.run import weights_file
from convnext.engine.update import autocast
from convnext.errors import CheckpointError
from convnext.models.build import build_model
from convnext.tasks.classification import Attacker, eval_batch, evaluate
from convnext.tasks.evaluation import Outcomes


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture: (label, score) from likely to unlikely; scores are probabilities."""

    path: str
    predictions: tuple[tuple[str, float], ...]


@dataclass
class Predictor:
    """A trained network with everything it needs to answer: class names, preprocessing, precision, device."""

    model: nn.Module
    recipe: Recipe
    classes: tuple[str, ...]
    device: torch.device
    source: Path
    metadata: dict[str, Any] = field(repr=False)

    def __call__(self, picture: str | Path | bytes | Image.Image | NDArray[np.uint8], *, top: int = 5) -> Prediction:
        """The `top` classes of one picture: a path, encoded bytes, a PIL image or a (H, W, C) uint8 array.

        Raises DataError when the picture cannot be read.
        """
        name, pixels = _pixels(picture, len(self.recipe.input.mean))
        ready = torch.from_numpy(eval_transform(pixels, self.recipe.input))[None]
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
        """Predictions for files, folders, globs or zips, in order. Broken pictures are left out, noted in `skipped`."""
        if not isinstance(paths, Dataset):
            paths = open_unlabelled([str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)])
        for raw in eval_batches(paths, self.recipe.input, batch=batch, workers=workers):
            if skipped is not None:
                skipped.update(raw.skipped)
            if len(raw.indices):
                names = [paths.entries[i].path for i in raw.indices.tolist()]
                yield from self._top(self.logits(raw.pictures), names, top)

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
    ) -> Outcomes:
        """What the network makes of every readable picture of a labelled dataset; broken ones are noted in `skipped`.

        `change`, `attack` and `only` are those of `convnext.tasks.classification.evaluate`.
        """
        size = batch or eval_batch(self.recipe)
        with torch.inference_mode(), autocast(self.recipe.precision, self.device.type):
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
            )

    def logits(self, pictures: Tensor) -> Tensor:
        """(N, K) float32 logits of (N, H, W, C) uint8 pictures that `eval_transform` made."""
        with torch.inference_mode(), autocast(self.recipe.precision, self.device.type):
            return self.model(normalise(pictures.to(self.device), self.recipe.input)).float()

    def _top(self, logits: Tensor, names: list[str], top: int) -> list[Prediction]:
        scores, order = logits.softmax(1).topk(min(top, len(self.classes)))
        return [
            Prediction(name, tuple((self.classes[k], p) for k, p in zip(ks, ps, strict=True)))
            for name, ks, ps in zip(names, order.tolist(), scores.tolist(), strict=True)
        ]


def load(source: str | Path, *, weights: str = "best", device: str = "auto") -> Predictor:
    """The predictor of a run folder or of a single checkpoint file.

    `weights`: 'best' (raw or EMA, whichever scored higher), 'raw', 'ema' or 'last'; a file has only its own.
    Raises CheckpointError when there is nothing to load or it is damaged.
    """
    path = Path(source)
    if not path.exists():
        raise CheckpointError(f"There is no run or checkpoint at '{path}'.")
    file = weights_file(path, weights) if path.is_dir() else path
    tensors, metadata = checkpoint.read(file)
    recipe: Recipe = parse(Recipe, metadata["recipe"], where=f"'{file}'")
    model = build_model(recipe.model)
    model.load_state_dict(checkpoint.of("model", tensors) or tensors)
    place = choose_device(device)
    model = model.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return Predictor(model, recipe, tuple(metadata["classes"]), place, file, metadata)


def _pixels(picture: Any, channels: int) -> tuple[str, NDArray[np.uint8]]:
    """A name for messages and (H, W, C) uint8 of any of the forms that `Predictor` takes."""
    if isinstance(picture, str | Path):
        entry = open_unlabelled([str(picture)])
        name = entry.entries[0].path
        return name, decode(entry.store.read(name), channels=channels)
    if isinstance(picture, bytes):
        return "<bytes>", decode(picture, channels=channels)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    stream = io.BytesIO()
    picture.save(stream, "png")
    return "<image>", decode(stream.getvalue(), channels=channels)
