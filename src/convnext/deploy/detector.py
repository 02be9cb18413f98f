"""A trained detector: images in, boxes, masks and class names out, in pixels of the images as they came."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convnext.config import DetectionRecipe, expect
from convnext.data.annotated import AnnotatedImage
from convnext.data.annotated_loader import eval_dense_batches
from convnext.data.annotated_policy import eval_dense
from convnext.data.dataset import DenseDataset
from convnext.data.labelled import Dataset
from convnext.data.opening import open_unlabelled
from convnext.data.sample import Sample
from convnext.deploy.images import ImageInput, pixels_of
from convnext.deploy.trained import Trained, answering
from convnext.tasks.detection.detection import build_detector, evaluate
from convnext.tasks.detection.inference import Found, find
from convnext.tasks.detection.metrics import Outcomes

SHOWN = 0.5  # least score of what is shown, unless one asks for another


@dataclass
class DetectionPredictor:
    """A trained detector with everything it needs to answer: class names, preprocessing, precision, device."""

    model: Any  # Detector
    recipe: DetectionRecipe
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]  # COCO's number of each class
    device: torch.device
    source: Path
    metadata: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "DetectionPredictor":
        """The predictor of a checkpoint."""
        model = trained.into(build_detector(trained.recipe), device)
        numbers = tuple(trained.metadata.get("category_ids") or range(1, len(trained.classes) + 1))
        recipe = expect(trained.recipe, DetectionRecipe)
        return cls(model, recipe, trained.classes, numbers, device, trained.source, trained.metadata)

    def __call__(self, image: ImageInput, *, score: float = SHOWN) -> Found:
        """What one image shows with at least `score`: a path, encoded bytes, a PIL image or a (H, W, C) uint8 array.

        Raises DataError when the image cannot be read.
        """
        name, decoded = pixels_of(image, len(self.recipe.input.mean))
        sample = Sample(decoded, None, None, name, 1, (decoded.shape[0], decoded.shape[1]))
        return self._find(eval_dense(sample, self.recipe.input)).above(score)

    def predict(
        self,
        paths: str | Path | Iterable[str | Path] | Dataset,
        *,
        score: float = SHOWN,
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[Found]:
        """What files, folders, globs or zips show, in order. Broken images are left out, noted in `skipped`.

        Images are numbered from 1 in the order in which they were found, broken ones too.
        """
        if not isinstance(paths, Dataset):
            paths = open_unlabelled([str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)])
        entries = tuple(AnnotatedImage(entry.path, number) for number, entry in enumerate(paths.entries, 1))
        dataset = DenseDataset("detection", self.classes, entries, paths.store, self.category_ids)
        change = partial(eval_dense, config=self.recipe.input)
        for batch in eval_dense_batches(
            dataset, change, batch=1, workers=workers, channels=len(self.recipe.input.mean)
        ):
            if skipped is not None:
                skipped.update(batch.skipped)
            for sample in batch.samples:
                yield self._find(sample).above(score)

    def evaluate(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """What the network finds in every readable image of an annotated dataset; broken ones go into `skipped`."""
        with answering(self.recipe, self.device):
            return evaluate(self.model, dataset, self.recipe, workers=workers, skipped=skipped)

    def rows(self, found: Found) -> list[dict[str, Any]]:
        """Detections as COCO's result file lists them, each with its image's name and its class's."""
        names = dict(zip(self.category_ids, self.classes, strict=True))
        return [
            {**row, "file_name": found.path, "category": names[row["category_id"]]}
            for row in found.rows(self.category_ids)
        ]

    def _find(self, sample: Sample) -> Found:
        with answering(self.recipe, self.device):
            return find(self.model, sample, self.recipe)
