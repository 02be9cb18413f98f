"""A recipe fitted to less time: fewer epochs, then smaller images, and all that follows from either.

Warm-up, the falls of a stepwise schedule, the interval of evaluations and the span of the EMA keep their share of the run.
"""

import math
from collections.abc import Collection
from typing import Any, TypeVar

from convnext.config import ClassificationRecipe, Recipe, SegmentationRecipe, override
from convnext.errors import ConvNeXtError
from convnext.recipes.dense import EVALUATIONS, interval

LEAST_EPOCHS, LEAST_STEPS = 5, 300  # below which images are better made smaller than passes fewer
LEAST_PX, GRID_PX = 64, 32
LEAST_PROBE_PX = 96  # as recipe 'transfer' has it: below, weights from elsewhere see mostly padding
_EMA_STEPS = 10  # the shortest span of an average, as the fitted recipes have it

LENGTHS = ("schedule.epochs", "schedule.steps")  # beside minutes, the most that a run takes
MOST_MINUTES = 366 * 24 * 60

_R = TypeVar("_R", bound=Recipe)


def require_minutes(minutes: object) -> float:
    """`minutes`, a number or its text. Raises ConvNeXtError for what is no time."""
    try:
        value = math.nan if isinstance(minutes, bool) else float(str(minutes))
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_MINUTES:
        rule = (
            "it must be a number of minutes above 0, e.g. 20" if not value > MOST_MINUTES else "it is more than a year"
        )
        raise ConvNeXtError(f"minutes = {minutes} is refused: {rule}.")
    return value


def length_in_epochs(chosen: Recipe, steps_per_epoch: int) -> float:
    """Passes over the training images, also of a recipe that counts steps."""
    schedule = chosen.schedule
    return schedule.steps / steps_per_epoch if schedule.steps else schedule.epochs or 0.0


def least_epochs(chosen: Recipe, steps_per_epoch: int) -> int:
    """The passes that a run should have before its images are made smaller; never more than the recipe has.

    One where a probe comes first: it is good without any, and the better the more it sees in the images.
    """
    if _probes(chosen):
        return 1
    wanted = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch))
    return max(1, min(wanted, math.floor(length_in_epochs(chosen, steps_per_epoch))))


def shorter_ema(decay: float, share: float) -> float:
    """The decay whose average is over the same share of a run of `share` of the length, and over 10 steps at least."""
    return 1 - 1 / max(_EMA_STEPS, share / (1 - decay))  # a share of 0 is refused later, with its name


def shorter(chosen: _R, epochs: int, *, steps_per_epoch: int, kept: Collection[str] = ()) -> _R:
    """`chosen` fitted to so many epochs, fewer than it has; `kept`: dotted fields that stay as they are where they can."""
    schedule = chosen.schedule
    share = epochs / length_in_epochs(chosen, steps_per_epoch)
    steps = epochs * steps_per_epoch
    changes: dict[str, Any] = {"schedule.steps": steps} if schedule.steps else {"schedule.epochs": float(epochs)}
    warm = {"schedule.warmup_epochs", "schedule.warmup_steps"} & set(kept)
    if not warm or schedule.warmup_epochs >= epochs or schedule.warmup_steps >= steps:
        changes["schedule.warmup_epochs"] = schedule.warmup_epochs * share
        changes["schedule.warmup_steps"] = math.floor(schedule.warmup_steps * share)
    if schedule.kind == "step":
        changes["schedule.step_epochs"] = schedule.step_epochs * share
        changes["schedule.milestones"] = [epoch * share for epoch in schedule.milestones]
    every = float(max(1, round(schedule.eval_epochs * share)))
    changes["schedule.eval_epochs"] = interval(chosen.name, epochs) if chosen.name in EVALUATIONS else every
    if chosen.optim.ema:
        changes["optim.ema"] = shorter_ema(chosen.optim.ema, share)
    free = {name: value for name, value in changes.items() if name not in kept or "warmup" in name}
    return override(chosen, free)


def size_of(chosen: Recipe) -> int:
    """The side in pixels that evaluation shows: what `smaller` counts in."""
    return chosen.input.eval_size_px if isinstance(chosen, ClassificationRecipe) else chosen.input.eval_short_px


def sizes_below(chosen: Recipe) -> list[int]:
    """The sizes that images may be made smaller to, the largest first: on a grid, to half of what they are at most."""
    now = size_of(chosen)
    least = max(LEAST_PROBE_PX if _probes(chosen) else LEAST_PX, now // 2)
    return [px for px in range(now - now % GRID_PX, 0, -GRID_PX) if least <= px < now]


def _probes(chosen: Recipe) -> bool:
    return isinstance(chosen, ClassificationRecipe) and chosen.start.mode != "full"


def smaller(chosen: _R, px: int) -> _R:
    """`chosen` with images of `px` pixels in evaluation, and all other sizes in proportion; the network stays."""
    ratio = px / size_of(chosen)

    def scaled(value: int, grid: int = 1) -> int:
        return max(grid, grid * round(value * ratio / grid))

    if isinstance(chosen, ClassificationRecipe):
        given = chosen.input
        changes: dict[str, Any] = {
            "input.size_px": scaled(given.size_px, 4),
            "input.eval_size_px": px,
            "input.progressive": [(share, scaled(each, 4)) for share, each in given.progressive],
        }
        return override(chosen, changes)
    dense, augment = chosen.input, chosen.augment
    changes = {
        "input.short_px": [scaled(each) for each in dense.short_px],
        "input.long_px": scaled(dense.long_px),
        "input.crop_px": scaled(dense.crop_px, GRID_PX) if dense.crop_px else 0,
        "input.eval_short_px": px,
        "input.eval_long_px": scaled(dense.eval_long_px),
        "augment.precrop_short_px": [scaled(each) for each in augment.precrop_short_px],
        "augment.precrop_px": [scaled(each) for each in augment.precrop_px],
    }
    if isinstance(chosen, SegmentationRecipe):
        changes |= {
            f"head.{name}": scaled(value)
            for name in ("window_px", "stride_px")
            if (value := getattr(chosen.head, name))
        }
    return override(chosen, changes)
