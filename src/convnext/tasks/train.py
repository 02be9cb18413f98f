"""From data on the disk to a finished run, for every task: what decides it is read once, at the top."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from convnext.config import (
    Bands,
    ClassificationRecipe,
    DetectionRecipe,
    Recipe,
    RunOptions,
    SegmentationRecipe,
    override,
)
from convnext.config.facts import StartFacts
from convnext.data.source import Source
from convnext.engine.distributed import World
from convnext.engine.fit import Finished
from convnext.engine.precision import capability_of, float32_of
from convnext.engine.records import info, warn
from convnext.engine.scored import Watcher
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import to_json, write_text
from convnext.recipes import (
    DEFAULT,
    PUBLISHED,
    asked_batch,
    batch_advice,
    default_name,
    lr_advice,
    recipe,
    with_changes,
    with_fitting_batch,
)
from convnext.tasks.budget import Budget, budget_of, within
from convnext.tasks.classification.conclusion import Wanted
from convnext.tasks.contents import require_same_contents
from convnext.tasks.fitting import Ended, evaluated, fresh, with_kernels
from convnext.tasks.headline import backbone_line, headline
from convnext.tasks.opening import (
    AnyFindings,
    Named,
    bands_of,
    image_px,
    look,
    measured_on,
    read_by,
    source_of,
    test_of,
)
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import named_once, say_skipped
from convnext.tasks.splits import corrected_splits, splits_of
from convnext.tasks.starting import held_recipe, kept_bands, kept_draw, network_name, precision_here, start_facts
from convnext.tasks.table import row_of
from convnext.tasks.workplace import workplace

Watch = Callable[[Path, Any, Any], Watcher | None]  # (folder of a run, full recipe, splits) -> for `fit`


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for when they train."""

    data: Named
    val: Named | None = None  # annotations of held-out images, when they are elsewhere
    task: str | None = None  # None: what the data are annotated for
    recipe: str | Recipe | None = None  # a name or a value; None: the default of the task
    model: str | None = None  # the network, or the backbone; None: that of the weights or of the recipe, else 'atto'
    weights: str | None = None  # a run, a file or 'hub:OWNER/NAME': of the task, or of a classifier for a backbone
    channels: int | None = None  # None: what the images have; 1: grey
    bands: tuple[str, ...] = ()  # that are the channels, in order: numbers in a file, or ends of names; (): all
    size_px: int | None = None  # classification: of the training crop; else the shorter side that a recipe trains at
    val_share: float = 0.2
    seed: int = 0
    corrections: str | None = None  # classification: a table of images that are left out or get another class
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted recipe fields -> value, e.g. {'optim.lr': '1e-3'}
    minutes: float | str | None = None  # in which the run is to end; None: the recipe's own length
    promise: float | None = None  # classification: the share of the answers that shall be right
    sets: float | None = None  # classification: the share of the sets of classes that shall hold the right one


@dataclass(frozen=True)
class Examined:
    """The data of a run after a look at all of them."""

    task: str
    splits: Any  # of the task: `train`, `val` and `val_share`
    findings: AnyFindings
    bands: Bands | None = None  # how the images are read, where they are not in grey or colour
    test: Any = None  # images that neither train nor choose, where the data have such a part: scored once, at the end


@dataclass(frozen=True)
class Done:
    """A run that is trained and evaluated."""

    out: Path
    task: str
    finished: Finished
    splits: Any  # of the task: `train` and `val`
    evaluation: Evaluation  # of the best weights on the held-out images
    first: bool  # whether this process is the one that speaks


def train(request: Request, options: RunOptions, *, watch: Watch | None = None) -> Done:
    """Train by `request` into `options.out` and evaluate the best weights; with the same request again, go on.

    `watch` is called before training, also of a run that goes on, and what it returns after each evaluation.
    Raises ConvNeXtError (and its kinds) for everything that the person can mend.
    """
    budget = budget_of(
        request.minutes, request.changes, sized=bool(request.size_px), weights=request.weights is not None
    )
    Wanted.of(request.promise, request.sets)  # now: it may refuse
    with workplace(options) as (device, world):
        request, start = started(request, options)  # first: it may refuse, and data take long to look at
        data = examine(request, options, world)
        return trained(request, start, data, options, budget, device=device, world=world, watch=watch)


