"""From data on the disk to a finished run, for every task: what decides it is read once, at the top."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import Recipe, RunOptions, TaskRecipe, Training, override
from convnext.engine.distributed import World, choose_device, join
from convnext.engine.environment import environment
from convnext.engine.fit import Finished, fit
from convnext.engine.forecast import Work
from convnext.engine.memory import keep_freed_memory, want_large_pages
from convnext.engine.records import info, warn
from convnext.engine.run import LAST, Claim
from convnext.engine.task import Task
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import write_text
from convnext.kernels import dispatch
from convnext.models.fused import fuse
from convnext.models.provenance import read_provenance, terms
from convnext.recipes import DEFAULT, asked_batch, lr_advice, recipe, with_changes
from convnext.tasks.budget import budget_of, within
from convnext.tasks.evaluate import answering
from convnext.tasks.opening import AnyFindings, Named, image_px, look, source_of, splits_of
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import say_skipped
from convnext.tasks.table import row_of
from convnext.tasks.weights import file_of, load_best
from convnext.tasks.work import work_of


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for when they train."""

    data: Named
    val: Named | None = None  # annotations of held-out images, when they are elsewhere
    task: str | None = None  # None: what the data are annotated for
    recipe: str | Recipe | None = None  # a name or a value; None: the default of the task
    model: str = "atto"  # the network, or the backbone; that of a recipe that is given as a value stays
    weights: str | None = None  # a run, a file or 'hub:OWNER/NAME': of the task, or of a classifier for a backbone
    channels: int = 3
    size_px: int | None = (
        None  # classification: of the training crop; else the shorter side that a fitted recipe trains at
    )
    val_share: float = 0.2
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted recipe fields -> value, e.g. {'optim.lr': '1e-3'}
    minutes: float | str | None = None  # in which the run is to end; None: the recipe's own length


@dataclass(frozen=True)
class Examined:
    """The data of a run after a look at all of them."""

    task: str
    splits: Any  # of the task: `train`, `val` and `val_share`
    findings: AnyFindings


@dataclass(frozen=True)
class Done:
    """A run that is trained and evaluated."""

    out: Path
    task: str
    finished: Finished
    splits: Any  # of the task: `train` and `val`
    evaluation: Evaluation  # of the best weights on the held-out images
    first: bool  # whether this process is the one that speaks


def train(request: Request, options: RunOptions) -> Done:
    """Train by `request` into `options.out` and evaluate the best weights; with the same request again, go on.

    Raises ConvNeXtError (and its kinds) for everything that the person can mend.
    """
    budget = budget_of(request.minutes, request.changes, sized=bool(request.size_px))
    with workplace(options) as (device, world):
        data = examine(request, options, world)
        chosen = choose_recipe(request, data)
        how: dict[str, Any] = {"device": device, "world": world}
        chosen = within(
            budget, chosen, data.splits, options, lambda each: with_kernels(fresh(each), each, options, device), **how
        )
        finished = carry_out(chosen, data, options, **how, weights=request.weights, forecast=budget is None)
        found = evaluate_best(chosen, data.splits.val, options, finished, device=device, world=world)
        return Done(Path(options.out), data.task, finished, data.splits, found, world.first)


@contextlib.contextmanager
def workplace(options: RunOptions) -> Iterator[tuple[torch.device, World]]:
    """The device and the processes to work with, and `options.out` claimed for them."""
    device = choose_device(options.device)
    if device.type != "cuda" and options.device == "auto" and torch.cuda.device_count():
        warn("A GPU is present, but this torch cannot use it: training on the CPU.")
    if device.type == "cpu":
        want_large_pages()
        keep_freed_memory()
    with join(device) as world, Claim(Path(options.out)) if world.first else contextlib.nullcontext():
        yield device, world


def examine(request: Request, options: RunOptions, world: World) -> Examined:
    """The images, and what a look at all of them found and logged. Raises DataError when they cannot be used."""
    source = source_of(request.data, request.task, apart=request.val is not None)
    val, task = None if request.val is None else source_of(request.val, source.task), source.task
    splits = splits_of(source, val=val, val_share=request.val_share, seed=request.seed)
    findings = world.from_first(look(splits, workers=options.workers) if world.first else None)
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
        for line in findings.lines:
            info(line)
    return Examined(task, splits, findings)


def choose_recipe(request: Request, data: Examined) -> Any:
    """The full recipe: the named one or the default of the task, fitted to the data, with the person's changes on top.

    Raises ConvNeXtError for a recipe of another task, and for a field or a value that is refused.
    """
    train, row = data.splits.train, row_of(data.task)
    images, classes = len(train.entries), len(train.classes)
    changes, side_px = dict(request.changes), image_px(data.findings)
    if request.size_px and data.task == "classification":
        changes.setdefault("input.size_px", request.size_px)
    elif request.size_px:
        side_px = request.size_px
    if request.recipe is None or isinstance(request.recipe, str):
        chosen = recipe(
            request.recipe or DEFAULT[data.task],
            request.model,
            images=images,
            image_px=side_px,
            classes=classes,
            batch=asked_batch(changes),
            in_channels=request.channels,
            seed=request.seed,
        )
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
    chosen = override(chosen, {row.classes: classes, **row.fitted(train)})
    chosen = with_changes(chosen, changes, images=images)
    if chosen.optim.batch > images:
        some = 2 ** max(0, int(math.log2(images)) - 2)
        raise ConvNeXtError(
            f"optim.batch = {chosen.optim.batch} is more than the {number_of(images, 'training image')}. "
            f"Give a smaller one, e.g. --batch {some}, with a learning rate for it."
        )
    return chosen


