"""The classifier in an exported file: the same calls as a run's predictor, in NumPy, so that a server needs no torch.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.config import ClassificationRecipe, Recipe, parse
from convnext.data.evaluation import eval_transform, normalised, shown_batches
from convnext.data.labelled import Dataset
from convnext.data.opening import open_unlabelled
from convnext.deploy.exported import Exported, Floats, open_exported
from convnext.deploy.images import ImageInput, pixels_of
from convnext.deploy.results import Prediction
from convnext.engine.machine import cores

_MOST_THREADS = 8  # that read images


@dataclass(frozen=True)
class ExportedPredictor:
    """A network in a file with everything that it needs to answer: class names and preprocessing."""

    network: Exported
    recipe: ClassificationRecipe
    classes: tuple[str, ...]
    source: Path
    metadata: dict[str, Any] = field(repr=False)

    def __call__(self, image: ImageInput, *, top: int = 5) -> Prediction:
        """The `top` classes of one image: a path, encoded bytes, a PIL image or a (H, W, C) uint8 array.

        Raises DataError when the image cannot be read.
        """
        name, decoded = pixels_of(image, len(self.recipe.input.mean))
        return self._top(self.logits(eval_transform(decoded, self.recipe.input)[None]), [name], top)[0]

    def predict(
        self,
        paths: str | Path | Iterable[str | Path] | Dataset,
        *,
        top: int = 5,
        batch: int = 32,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions for files, folders, globs or zips, in order. Broken images are left out, noted in `skipped`.

        `workers`: threads that read images; -1 for a share of the cores.
        """
        if not isinstance(paths, Dataset):
            paths = open_unlabelled([str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)])
        threads = workers if workers >= 0 else min(_MOST_THREADS, cores())
        for found in shown_batches(paths, self.recipe.input, batch=batch, threads=threads):
            if skipped is not None:
                skipped.update(found.skipped)
            if found.indices:
                names = [paths.entries[i].path for i in found.indices]
                yield from self._top(self.logits(found.images), names, top)

    def logits(self, images: NDArray[np.uint8]) -> Floats:
        """(N, K) float32 logits of (N, H, W, C) uint8 images that `eval_transform` made."""
        return self.network.run(normalised(images, self.recipe.input))

    def _top(self, logits: Floats, names: list[str], top: int) -> list[Prediction]:
        scores = probabilities(logits)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(scores, order, 1)
        return [
            Prediction(name, tuple((self.classes[k], p) for k, p in zip(ks, ps, strict=True)))
            for name, ks, ps in zip(names, order.tolist(), best.tolist(), strict=True)
        ]


def probabilities(logits: Floats) -> Floats:
    """(N, K) logits -> (N, K) probabilities, computed in float64."""
    x = logits.astype(np.float64)
    x = np.exp(x - x.max(1, keepdims=True))
    return (x / x.sum(1, keepdims=True)).astype(np.float32)


def open_predictor(source: str | Path, *, backend: str = "auto") -> ExportedPredictor:
    """The predictor of a file that `convnext export` wrote. Raises what `open_exported` raises."""
    network = open_exported(source, backend=backend)
    described = network.description
    recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{source}'")
    return ExportedPredictor(network, recipe, tuple(described["classes"]), Path(source), described)