def trained(
    request: Request,
    start: StartFacts | None,
    data: Examined,
    options: RunOptions,
    budget: Budget | None,
    *,
    device: torch.device,
    world: World,
    watch: Watch | None = None,
) -> Done:
    """A run on data that were looked at, as `train` makes it. Raises what `train` raises."""
    how: dict[str, Any] = {"device": device, "world": world}
    if isinstance(request.recipe, str | None):
        fitted = world.from_first(precision_here(request.recipe, Path(options.out), device) if world.first else None)
        request = replace(request, changes={**fitted, **request.changes})
    chosen = choose_recipe(request, start, data)
    asked = measured_on(data.test, chosen, Wanted.of(request.promise, request.sets))
    chosen = within(
        budget, chosen, data.splits, options, lambda each: with_kernels(fresh(each), each, options, device), **how
    )
    watcher = watch(Path(options.out), chosen, data.splits) if watch and world.first else None
    run: dict[str, Any] = {"weights": request.weights, "forecast": budget is None, "watcher": watcher}
    with float32_of(chosen.precision, capability_of(device)), named_once(data.findings.broken):
        ended = carry_out(chosen, data, options, **how, **run)
        found = evaluated(chosen, data.splits.val, options, ended, test=data.test, **how, wanted=asked)
    return Done(Path(options.out), data.task, ended.finished, data.splits, found, world.first)


def examine(request: Request, options: RunOptions, world: World) -> Examined:
    """The images, and what a look at all of them found and logged. Raises DataError when they cannot be used."""
    source = source_of(request.data, request.task, apart=request.val is not None)
    val = None if request.val is None else source_of(request.val, source.task)
    held = _held_recipe(request)
    if held or request.bands:
        source = source.with_bands(held.input.bands if held else request.bands)
    known = world.from_first(kept_draw(Path(options.out)) if world.first else None)
    how: dict[str, Any] = {"val": val, "val_share": request.val_share, "seed": request.seed}
    splits = splits_of(source, drawn=known, **how) if world.first else None
    drawn = world.from_first(splits.drawn if splits else "")  # one process has looked at the images
    splits = splits or splits_of(source, drawn=drawn, **how)
    if request.corrections is not None:
        splits = corrected_splits(source, splits, request.corrections)
    return examined(source, splits, request, options, world)


def examined(source: Source, splits: Any, request: Request, options: RunOptions, world: World) -> Examined:
    """The same of images that are parted already."""
    held, task = _held_recipe(request), source.task
    how: dict[str, Any] = {"workers": options.workers}
    kept = kept_bands(Path(options.out)) if world.first else None
    asked: dict[str, Any] = {"asked": request.bands, "channels": request.channels, "kept": kept}
    facts = world.from_first(bands_of(splits, **asked, **how) if world.first and held is None else None)
    bands = facts.bands if facts else held.input if held and held.input.bands else None
    splits = read_by(splits, bands)
    findings = world.from_first(look(splits, **how, bands=bands) if world.first else None)
    if findings.errors:
        raise DataError(" ".join(findings.errors), findings.reasons)
    if not splits.val.entries:
        raise DataError(f"No images are held out to evaluate on. {row_of(task).hold_out}", findings.reasons)
    if options.strict_images and findings.broken:
        path, reason = next(iter(findings.broken.items()))
        raise DataError(
            f"{number_of(len(findings.broken), 'image')} cannot be read; the first is '{path}': {reason}. Mend or remove "
            "them, or leave out --strict-images."
        )
    if world.first:
        for line in (*findings.lines, *(facts.lines if facts else ())):
            info(line)
    test = test_of(source, splits.train.classes, val_apart=request.val is not None)
    return Examined(task, splits, findings, bands, read_by(test, bands))


def _held_recipe(request: Request) -> ClassificationRecipe | DetectionRecipe | SegmentationRecipe | None:
    return None if isinstance(request.recipe, str) else request.recipe


def started(request: Request, options: RunOptions) -> tuple[Request, StartFacts | None]:
    """The request and the facts of the weights that it starts from; of a run that goes on without them, its recipe.

    Raises CheckpointError for weights that cannot be read, ConvNeXtError where they are of another network than asked.
    """
    if request.weights is None or not isinstance(request.recipe, str | None):
        mode = getattr(getattr(request.recipe, "start", None), "mode", "full")
        if request.weights is None and (request.recipe == "transfer" or mode != "full"):
            raise ConvNeXtError("Recipe 'transfer' starts from weights, and none are named. Add --weights FILE.")
        return request, None
    held = held_recipe(Path(options.out), request.weights)
    if held is not None:
        return replace(request, recipe=held, model=None), None
    return request, start_facts(request.weights, request.model)


