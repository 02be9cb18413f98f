"""What a person says in Python when they train, and the request that it makes, of one run or of a cross-validation."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from convnext import recipes
from convnext.config import Recipe, RunOptions, parse
from convnext.data.source import Annotations, Labels, NamedColumns
from convnext.errors import ConvNeXtError
from convnext.tasks.opening import source_of
from convnext.tasks.starting import run_folder
from convnext.tasks.train import Request

Balance = Literal["auto", "none", "sampler", "weights", "logits"]


class TrainArguments(TypedDict, total=False):
    """The arguments of `convnext.train`, which says what each means."""

    model: str | None
    recipe: str | Recipe | None
    weights: str | os.PathLike[str] | None
    out: str | Path | None
    epochs: float | None
    minutes: float | None
    balance: Balance
    metric: str | None
    overrides: Mapping[str, object]
    seed: int
    device: str
    workers: int
    progress: bool
    images: str | Path | None
    form: Annotations | None
    colours: str | Path | None
    bands: Sequence[str | int]
    labels: Labels | None
    label_column: str | None
    path_column: str | None
    group_column: str | None
    corrections: str | Path | None
    promise: float | None
    sets: float | None


def requested(
    data: str | Path, *, val_share: float = 0.2, **given: Unpack[TrainArguments]
) -> tuple[Request, RunOptions]:
    """The request and the options of a run on `data`. Raises ConvNeXtError for arguments that contradict each other."""
    recipe, model, balance = given.get("recipe"), given.get("model"), given.get("balance", "auto")
    short = {
        "schedule.epochs": given.get("epochs"),
        "loss.balance": None if balance == "auto" else balance,
        "select.metric": given.get("metric"),
    }
    changes = recipes.together(given.get("overrides", {}), short)
    if model and not isinstance(recipe, str | None):
        raise ConvNeXtError(f"model = '{model}' is refused: the recipe is a value, which has its own network.")
    network = model or (None if isinstance(recipe, str | None) else recipe.model.name)
    weights, corrections = map(_place, (given.get("weights"), given.get("corrections")))
    told: dict[str, Any] = {name: given.get(name) for name in ("images", "form", "colours", "labels")}
    told["columns"] = NamedColumns.of(given.get("label_column"), given.get("path_column"), given.get("group_column"))
    how: dict[str, Any] = {name: given.get(name) for name in ("minutes", "promise", "sets")}
    how |= {"model": network, "recipe": recipe, "weights": weights, "corrections": corrections, "changes": changes}
    how |= {"bands": tuple(map(str, given.get("bands", ()))), "val_share": val_share, "seed": given.get("seed", 0)}
    out = given.get("out")
    place = run_folder(data, network, weights) if out is None else str(out)
    options: dict[str, Any] = {name: given[name] for name in ("device", "workers", "progress") if name in given}
    options["out"] = place
    return Request(data=source_of(data, **told), **how), parse(RunOptions, options, where="options")


def _place(given: str | os.PathLike[str] | None) -> str | None:
    return None if given is None else os.fspath(given)
