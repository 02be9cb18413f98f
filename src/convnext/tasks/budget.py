"""A run that ends in time: its speed is measured once, and the recipe is fitted to the minutes that a person has.

What was measured and decided is written into `plan.json` of the run, where one that goes on reads it.
"""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import ClassificationRecipe, Recipe, RunOptions, fields_of, parse
from convnext.engine.distributed import World
from convnext.engine.forecast import in_words
from convnext.engine.records import info, warn
from convnext.engine.run import last_of
from convnext.engine.schedule import total_steps
from convnext.engine.trial import Timed, saving_s, try_steps
from convnext.engine.update import autocast
from convnext.errors import ConvNeXtError, TrainingError, number_of
from convnext.files import to_json, write_text
from convnext.recipes.shorter import LENGTHS, least_epochs, length_in_epochs, require_minutes, size_of
from convnext.tasks.classification.probe import fitting_s
from convnext.tasks.pace import Pace, fitted, parts_in, parts_of, seconds_of
from convnext.tasks.table import row_of

PLAN = "plan.json"
_TRIED, _TRIED_S = 0.05, (1.0, 30.0)  # of the time, for the steps of the trial, and its bounds in seconds
_USUAL_WIDTH = 768  # of the features of a network that does not say it
_SCORED_LEAST = 8  # held-out images of the trial, for each process


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The minutes of a run, and what the person decided beside them."""

    minutes: float
    started_s: float  # when the command began, on the monotonic clock
    kept: Collection[str]  # dotted fields that stay; a length is the most, not what stays
    sized: bool  # whether the size of the images stays
    weights: bool = False  # whether the network starts from some


def budget_of(minutes: object, changes: Collection[str], *, sized: bool, weights: bool = False) -> Budget | None:
    """The budget of a command that begins now; None where no minutes are given. Raises ConvNeXtError for what is no time."""
    if minutes is None:
        return None
    fixed = sized or any(field.endswith("_px") or field == "input.progressive" for field in changes)
    value, kept = require_minutes(minutes), frozenset(changes) - frozenset(LENGTHS)
    return Budget(minutes=value, started_s=time.monotonic(), kept=kept, sized=fixed, weights=weights)


def within(
    budget: Budget | None,
    chosen: Any,
    splits: Any,
    options: RunOptions,
    network: Callable[[Any], nn.Module],
    *,
    device: torch.device,
    world: World,
) -> Any:
    """`chosen` fitted to the minutes of `budget`, as plan.json has it or from now on does; without a budget as it is.

    `network`: recipe -> fresh network, to measure with. Raises ConvNeXtError where one pass over the images takes
    longer, and for a folder whose run was planned otherwise.
    """
    if budget and options.shard_weights:
        raise ConvNeXtError(
            "--minutes measures a network that each process holds whole, which --shard-weights is not. Give --epochs."
        )
    out = Path(options.out)
    known = world.from_first(_known(out, budget, chosen) if world.first else None)
    if isinstance(known, ConvNeXtError):
        raise known
    if budget is None:
        return chosen
    if known is not None:
        if world.first:
            info(f"As planned in '{out / PLAN}': {_decided(chosen, known)}.")
        return known
    if world.first:
        info(f"Measuring the speed of this machine, for a run of {_minutes(budget.minutes)}.")

    def measured(recipe: Any) -> Pace:
        task = row_of(recipe.task).task(network(recipe), recipe, _quiet(options), splits)
        pace: Pace = world.from_first(_pace(task, recipe, budget, splits, options, device=device, world=world))
        return pace

    made, pace = fitted(chosen, measured, 60 * budget.minutes, images=len(splits.train.entries), free=budget)
    if world.writes():
        _write(out, budget, chosen, made, pace)
        if parts := parts_in(chosen, pace) - parts_in(made, pace):
            info(
                f"--minutes {budget.minutes:g} leaves no time for a cross-validation in {parts} parts, which takes "
                f"{parts + 1} trainings: the {number_of(len(splits.val.entries), 'held-out image')} alone choose."
            )
        info(f"Planned for {_minutes(budget.minutes)}: {_decided(chosen, made)}. {_measured(made, pace)}")
        least, epochs = least_epochs(chosen, pace.steps_per_epoch), length_in_epochs(made, pace.steps_per_epoch)
        if epochs < least and not (budget.weights and made.task == "classification"):  # there a probe comes first
            warn(
                f"{number_of(epochs, 'epoch')} may teach the network little; {least} or more are better: give more minutes."
            )
    return made


def _pace(
    task: Any, chosen: Any, budget: Budget, splits: Any, options: RunOptions, *, device: torch.device, world: World
) -> Pace:
    """What training, scoring and saving take here, by a trial."""
    least, most = _TRIED_S
    most_s = min(most, max(least, _TRIED * 60 * budget.minutes))
    timed, save_s = _training(task, chosen, options, most_s, device=device, world=world)
    with torch.inference_mode(), autocast(chosen.precision, device.type):
        evaluation_s = _evaluation_s(task, chosen, splits, options, most_s, world)
    images = len(splits.train.entries), len(splits.val.entries)
    return Pace(
        timed,
        task.steps_per_epoch,
        evaluation_s,
        save_s,
        time.monotonic() - budget.started_s,
        images=images,
        shared=bool(splits.val_share),
        head_s=_head_s(chosen, images[0]),
    )


def _head_s(chosen: Any, images: int) -> float:
    """Seconds to fit the head of a probe, of a run that begins with one."""
    if not isinstance(chosen, ClassificationRecipe) or chosen.start.mode == "full":
        return 0.0
    width = chosen.model.model_dump().get("widths", (_USUAL_WIDTH,))[-1]
    return fitting_s(images, 2 if chosen.start.mirror else 1, width, chosen.model.classes)


def _training(
    task: Any, chosen: Any, options: RunOptions, most_s: float, *, device: torch.device, world: World
) -> tuple[tuple[Timed, ...], float]:
    """What the steps of each part of a run take, and a checkpoint; nothing where the network stays as it is."""
    if isinstance(chosen, ClassificationRecipe) and chosen.start.mode == "probe":
        return (), 0.0
    parts = parts_of(chosen, total_steps(task.steps_per_epoch, chosen.schedule))
    at = [part for part in parts if part]
    times, update = try_steps(task, chosen, _quiet(options), world=world, device=device, at=at, most_s=most_s)
    waiting = iter(times)
    timed = tuple(next(waiting) if part else Timed(0.0, 0.0) for part in parts)
    try:
        return timed, saving_s(update, task, Path(options.out)) if world.first else 0.0
    except OSError as error:
        raise TrainingError(
            f"Cannot write into '{options.out}': {error.strerror or error}. Make room, or choose another --out."
        ) from None


def _evaluation_s(task: Any, chosen: Any, splits: Any, options: RunOptions, most_s: float, world: World) -> float:
    """Seconds to score all held-out images once, from some of them: a few first, which prepare, then more."""
    task.model.eval()
    count = len(splits.val.entries)
    some, seconds = min(count, _SCORED_LEAST * world.size), 0.0
    for _ in range(2):
        entries = splits.val.entries
        places = [place * count // some for place in range(some)]  # of all classes, where they lie in order
        part = replace(splits, val=replace(splits.val, entries=tuple(entries[place] for place in places)))
        started = time.monotonic()
        scored = row_of(chosen.task).task(task.model, chosen, _quiet(options), part)
        before_s = time.monotonic() - started
        scored.evaluate(task.model, world)
        taken = some
        seconds = time.monotonic() - started - before_s
        some = world.from_first(min(count, max(some, int(some * most_s / max(seconds, 1e-3)))))
    return seconds * count / taken


def _known(out: Path, budget: Budget | None, chosen: Recipe) -> Recipe | ConvNeXtError | None:
    """What plan.json has for this run, why it is refused, or None where there is nothing to go on with."""
    going_on = last_of(out) is not None
    try:
        plan = json.loads((out / PLAN).read_text("utf-8"))
        planned: Recipe = parse(type(chosen), plan["recipe"], where=f"'{out / PLAN}'")
        minutes, asked = float(plan["minutes"]), plan["asked"]
    except FileNotFoundError:
        if going_on and budget:
            return ConvNeXtError(
                f"'{out}' holds a run without a plan of its time. To go on with it leave out --minutes; or choose another "
                "--out."
            )
        return None
    except (OSError, ValueError, TypeError, KeyError, ConvNeXtError):
        if not going_on:
            return None
        return ConvNeXtError(f"'{out / PLAN}' is damaged, and the run there needs it. Choose another --out.")
    if budget and minutes == budget.minutes and asked == chosen.model_dump(mode="json"):
        return planned
    if not going_on:
        (out / PLAN).unlink()
        return None
    if budget is None:
        return None if planned == chosen else _planned_otherwise(out, minutes, f"Add --minutes {minutes:g}")
    if minutes != budget.minutes:
        return _planned_otherwise(out, minutes, f"Give --minutes {minutes:g}")
    return _planned_otherwise(out, minutes, "Give the same recipe and options")


def _planned_otherwise(out: Path, minutes: float, way: str) -> ConvNeXtError:
    return ConvNeXtError(
        f"'{out}' holds a run planned for {_minutes(minutes)}. {way} to go on with it, or choose another --out."
    )


def _write(out: Path, budget: Budget, chosen: Recipe, made: Recipe, pace: Pace) -> None:
    """plan.json."""
    before, after = fields_of(chosen), fields_of(made)
    plan = {
        "minutes": budget.minutes,
        "expected_minutes": round((pace.spent_s + seconds_of(made, pace)) / 60, 2),
        "changed": {name: [before[name], after[name]] for name in after if before[name] != after[name]},
        "measured": asdict(pace),
        "asked": chosen.model_dump(mode="json"),
        "recipe": made.model_dump(mode="json"),
    }
    write_text(out / PLAN, to_json(plan, indent=1) + "\n")


def _decided(chosen: Recipe, made: Recipe) -> str:
    """'12 epochs instead of 54, at 96 instead of 128 px', or of a probe alone what it is."""
    unit = "step" if chosen.schedule.steps else "epoch"
    before, after = ((recipe.schedule.steps or recipe.schedule.epochs or 0) for recipe in (chosen, made))
    if isinstance(made, ClassificationRecipe) and made.start.mode == "probe":
        said = "a linear head on the frozen network"
    else:
        said = (
            f"{number_of(after, unit)} instead of {before:,g}" if after != before else f"all {number_of(after, unit)}"
        )
    if size_of(made) != size_of(chosen):
        said += f", at {size_of(made)} instead of {size_of(chosen)} px"
    return said


def _measured(made: Recipe, pace: Pace) -> str:
    """What was measured, and what follows."""
    step = f"A step takes {max(timed.step_s for timed in pace.steps):.2g} s, " if pace.steps else ""
    whole = in_words(pace.spent_s + seconds_of(made, pace))
    return f"{step}{'an' if step else 'An'} evaluation takes {pace.evaluation_s:.2g} s, the whole run about {whole}."


def _minutes(minutes: float) -> str:
    return f"{minutes:g} min"


def _quiet(options: RunOptions) -> RunOptions:
    return options.model_copy(update={"progress": False})