def carry_out(
    chosen: Recipe,
    data: Examined,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None = None,
    forecast: bool = False,
) -> Finished:
    """Train by a full recipe into `options.out`, or go on there; write down what it was made of, and `forecast` its time."""
    out, row = Path(options.out), row_of(chosen.task)
    if world.first:
        advice = lr_advice(chosen)
        if advice:
            warn(advice)
    model = fresh(chosen)
    if weights and not (out / LAST).exists():  # a run that goes on has its weights
        row.load(model, file_of(weights), classes=data.splits.train.classes, info=info if world.first else silent)
    if world.first:
        info(headline(chosen, data, device, world))
    task = row.task(model, chosen, options, data.splits)
    work = work_of(chosen, data.splits) if forecast else None
    finished = fit_described(task, chosen, options, device=device, world=world, weights=weights, work=work)
    skipped = dict(data.findings.broken)  # an earlier process of this run may have met them
    for found in world.gather(task.skipped):
        skipped |= found
    if world.first:
        note_data(out, data, skipped)
    return finished


def fresh(chosen: TaskRecipe) -> nn.Module:
    """The network of a recipe, whose first weights follow from the recipe's seed alone."""
    torch.manual_seed(chosen.seed & 0x7FFF_FFFF_FFFF_FFFF)
    return row_of(chosen.task).build(chosen)


def fit_described(
    task: Task,
    chosen: Training,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None = None,
    work: Work | None = None,
) -> Finished:
    """`fit` into a folder that says by which recipe, on which machine and, in its checkpoints, from which `weights`."""
    out = Path(options.out)
    with_kernels(task.model, chosen, options, device)
    origin = None
    if weights and world.first and not (out / LAST).exists():  # a run that goes on knows it
        known = read_provenance(file_of(weights))
        origin = known.as_text()
        if terms(known.licence):
            info(f"These weights are under {known.licence}: {terms(known.licence)}.")
    if world.first and not (out / LAST).exists():
        write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
        write_text(
            out / "environment.json",
            json.dumps(environment(device, triton=options.kernels == "triton"), indent=1) + "\n",
        )
    finished = fit(task, chosen, options, device=device, world=world, origin=origin, work=work)
    if world.first:  # again: whatever became of the file meanwhile, it says what was done
        write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
    return finished


def with_kernels(model: nn.Module, chosen: Training, options: RunOptions, device: torch.device) -> nn.Module:
    """`model` on the blocks' kernels, where this run is one for them.

    On a CPU float32 and bfloat16, not compiled by torch; on a GPU any precision, also compiled, for those who ask for Triton.
    """
    if options.kernels == "plain":
        return model
    if dispatch.on_gpu(device):
        fuse(model, triton=options.kernels == "triton", device=device)
    elif device.type == "cpu" and not options.compile and chosen.precision != "fp16":
        fuse(model)
    return model


def evaluate_best(
    chosen: Recipe, val: Any, options: RunOptions, finished: Finished, *, device: torch.device, world: World
) -> Evaluation:
    """What the best weights make of the held-out images, written into evaluation.json."""
    out, row = Path(options.out), row_of(chosen.task)
    model = with_kernels(load_best(row.build(chosen), out, finished.weights), chosen, options, device)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    shown: dict[str, Any] = {"workers": options.workers, "progress": options.progress}
    with answering(chosen, device):
        found = row.evaluation(model, val, chosen, world=world, skipped={}, **shown)
    early = {"stopped_early": True} if finished.early else {}
    found = found.with_about(metric=finished.metric, weights=finished.weights, step=finished.step, **early)
    if world.first:
        write_text(out / "evaluation.json", json.dumps(found.to_dict()) + "\n")
    return found


def headline(chosen: Recipe, data: Examined, device: torch.device, world: World) -> str:
    """What is trained, on what and for how long, in one line."""
    least, most = chosen.input.training_px
    own = image_px(data.findings)
    larger = f" (images of {own} are enlarged)" if chosen.task != "classification" and own < least else ""
    splits, many = data.splits, f" x {world.size}" if world.size > 1 else ""
    return (
        f"Training {chosen.model.name} by recipe '{chosen.name}': {number_of(len(splits.train.entries), 'image')} in "
        f"{number_of(len(splits.train.classes), 'class', 'classes')}, {len(splits.val.entries):,} held out, "
        f"{length_of(chosen)}, batch {chosen.optim.batch}, {f'{least} to {most}' if least < most else most} px{larger}, "
        f"{chosen.precision} on {device.type}{many}"
    )


def length_of(chosen: Training) -> str:
    """'30 epochs', or '160 steps' where the recipe counts those."""
    schedule = chosen.schedule
    return number_of(schedule.steps, "step") if schedule.steps else number_of(schedule.epochs or 0.0, "epoch")


def note_data(out: Path, data: Examined, skipped: dict[str, str]) -> None:
    """data.json: what the run was made of, and which images could not be used."""
    say_skipped(skipped, out)
    findings, splits = data.findings, data.splits
    parts = {"train": splits.train, "val": splits.val}
    found: dict[str, Any] = {
        "task": data.task,
        "classes": list(splits.train.classes),
        **{name: row_of(data.task).counts(part, findings, name) for name, part in parts.items()},
        "findings": list(findings.lines),
        "problems": getattr(findings, "problems", {}),
        "skipped": skipped,
    }
    write_text(out / "data.json", json.dumps(found, indent=1) + "\n")


def silent(_: str) -> None:
    """What a process that is not the first says."""
