"""Recipes by name: each a function that returns a full, frozen value. No torch here."""

from collections.abc import Callable
from typing import Any

from convnext.config import IMAGENET_MEAN, IMAGENET_STD, Bands, ClassificationRecipe, ConvNeXtConfig, Recipe, override
from convnext.config.facts import StartFacts
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.baselines import with_grid
from convnext.recipes.changes import asked_batch, together, with_changes, with_interval
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
from convnext.recipes.learning_rate import batch_advice, expected_lr, lr_advice, with_fitting_batch
from convnext.recipes.small import small
from convnext.recipes.transfer import transfer

__all__ = [
    "DEFAULT",
    "FITTED",
    "PUBLISHED",
    "RECIPES",
    "asked_batch",
    "batch_advice",
    "default_name",
    "expected_lr",
    "is_fitted",
    "lr_advice",
    "recipe",
    "task_of",
    "together",
    "with_changes",
    "with_fitting_batch",
    "with_grid",
    "without_colours",
]

DEFAULT = {"classification": "small", "detection": "small_detection", "segmentation": "small_segmentation"}
WITH_WEIGHTS = {"classification": "transfer"}  # the default of a run that starts from weights; else that of DEFAULT
# task -> name -> (model, images, image_px, classes, batch, start)
FITTED: dict[str, dict[str, Callable[..., Recipe]]] = {
    "classification": {"small": small, "transfer": transfer},
    "detection": {"small_detection": small_detection},
    "segmentation": {"small_segmentation": small_segmentation},
}
PUBLISHED: dict[str, dict[str, Callable[[str], Recipe]]] = {  # task -> name -> (model)
    "classification": {
        "imagenet1k": imagenet1k,
        "imagenet22k": imagenet22k,
        "finetune": finetune,
        "finetune384": finetune384,
        "finetune384_1k": finetune384_1k,
        "resnet_original": resnet_original,
    },
    "detection": {
        "coco_mask_rcnn_3x": coco_mask_rcnn_3x,
        "coco_cascade_3x": coco_cascade_3x,
        "coco_cascade_3x_22k": coco_cascade_3x_22k,
    },
    "segmentation": {
        "ade20k_upernet_160k": ade20k_upernet_160k,
        "ade20k_upernet_160k_640": ade20k_upernet_160k_640,
    },
}
RECIPES: dict[str, dict[str, Callable[..., Recipe]]] = {task: {**FITTED[task], **PUBLISHED[task]} for task in FITTED}


def default_name(task: str, *, weights: bool) -> str:
    """The recipe of a task for those who name none; `weights`: whether the run starts from some."""
    return WITH_WEIGHTS.get(task, DEFAULT[task]) if weights else DEFAULT[task]


def is_fitted(name: str | None) -> bool:
    """Whether the recipe of that name is fitted to data and machine, as every default is, which None stands for."""
    return name is None or any(name in made for made in FITTED.values())


def task_of(name: str) -> str:
    """The task of a recipe. Raises ConvNeXtError for an unknown one, with the nearest valid name."""
    for task, made in RECIPES.items():
        if name in made:
            return task
    known = [each for made in RECIPES.values() for each in made]
    raise ConvNeXtError(f"No recipe is called '{name}'.{nearest(name, known)} There are: {', '.join(known)}.")


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
    start: StartFacts | None = None,
    bands: Bands | None = None,
) -> Recipe:
    """Recipe `name` for network `model`, fitted to data of `images` training images of about `image_px` a side.

    `start`: the weights that the run begins with; the network and the normalisation are then theirs, whatever `model` is.
    `batch` rescales the learning rate of a fitted recipe; a published one keeps the rate it was published with, as the
    released code does, and `lr_advice` says what the batch calls for.
    `bands`: how images are read and normalised that are not in grey or colour; weights of as many 8-bit channels have their
    own normalisation.
    Raises ConvNeXtError for an unknown recipe or network, with the nearest valid name.
    """
    task = task_of(name)
    if name in FITTED[task]:
        chosen = FITTED[task][name](model, images=images, image_px=image_px, classes=classes, batch=batch, start=start)
    else:
        chosen = PUBLISHED[task][name](model)
    if bands is not None:
        in_channels = len(bands.bands)
    mean, std = _statistics(in_channels) if bands is None else (bands.mean, bands.std)
    if start and start.mean and start.std and len(start.mean) == in_channels and not (bands and bands.wide):
        mean, std = start.mean, start.std
    changes: dict[str, Any] = {
        **(_network_of(start) if start and isinstance(chosen.model, ConvNeXtConfig) else {}),
        "model.classes" if task == "classification" else "head.classes": classes,
        "model.in_channels": in_channels,
        **(_read_by(bands, chosen) if bands else {}),
        "input.mean": mean,
        "input.std": std,
        "optim.batch": batch or chosen.optim.batch,
        "seed": seed,
    }
    chosen = override(chosen, changes)
    return with_interval(chosen, images=images) if chosen.schedule.steps else chosen


def _network_of(start: StartFacts) -> dict[str, Any]:
    """The fields of the network that weights decide; those of training, and what follows the data, stay the recipe's."""
    own = ("family", "drop_path", "head_scale", "checkpointing", "in_channels", "classes")
    return {f"model.{name}": value for name, value in start.network.model_dump().items() if name not in own}


def _read_by(bands: Bands, chosen: Recipe) -> dict[str, Any]:
    """The fields of the input that say so, and without what is for colours: RandAugment, photometric distortion."""
    return {f"input.{name}": getattr(bands, name) for name in Bands.model_fields} | without_colours(chosen)


def without_colours(chosen: Recipe) -> dict[str, Any]:
    """The fields of `chosen` that change colours, as they are for bands."""
    return {"augment.rand_augment": ""} if isinstance(chosen, ClassificationRecipe) else {"augment.photometric": False}


def _statistics(in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for colour, their averages for anything else."""
    if in_channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 3),) * in_channels, (round(sum(IMAGENET_STD) / 3, 3),) * in_channels
