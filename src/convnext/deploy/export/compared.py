"""An exported network beside the one that it was made of, on images as they are decoded: what both answer.

Axes: N images, H W pixel rows and columns, C channels, S pixels of a side that a classifier sees, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnext.config import Bands, InputConfig, SegmentationInput, SegmentationRecipe
from convnext.data.band_store import with_bands
from convnext.data.bands import read_pixels
from convnext.data.decode import decode
from convnext.data.evaluation import eval_transform, framed
from convnext.data.labelled import Dataset
from convnext.data.transforms import normalise
from convnext.data.unlabelled import open_unlabelled
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.exported.opened import Pixels, Run
from convnext.deploy.exported.segmenter import logits_of
from convnext.deploy.forms.table import LOGITS
from convnext.deploy.images import sample_of
from convnext.errors import ConvNeXtError, DataError

COMPARED = 8  # images
_SHAPES = ((2, 3), (3, 2), (2, 2), (1, 1), (1, 3), (4, 2), (1, 2), (4, 3))  # of noise, in halves of the network's side


@dataclass(frozen=True)
class Compared:
    """Some images and what the network makes of them."""

    images: Sequence[Pixels]  # (H, W, C) each
    shown: Pixels  # (N, S, S, C), after the evaluation transform
    framed: Pixels  # the same for a graph that would transform them
    logits: NDArray[np.float32]  # (N, K)
    said: str  # what they are

    @classmethod
    def of(cls, predictor: ClassificationPredictor, where: str | None) -> "Compared":
        """Images from `where`, else noise. Raises ConvNeXtError where none of them can be read."""
        config = predictor.recipe.input
        images = _read(config, where) if where else _noise(config)
        said = f"{len(images)} images" if where else f"{len(images)} images of fixed noise"
        shown = np.stack([eval_transform(image, config) for image in images])
        return cls(images, shown, framed(shown, config), answers(predictor, shown), said)

    def difference(self, run: Run) -> float:
        """The largest of a logit, where the graph resizes the images."""
        return self._apart(np.concatenate([run(image[None], (LOGITS,))[0] for image in self.images]))

    def difference_beyond(self, run: Run) -> float:
        """The same where it has nothing to resize: of the network alone."""
        return self._apart(run(self.framed, (LOGITS,))[0])

    def _apart(self, found: NDArray[Any]) -> float:
        return float(np.abs(found.astype(np.float32) - self.logits).max())

    @property
    def largest(self) -> float:
        """Of the network's logits."""
        return float(np.abs(self.logits).max())


@dataclass(frozen=True)
class ComparedMaps:
    """The same of a segmenter: logits at the size of evaluation."""

    images: Sequence[Pixels]  # (H, W, C) each, at that size
    logits: Sequence[NDArray[np.float32]]  # (K, H, W) each
    recipe: SegmentationRecipe
    said: str

    @classmethod
    def of(cls, predictor: Any, where: str | None) -> "ComparedMaps":
        """As `Compared.of`; few images, for they are large."""
        config = predictor.recipe.input
        images = _read(config, where) if where else _blocks(config)
        said = f"{len(images)} images" if where else f"{len(images)} images of fixed noise"
        shown = [sample_of(config, image).image for image in images]
        return cls(shown, [predictor.logits(image) for image in shown], predictor.recipe, said)

    def difference(self, run: Run) -> float:
        """The largest of a logit."""
        pairs = zip(self.images, self.logits, strict=True)
        return max(float(np.abs(logits_of(run, image, self.recipe.head) - logits).max()) for image, logits in pairs)

    difference_beyond = difference  # nothing is resized in the graph

    @property
    def largest(self) -> float:
        """Of the network's logits."""
        return max(float(np.abs(logits).max()) for logits in self.logits)


def compared_of(predictor: Any, where: str | None) -> Compared | ComparedMaps:
    """What a predictor's task compares, on images from `where` or noise."""
    kind = ComparedMaps if predictor.recipe.task == "segmentation" else Compared
    return kind.of(predictor, where)


def answers(predictor: ClassificationPredictor, shown: Pixels) -> NDArray[np.float32]:
    """(N, K) float32 logits of (N, S, S, C) images, by the plain network."""
    with torch.inference_mode():
        x = normalise(torch.from_numpy(shown), predictor.recipe.input)
        found: NDArray[np.float32] = predictor.model(x).float().numpy()
    return found


def _read(config: Any, where: str) -> list[Pixels]:
    dataset = with_bands(open_unlabelled([where]), getattr(config, "bands", ()))
    some = Dataset((), dataset.entries[:: max(1, len(dataset.entries) // COMPARED)][:COMPARED], dataset.store)
    found: list[Any] = []
    for entry in some.entries:
        try:
            data = some.store.read(entry.path)
            found.append(
                read_pixels(data, config) if isinstance(config, Bands) else decode(data, channels=len(config.mean))
            )
        except (DataError, OSError):
            continue
    if not found:
        raise ConvNeXtError(f"None of {len(some.entries)} images of '{where}' could be read.")
    return found


def _noise(config: InputConfig) -> list[Pixels]:
    """Images of several sizes, coarse enough for a resize to leave something of them."""
    generator, side = np.random.default_rng(2022), config.eval_size_px // 2
    mean, std = (np.array(values) for values in (config.mean, config.std))
    made: list[Pixels] = []
    for height, width in _SHAPES[:COMPARED]:
        coarse = generator.standard_normal((4 * height, 4 * width, len(mean)))
        rows, columns = (np.arange(side * length) * 4 // side for length in (height, width))
        values = mean + std * (
            coarse[rows][:, columns] + 0.1 * generator.standard_normal((*map(len, (rows, columns)), 1))
        )
        made.append(values.astype(np.float32) if config.wide else (255 * values).clip(0, 255).astype(np.uint8))
    return made


def _blocks(config: SegmentationInput) -> list[Pixels]:
    """Two images of coloured blocks: one of the size of evaluation, one that has to be resized."""
    generator, short_px, channels = np.random.default_rng(2022), config.eval_short_px, len(config.mean)
    made: list[Pixels] = []
    for height, width in ((short_px, short_px + short_px // 4), (short_px + short_px // 3, short_px)):
        blocks: Pixels = generator.integers(0, 256, (8, 8, channels), np.uint8)
        if config.wide:
            mean, std = (np.array(values) for values in (config.mean, config.std))
            blocks = (mean + std * (blocks / 64.0 - 2)).astype(np.float32)
        made.append(blocks[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width])
    return made