def choose_recipe(request: Request, start: StartFacts | None, data: Examined) -> Any:
    """The full recipe: the named one or the default of the task, fitted to the data, with the person's changes on top.

    `start`: facts of the weights. Raises ConvNeXtError for a recipe of another task, and for a field or a value that is
    refused.
    """
    train, row = data.splits.train, row_of(data.task)
    images, classes = len(train.entries), len(train.classes)
    changes, side_px = dict(request.changes), image_px(data.findings)
    if request.size_px and data.task == "classification":
        changes.setdefault("input.size_px", request.size_px)
    elif request.size_px:
        side_px = request.size_px
    name: str | None = None
    if request.recipe is None or isinstance(request.recipe, str):
        chosen = recipe(
            request.recipe or default_name(data.task, weights=start is not None),
            network_name(request.model, start),
            images=images,
            image_px=side_px,
            classes=classes,
            batch=asked_batch(changes),
            in_channels=request.channels or 3,
            seed=request.seed,
            start=start,
            bands=data.bands,
        )
        name = chosen.name
        _tell_left_out(request.recipe, chosen)
    else:
        chosen = request.recipe
    if chosen.task != data.task:
        raise ConvNeXtError(
            f"recipe '{chosen.name}' is for {chosen.task}, and the data are for {data.task}. Take '{DEFAULT[data.task]}'."
        )
    asked = changes.get(row.classes)
    if asked is not None and str(asked) != str(classes):
        raise ConvNeXtError(
            f"{row.classes} = {asked}, but the data have {number_of(classes, 'class', 'classes')}. "
            "Leave it out: the head follows the data."
        )
    of_data = row.fitted(train, data.findings, name, changes.get("select.metric"))
    chosen = override(chosen, {row.classes: classes, **of_data})
    return with_fitting_batch(with_changes(chosen, changes, images=images), images, changes)


def _tell_left_out(name: str | None, chosen: Recipe) -> None:
    """Say what a recipe by name does to colours, and not to bands."""
    if not isinstance(chosen, ClassificationRecipe) or name not in PUBLISHED["classification"]:
        return
    own = PUBLISHED["classification"][name]("tiny")
    if isinstance(own, ClassificationRecipe) and own.augment.rand_augment and not chosen.augment.rand_augment:
        info(f"augment.rand_augment of recipe '{name}' is left out: it changes colours, which bands do not have.")


def carry_out(
    chosen: Recipe,
    data: Examined,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None = None,
    forecast: bool = False,
    watcher: Watcher | None = None,
) -> Ended:
    """Train by a full recipe into `options.out`, or go on there; write down what it was made of, and `forecast` its time."""
    require_same_contents(data.splits, data.findings.digests, options, world)
    if world.first:
        for advice in (batch_advice(chosen, len(data.splits.train.entries)), lr_advice(chosen)):
            if advice:
                warn(advice)
        started = backbone_line(chosen) if weights is not None else ""
        told = row_of(chosen.task).told(chosen, data.splits.train)
        for line in filter(
            None, (headline(chosen, data.splits, image_px(data.findings), device, world), told, started)
        ):
            info(line)
    how: dict[str, Any] = {"device": device, "world": world, "weights": weights, "forecast": forecast}
    ended: Ended = row_of(chosen.task).carry_out(chosen, data.splits, options, **how, watcher=watcher)
    skipped = dict(data.findings.broken)  # an earlier process of this run may have met them
    for found in world.gather(dict(ended.skipped)):
        skipped |= found
    if world.writes():
        note_data(Path(options.out), data, skipped, ended.learnt)
    return ended


def note_data(out: Path, data: Examined, skipped: dict[str, str], learnt: Any = None) -> None:
    """data.json: what the run was made of, and which images could not be used; `learnt`: see `Ended`."""
    say_skipped(skipped, out)
    findings, splits = data.findings, data.splits
    parts = {"train": splits.train if learnt is None else learnt, "val": splits.val}
    found: dict[str, Any] = {
        "task": data.task,
        "classes": list(splits.train.classes),
        **{name: row_of(data.task).counts(part, findings, name) for name, part in parts.items()},
        "findings": list(findings.lines),
        "problems": getattr(findings, "problems", {}),
        "skipped": skipped,
    }
    write_text(out / "data.json", to_json(found, indent=1) + "\n")
