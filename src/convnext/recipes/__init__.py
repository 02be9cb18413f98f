"""Recipes by name: each a function that returns a full, frozen value. No torch here."""

from collections.abc import Callable
from typing import Any

from convnext.config import IMAGENET_MEAN, IMAGENET_STD, Recipe, override
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.dense import (
    ade20k_upernet_160k,
    ade20k_upernet_160k_640,
    coco_cascade_3x,
    coco_cascade_3x_22k,
    coco_mask_rcnn_3x,
    small_detection,
    small_segmentation,
)
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

__all__ = ["DENSE", "PUBLISHED", "RECIPES", "expected_lr", "lr_advice", "recipe"]

PUBLISHED: dict[str, Callable[[str], Recipe]] = {
    "imagenet1k": imagenet1k,
    "imagenet22k": imagenet22k,
    "finetune": finetune,
    "finetune384": finetune384,
    "finetune384_1k": finetune384_1k,
    "resnet_original": resnet_original,
}
RECIPES: dict[str, Callable[..., Recipe]] = {"small": small, **PUBLISHED}
PUBLISHED_DENSE: dict[str, Callable[[str], Recipe]] = {  # detection and segmentation
    "coco_mask_rcnn_3x": coco_mask_rcnn_3x,
    "coco_cascade_3x": coco_cascade_3x,
    "coco_cascade_3x_22k": coco_cascade_3x_22k,
    "ade20k_upernet_160k": ade20k_upernet_160k,
    "ade20k_upernet_160k_640": ade20k_upernet_160k_640,
}
DENSE: dict[str, Callable[..., Recipe]] = {
    "small_detection": small_detection,
    "small_segmentation": small_segmentation,
    **PUBLISHED_DENSE,
}


def recipe(
    name: str,
    model: str,
    *,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None = None,
    in_channels: int = 3,
    seed: int = 0,
) -> Recipe:
    """Recipe `name` for network `model`, fitted to data of `images` training images of about `image_px` a side.

    `batch` rescales the learning rate of 'small'; a published recipe keeps the rate it was published with, as the
    released code does, and `lr_advice` says what the batch calls for.
    Raises ConvNeXtError for an unknown recipe or network, with the nearest valid name.
    """
    if name in DENSE:
        return _dense(name, model, images, image_px, classes, batch, in_channels, seed)
    if name not in RECIPES:
        known = [*RECIPES, *DENSE]
        raise ConvNeXtError(f"No recipe is called '{name}'.{nearest(name, known)} There are: {', '.join(known)}.")
    if name in PUBLISHED:
        chosen = PUBLISHED[name](model)
    else:
        chosen = small(model, images=images, image_px=image_px, classes=classes, batch=batch)
    return override(chosen, {"model.classes": classes, **_fitted(chosen, batch, in_channels, seed)})


def _dense(
    name: str,
    model: str,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None,
    in_channels: int,
    seed: int,
) -> Recipe:
    """A recipe of DENSE; one that counts steps is evaluated ten times, however many epochs they are."""
    if name in PUBLISHED_DENSE:
        chosen = PUBLISHED_DENSE[name](model)
    else:
        chosen = DENSE[name](model, images=images, image_px=image_px, classes=classes, batch=batch)
    changes: dict[str, Any] = {"head.classes": classes, **_fitted(chosen, batch, in_channels, seed)}
    if chosen.schedule.steps:
        epochs = chosen.schedule.steps / max(1, images // changes["optim.batch"])
        changes |= {"schedule.epochs": epochs, "schedule.eval_epochs": max(1, int(epochs / 10))}
    return override(chosen, changes)


def _fitted(chosen: Recipe, batch: int | None, in_channels: int, seed: int) -> dict[str, Any]:
    """What the data and the person decide about any recipe."""
    mean, std = _statistics(in_channels)
    return {
        "model.in_channels": in_channels,
        "input.mean": mean,
        "input.std": std,
        "optim.batch": batch or chosen.optim.batch,
        "seed": seed,
    }


def _statistics(in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for colour, their averages for anything else."""
    if in_channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 3),) * in_channels, (round(sum(IMAGENET_STD) / 3, 3),) * in_channels
