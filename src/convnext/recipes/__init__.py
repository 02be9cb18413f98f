"""Recipes by name: each a function that returns a full, frozen value. No torch here."""

from collections.abc import Callable

from convnext.config import IMAGENET_MEAN, IMAGENET_STD, Recipe, override
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.imagenet import (
    finetune,
    finetune384,
    finetune384_1k,
    imagenet1k,
    imagenet22k,
    resnet_original,
)
from convnext.recipes.learning_rate import expected_lr, lr_advice
from convnext.recipes.small import small

__all__ = ["PUBLISHED", "RECIPES", "expected_lr", "lr_advice", "recipe"]

PUBLISHED: dict[str, Callable[[str], Recipe]] = {
    "imagenet1k": imagenet1k,
    "imagenet22k": imagenet22k,
    "finetune": finetune,
    "finetune384": finetune384,
    "finetune384_1k": finetune384_1k,
    "resnet_original": resnet_original,
}
RECIPES: dict[str, Callable[..., Recipe]] = {"small": small, **PUBLISHED}


def recipe(
    name: str,
    model: str,
    *,
    images: int,
    picture_px: int,
    classes: int,
    batch: int | None = None,
    in_channels: int = 3,
    seed: int = 0,
) -> Recipe:
    """Recipe `name` for network `model`, fitted to data of `images` training pictures of about `picture_px` a side.

    `batch` rescales the learning rate of 'small'; a published recipe keeps the rate it was published with, as the
    released code does, and `lr_advice` says what the batch calls for.
    Raises ConvNeXtError for an unknown recipe or network, with the nearest valid name.
    """
    if name not in RECIPES:
        raise ConvNeXtError(f"No recipe is called '{name}'.{nearest(name, RECIPES)} There are: {', '.join(RECIPES)}.")
    if name in PUBLISHED:
        chosen = PUBLISHED[name](model)
    else:
        chosen = small(model, images=images, picture_px=picture_px, classes=classes, batch=batch)
    mean, std = _statistics(in_channels)
    changes = {
        "model.classes": classes,
        "model.in_channels": in_channels,
        "input.mean": mean,
        "input.std": std,
        "optim.batch": batch or chosen.optim.batch,
        "seed": seed,
    }
    return override(chosen, changes)


def _statistics(in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for colour, their averages for anything else."""
    if in_channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 3),) * in_channels, (round(sum(IMAGENET_STD) / 3, 3),) * in_channels
