"""What the data decide about a segmenter's recipe, and how a set of images with masks is known again."""

from typing import Any

from convnext.config import SegmentationRecipe
from convnext.data.dataset import DenseDataset
from convnext.tasks.digest import digest


def fitted(train: DenseDataset, name: str | None = None) -> dict[str, Any]:
    """Nothing beside the classes."""
    return {}


def fingerprint(dataset: DenseDataset, recipe: SegmentationRecipe | None = None) -> str:
    """A hash that tells this set of images and maps from another; the same on every machine."""
    listing = [f"{entry.path}\t{entry.semantic}" for entry in dataset.entries]
    text = "\n".join([*listing, ",".join(map(str, dataset.values))])
    if dataset.colours:
        text += "\n" + ",".join(map(str, dataset.colours))
    return digest(text)
