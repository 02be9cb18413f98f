"""The network of a segmenter: the head that the recipe names on any backbone with stages."""

from convnext.config import SegmentationRecipe, TaskRecipe, expect
from convnext.tasks.segmentation.segmenter import Segmenter


def build(recipe: TaskRecipe) -> Segmenter:
    """The freshly initialised network of a recipe. Raises ConvNeXtError for a recipe of another task."""
    chosen = expect(recipe, SegmentationRecipe)
    return Segmenter(chosen.model, chosen.head)
