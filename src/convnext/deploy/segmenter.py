"""A trained segmenter: images in, a class for every pixel out, at the size of the images as they came."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convnext.config import SegmentationRecipe, expect
from convnext.data.dataset import DenseDataset
from convnext.data.decode import decode
from convnext.data.labelled import Dataset
from convnext.data.opening import open_unlabelled
from convnext.data.store import printable
from convnext.deploy.images import ImageInput, pixels_of
from convnext.deploy.trained import Trained, answering
from convnext.errors import DataError, reason_of
from convnext.tasks.segmentation.metrics import Outcomes
from convnext.tasks.segmentation.segmentation import build_segmenter, evaluate, predict


@dataclass(frozen=True)
class Segmented:
    """What every pixel of one image is."""

    path: str
    image_id: int  # its number among the images that were asked about, from 1
    labels: NDArray[np.uint8]  # (H, W) classes
    scores: NDArray[np.float32]  # (H, W) their probabilities


@dataclass
class SegmentationPredictor:
    """A trained segmenter with everything it needs to answer: class names, preprocessing, precision, device."""

    model: nn.Module
    recipe: SegmentationRecipe
    classes: tuple[str, ...]
    device: torch.device
    source: Path
    metadata: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "SegmentationPredictor":
        """The predictor of a checkpoint."""
        model = trained.into(build_segmenter(trained.recipe), device)
        recipe = expect(trained.recipe, SegmentationRecipe)
        return cls(model, recipe, trained.classes, device, trained.source, trained.metadata)

    def __call__(self, image: ImageInput, *, multi_scale: bool = False) -> Segmented:
        """The classes of one image: a path, encoded bytes, a PIL image or a (H, W, C) uint8 array.

        `multi_scale`: the scales of the recipe with flips. Raises DataError when the image cannot be read.
        """
        name, decoded = pixels_of(image, len(self.recipe.input.mean))
        return self._segment(name, 1, decoded, multi_scale)

    def predict(
        self,
        paths: str | Path | Iterable[str | Path] | Dataset,
        *,
        multi_scale: bool = False,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Segmented]:
        """The classes of files, folders, globs or zips, in order. Broken images are left out, noted in `skipped`.

        Images are numbered from 1 in the order in which they were found, broken ones too.
        """
        if not isinstance(paths, Dataset):
            paths = open_unlabelled([str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)])
        for number, entry in enumerate(paths.entries, 1):
            try:
                image = decode(paths.store.read(entry.path), channels=len(self.recipe.input.mean))
            except (DataError, OSError) as error:
                if skipped is not None:
                    skipped[printable(entry.path)] = reason_of(error)
                continue
            yield self._segment(printable(entry.path), number, image, multi_scale)

    def evaluate(
        self,
        dataset: DenseDataset,
        *,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
        multi_scale: bool = False,
    ) -> Outcomes:
        """What the network makes of every readable image of an annotated dataset; broken ones go into `skipped`."""
        with answering(self.recipe, self.device):
            return evaluate(self.model, dataset, self.recipe, workers=workers, skipped=skipped, multi_scale=multi_scale)

    def _segment(self, name: str, number: int, image: NDArray[np.uint8], multi_scale: bool) -> Segmented:
        with answering(self.recipe, self.device):
            return Segmented(name, number, *predict(self.model, image, self.recipe, multi_scale=multi_scale))
