"""From what a machine takes to the longest run that ends in time: arithmetic alone."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

from convnext.config import ClassificationRecipe, Recipe, override
from convnext.engine.schedule import total_steps
from convnext.engine.trial import Timed
from convnext.errors import ConvNeXtError, number_of
from convnext.recipes.shorter import least_epochs, length_in_epochs, shorter, size_of, sizes_below, smaller
from convnext.tasks.work import evaluations, extra, sizes_of

SPENT = 0.94  # of the time that a person gives: better a little early
_REPORT_S = 3.0  # to load the best weights and to write the page
_SCORED, _SCORED_LEAST = 0.2, 4  # the share of the time that evaluations may take, and how many there are at least


@dataclass(frozen=True)
class Pace:
    """What this machine takes for a recipe, in seconds."""

    steps: tuple[Timed, ...]  # of each part of the run in which images have one size
    steps_per_epoch: int
    evaluation_s: float  # of the held-out images, once
    save_s: float  # of a checkpoint
    spent_s: float  # since the command began
    images: tuple[int, int] = (0, 0)  # to train on, and held out
    shared: bool = False  # the held-out ones are a share of all, so that each can be held out once
    head_s: float = 0.0  # to fit a linear head on frozen features, for a run that begins with one

    def at(self, ratio: float) -> "Pace":
        """A guess for images of `ratio` times the side: the work goes with their area."""
        steps = tuple(replace(timed, step_s=timed.step_s * ratio**2) for timed in self.steps)
        return replace(self, steps=steps, evaluation_s=self.evaluation_s * ratio**2)


class Free(Protocol):
    """What of a recipe may change."""

    @property
    def kept(self) -> Collection[str]:
        """Dotted fields that stay."""
        ...

    @property
    def sized(self) -> bool:
        """Whether the size of the images stays."""
        ...


def parts_of(chosen: Recipe, steps: int) -> list[range]:
    """The steps of each part of a run of `steps` in which images have one size; one may be empty in a short run."""
    ends = [end for end, _ in sizes_of(chosen, steps)] if isinstance(chosen, ClassificationRecipe) else [steps]
    return [range(first, last) for first, last in pairwise([0, *ends])]


def seconds_of(chosen: Recipe, pace: Pace) -> float:
    """What a whole run takes from its first step on: training, evaluations, checkpoints, report, and its probe and mixes."""
    if not isinstance(chosen, ClassificationRecipe) or chosen.start.mode == "full":
        return _training_s(chosen, pace) + (1 + extra(chosen)) * pace.evaluation_s + _REPORT_S
    start, (images, held_out) = chosen.start, pace.images
    views = 2 if start.mirror else 1
    seen = images * views + held_out * (views if start.folds else 1)  # for features, of which most is their making
    frozen_s = seen * pace.evaluation_s / max(1, held_out) + pace.head_s + _REPORT_S
    if start.mode == "probe":
        return frozen_s + pace.evaluation_s
    mixes, parts = len({*start.mix} - {0.0, 1.0}), parts_in(chosen, pace)
    if not parts:
        return frozen_s + _training_s(chosen, pace) + (mixes + 1) * pace.evaluation_s
    whole = images + held_out
    other = images / (parts - 1)  # images that each part but the first holds out
    trained_s = _training_s(chosen, pace)
    trained_s += (parts - 1) * _training_s(chosen, pace, images=(whole - other) / images, held_out=other / held_out)
    trained_s += _training_s(chosen, pace, images=whole / images, scored=1)  # the one that is kept
    return frozen_s + parts * pace.head_s + trained_s + (mixes + 2) * pace.evaluation_s * whole / held_out


def parts_in(chosen: Recipe, pace: Pace) -> int:
    """The parts of a cross-validation, each of which is a training; 0 where the held-out images alone choose."""
    crosswise = isinstance(chosen, ClassificationRecipe) and chosen.start.mode == "probe_full" and pace.shared
    return chosen.start.folds if crosswise else 0  # type: ignore[union-attr]


def _training_s(
    chosen: Recipe, pace: Pace, *, images: float = 1.0, held_out: float = 1.0, scored: int | None = None
) -> float:
    """One training with its evaluations and checkpoints; `images`, `held_out`: how many times those that were measured.

    `scored`: how often; None: as often as the recipe has it.
    """
    total = total_steps(pace.steps_per_epoch, chosen.schedule)
    parts = zip(parts_of(chosen, total), pace.steps, strict=True)
    steps_s = sum(images * len(part) * timed.step_s + timed.start_s for part, timed in parts)
    scored = _kinds(chosen) * (evaluations(chosen, pace.steps_per_epoch) if scored is None else scored)
    saved = math.ceil(total / pace.steps_per_epoch) + scored / 3  # `last` after each epoch; weights alone are a third
    return steps_s + held_out * scored * pace.evaluation_s + saved * pace.save_s


def fitted(
    chosen: Any, measured: Callable[[Any], Pace], seconds: float, *, images: int, free: Free
) -> tuple[Any, Pace]:
    """The longest form of `chosen` that ends in `seconds`, and its pace, which `measured` gives for a recipe.

    The parts of a cross-validation go first, unless all their epochs fit. Then epochs become fewer; where fewer are left
    than the recipe needs, images become smaller. Raises ConvNeXtError where not even one pass over the `images` fits.
    """
    pace = measured(chosen)
    if parts_in(chosen, pace) and "start.folds" not in free.kept and not _fits(chosen, pace, seconds):
        chosen = override(chosen, {"start.folds": 0})
    base, least = chosen, least_epochs(chosen, pace.steps_per_epoch)
    made = _longest(base, pace, seconds, free)
    sizes = [] if free.sized else sizes_below(chosen)
    while sizes and (made is None or length_in_epochs(made, pace.steps_per_epoch) < least):
        px = _size_for(chosen, sizes, pace, seconds, least, free)
        base = smaller(chosen, px)
        pace = measured(base)
        made = _longest(base, pace, seconds, free)
        sizes = [] if px == sizes[-1] else sizes[-1:]
    if made is None:
        needed = (pace.spent_s + seconds_of(of_length(base, 1, pace, free), pace)) / SPENT / 60
        whole = math.ceil(needed) if needed > 3 else math.ceil(10 * needed) / 10
        raise ConvNeXtError(
            f"minutes = {seconds / 60:g} is too short for one pass over the {number_of(images, 'training image')} on this "
            f"machine. Give {whole:g} or more, or a smaller --model."
        )
    return made, pace


def _longest(base: Any, pace: Pace, seconds: float, free: Free) -> Any:
    """`base` with as many epochs as end in time, all of its own at most; None where there is not time for one."""
    if _fits(base, pace, seconds):
        return base
    too_many = math.ceil(length_in_epochs(base, pace.steps_per_epoch))
    fit = 0
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if _fits(of_length(base, middle, pace, free), pace, seconds):
            fit = middle
        else:
            too_many = middle
    return of_length(base, fit, pace, free) if fit else None


def _fits(made: Recipe, pace: Pace, seconds: float) -> bool:
    return seconds_of(made, pace) <= SPENT * seconds - pace.spent_s


def of_length(base: Any, epochs: int, pace: Pace, free: Free) -> Any:
    """`base` of so many epochs, scored less often where that would take much of the time."""
    if not pace.steps or epochs >= length_in_epochs(base, pace.steps_per_epoch):  # without steps there is no length
        return base
    made = shorter(base, epochs, steps_per_epoch=pace.steps_per_epoch, kept=free.kept)
    if "schedule.eval_epochs" in free.kept:
        return made
    scoring_s = pace.evaluation_s * _kinds(made)
    training_s = _training_s(made, pace) - scoring_s * evaluations(made, pace.steps_per_epoch)
    training_s += pace.evaluation_s + _REPORT_S
    affordable = max(_SCORED_LEAST, math.floor(_SCORED * training_s / max(scoring_s, 1e-9)))
    every = max(1, epochs // _SCORED_LEAST) if affordable == _SCORED_LEAST else math.ceil(epochs / affordable)
    return override(made, {"schedule.eval_epochs": max(made.schedule.eval_epochs, every)})


def _size_for(chosen: Any, sizes: list[int], pace: Pace, seconds: float, least: int, free: Free) -> int:
    """The largest size at which the least epochs should fit, or the smallest that there is."""
    for px in sizes:
        guess = pace.at(px / size_of(chosen))
        made = _longest(smaller(chosen, px), guess, seconds, free)
        if made is not None and length_in_epochs(made, pace.steps_per_epoch) >= least:
            return px
    return sizes[-1]


def _kinds(chosen: Recipe) -> int:
    """Kinds of weights that are scored: the raw ones, and the EMA ones beside them."""
    return 2 if chosen.optim.ema else 1
