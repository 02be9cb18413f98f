"""samples.jpg: the first images that a detector or a segmenter is trained on, as its recipe changes them, with what they show.

It is there before the first step, so that boxes or masks that were misread are seen at once.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.config import ClassificationRecipe, Recipe
from convnext.data.annotated_loader import train_dense_batches
from convnext.data.annotated_policy import in_training
from convnext.data.bands import for_eyes
from convnext.data.masks import encode
from convnext.data.sample import Sample
from convnext.drawing.overlay import colours_of, draw_map, draw_objects
from convnext.drawing.sheet import sheet
from convnext.engine.records import info
from convnext.errors import DataError
from convnext.files import write_bytes

FILE = "samples.jpg"
MOST, COLUMNS = 8, 4  # images, and how many stand in a row
SIDE_PX = 320  # the longer side of each at most


def draw_samples(out: Path, recipe: Recipe, splits: Any) -> Path | None:
    """Write `samples.jpg` into the run's folder `out`, and say so; None for a classifier, and where nothing can be drawn.

    The pixels are those of the first places of the run's first epoch.
    """
    if isinstance(recipe, ClassificationRecipe):
        return None
    train = splits.train
    how: dict[str, Any] = {
        "batch": min(MOST, len(train.entries)),
        "seed": recipe.seed,
        "steps": range(1),
        "steps_per_epoch": 1,
    }
    change = in_training(recipe.input, recipe.augment)
    channels = len(recipe.input.mean)
    try:
        (first,) = train_dense_batches(train, change, **how, channels=channels, masks=recipe.task == "detection")
        drawn = [Image.fromarray(annotated(sample, train.classes)) for sample in first.samples]
        write_bytes(out / FILE, sheet(drawn, columns=COLUMNS, side_px=SIDE_PX))
    except (DataError, OSError):  # training says what is wrong with the images, and with the disk
        return None
    info(f"The first images with their annotations, as they are trained on: {out / FILE}")
    return out / FILE


def visible(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, C) of any channels as people can see it: grey and colours as they are, three of many bands stretched."""
    return image if image.dtype == np.uint8 and image.shape[2] in (1, 3) else for_eyes(image)


def annotated(sample: Sample, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """(H, W, 3) of an image with boxes and masks of its objects, or tinted by its classes."""
    if sample.semantic is not None:
        return draw_map(visible(sample.image), sample.semantic, classes)
    found = sample.instances
    if found is None:
        return draw_objects(visible(sample.image), np.zeros((0, 4)), ())
    labels = found.labels.tolist()
    masks = () if found.masks is None else [encode(mask) for mask in found.masks]
    names = [classes[label] for label in labels]
    return draw_objects(visible(sample.image), found.boxes, colours_of(labels, classes), names, masks)
