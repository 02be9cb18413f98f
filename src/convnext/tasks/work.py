"""What a recipe asks of a machine on given data, before anything was measured: for the first forecast of a run."""

import math
from typing import Any

from convnext.config import ClassificationRecipe, Recipe, SegmentationRecipe
from convnext.data.loader import steps_in_epoch
from convnext.engine.forecast import Work
from convnext.engine.schedule import total_steps

FORWARD = 1 / 3  # of a training step: the way back costs about twice the way there
_ASPECT = 4 / 3  # of the images of detection and segmentation


def work_of(chosen: Recipe, splits: Any) -> Work:
    """The pixels that pass the network in training and evaluation."""
    images, held_out = len(splits.train.entries), len(splits.val.entries)
    batch = chosen.optim.batch
    per_epoch = steps_in_epoch(images, batch)
    steps = total_steps(per_epoch, chosen.schedule)
    if isinstance(chosen, ClassificationRecipe):
        phases = [(end, batch * float(px) ** 2) for end, px in sizes_of(chosen, steps)]
        shown = float(chosen.input.eval_size_px) ** 2
    else:
        given = chosen.input
        sides = [px**2 * _ASPECT for px in given.short_px]
        phases = [(steps, batch * (given.crop_px**2 if given.crop_px else sum(sides) / len(sides)))]
        shown = given.eval_short_px**2 * _ASPECT
    scored = evaluations(chosen, per_epoch) * (2 if chosen.optim.ema else 1) + 1 + extra(chosen)
    return Work(tuple(phases), FORWARD * shown * held_out, scored)


def sizes_of(chosen: ClassificationRecipe, steps: int) -> list[tuple[int, int]]:
    """(the step that ends it, side of the crop) of each part of a run of `steps` in which images have one size."""
    ends = [(math.ceil(share * steps), px) for share, px in chosen.input.progressive]
    return [*ends, (steps, chosen.input.size_px)]


def extra(chosen: Recipe) -> int:
    """How often the held-out images are scored once more after training, to choose what a segmenter's answers take back."""
    return len(chosen.adjustments) if isinstance(chosen, SegmentationRecipe) else 0


def evaluations(chosen: Recipe, steps_per_epoch: int) -> int:
    """How often a whole run is scored: after every so many epochs, and at its end."""
    steps = total_steps(steps_per_epoch, chosen.schedule)
    return math.ceil(steps / (steps_per_epoch * chosen.schedule.eval_epochs) - 1e-9)
