"""A person's changes of a recipe, and what follows from them: warm-up, EMA, evaluations, the size of evaluation."""

from collections.abc import Mapping
from typing import Any

from convnext.config import Bands, ClassificationRecipe, Recipe, Statistics, override
from convnext.errors import ConvNeXtError
from convnext.recipes.baselines import with_grid
from convnext.recipes.dense import EVALUATIONS, interval, often_enough
from convnext.recipes.shorter import shorter_ema

_WARMUP = {"schedule.warmup_epochs", "schedule.warmup_steps"}


def with_changes(chosen: Recipe, changes: Mapping[str, Any], *, images: int) -> Recipe:
    """`chosen` with dotted fields replaced, and with what follows from these unless it is given itself.

    A run that becomes shorter has a warm-up and, where the recipe fits it to the run, an EMA of the same share; a recipe
    that is scored so many times in a run still is, with `images` training images; evaluation has the size of training.
    Raises ConvNeXtError for what `override` refuses.
    """
    for name in Bands.model_fields.keys() - Statistics.model_fields.keys():
        if f"input.{name}" in changes and isinstance(chosen.input, Bands):
            raise ConvNeXtError(f"--input.{name} follows the images and --bands. Leave it out, or name bands.")
    wanted = dict(changes)
    if isinstance(chosen, ClassificationRecipe) and "input.size_px" in changes:
        wanted.setdefault("input.eval_size_px", changes["input.size_px"])
        wanted.setdefault("input.progressive", [])
    share = _share(chosen, changes["schedule.epochs"]) if "schedule.epochs" in changes else 1.0
    if share < 1 and chosen.schedule.warmup_epochs and not _WARMUP & set(changes):
        wanted["schedule.warmup_epochs"] = chosen.schedule.warmup_epochs * share
    if share < 1 and chosen.optim.ema and chosen.optim.ema_warmup and "optim.ema" not in changes:
        wanted["optim.ema"] = shorter_ema(chosen.optim.ema, share)
    made = override(chosen, wanted)
    if {"schedule.epochs", "schedule.steps"} & set(changes) and "schedule.eval_epochs" not in changes:
        made = with_interval(made, images=images)
    return with_grid(made)


def together(overrides: Mapping[str, Any], short: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides`, and the fields that arguments of their own are `short` for, None where they are not given.

    Raises ConvNeXtError for a field that is given both ways.
    """
    given = {field: value for field, value in short.items() if value is not None}
    for field in given:
        if field in overrides:
            name = field.rpartition(".")[2]
            raise ConvNeXtError(f"{name} and overrides['{field}'] say the same. Give one of them.")
    return {**overrides, **given}


def with_interval(chosen: Recipe, *, images: int) -> Recipe:
    """`chosen`, scored as often in a run as its recipe has it; one that is scored after every epoch stays so."""
    if chosen.name not in EVALUATIONS:
        return chosen
    schedule = chosen.schedule
    if schedule.epochs is not None:
        return override(chosen, {"schedule.eval_epochs": interval(chosen.name, schedule.epochs)})
    epochs = (schedule.steps or 0) / max(1, images // chosen.optim.batch)
    every = often_enough(chosen.name, int(epochs / EVALUATIONS[chosen.name]), epochs)
    return override(chosen, {"schedule.eval_epochs": every})


def asked_batch(changes: Mapping[str, Any]) -> int | None:
    """The batch that a person asks for. Raises ConvNeXtError where it is no whole number."""
    batch = changes.get("optim.batch")
    if batch is not None and not str(batch).isdigit():
        raise ConvNeXtError(f"optim.batch = {batch} is refused: it must be a whole number of images, 1 or more.")
    return None if batch is None else int(batch)


def _share(chosen: Recipe, epochs: Any) -> float:
    """`epochs` over the epochs of the recipe; 1 for what is longer, and for what `override` refuses with its name."""
    try:
        return min(1.0, float(epochs) / (chosen.schedule.epochs or float(epochs)))
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0
