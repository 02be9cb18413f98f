"""The network of a segmenter: the head that the recipe names on any backbone with stages."""

from collections.abc import Callable

from torch import nn

from convnext.config import SegmentationRecipe, TaskRecipe, expect
from convnext.tasks.backbone import Backbone
from convnext.tasks.segmentation.upernet import UperNet

HEADS: dict[str, Callable[..., nn.Module]] = {"upernet": UperNet}  # kind: (backbone, head) -> network


def build(recipe: TaskRecipe) -> nn.Module:
    """The freshly initialised network of a recipe. Raises ConvNeXtError for a recipe of another task."""
    chosen = expect(recipe, SegmentationRecipe)
    return HEADS[chosen.head.kind](Backbone(chosen.model), chosen.head)
