"""The network of a classifier."""

from torch import nn

from convnext.config import ClassificationRecipe, TaskRecipe, expect
from convnext.models.build import build_model


def build(recipe: TaskRecipe) -> nn.Module:
    """The freshly initialised network of a recipe. Raises ConvNeXtError for a recipe of another task."""
    return build_model(expect(recipe, ClassificationRecipe).model)
