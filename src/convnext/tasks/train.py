"""From data on the disk to a finished run: read once what decides it, say what was found, then hand over to the loop."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import ClassificationRecipe, Recipe, RunOptions, expect
from convnext.data.labelled import Splits
from convnext.data.opening import open_splits
from convnext.data.preflight import Findings, preflight
from convnext.data.source import Source
from convnext.engine.distributed import World, choose_device, join
from convnext.engine.environment import environment
from convnext.engine.fit import Finished, fit
from convnext.engine.memory import keep_freed_memory, want_large_pages
from convnext.engine.records import info, warn
from convnext.engine.run import LAST, Claim, weights_file
from convnext.engine.task import Task
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import write_text
from convnext.kernels import dispatch
from convnext.models.build import build_model
from convnext.models.fused import fuse
from convnext.models.provenance import NON_COMMERCIAL, read_provenance
from convnext.models.weights import load_weights
from convnext.recipes import DEFAULT, asked_batch, lr_advice, recipe, with_changes
from convnext.tasks.classification import Classification


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for when they train."""

    data: Source
    recipe: str = DEFAULT["classification"]
    model: str = "atto"
    weights: str | None = None
    channels: int = 3
    val_share: float = 0.2
    seed: int = 0
    changes: Mapping[str, Any]  # dotted recipe fields -> value, e.g. {'optim.lr': '1e-3'}


def train(request: Request, options: RunOptions) -> tuple[Finished, Splits]:
    """Train by `request` into `options.out`; with the same request again, go on or say that it is done.

    Raises ConvNeXtError (and its kinds) for everything that the person can mend.
    """
    with workplace(options) as (device, world):
        splits, findings = examine(request, options, world)
        chosen = choose_recipe(request, splits, findings)
        finished = carry_out(chosen, splits, findings, options, device=device, world=world, weights=request.weights)
        return finished, splits


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


def examine(request: Request, options: RunOptions, world: World) -> tuple[Splits, Findings]:
    """The images, and what a look at all of them found and logged. Raises DataError when they cannot be used."""
    splits = open_splits(request.data, val_share=request.val_share, seed=request.seed)
    findings = preflight(splits, workers=max(0, options.workers)) if world.first else None
    findings = world.from_first(findings)
    _refuse(splits, findings, options)
    if world.first:
        for line in findings.lines:
            info(line)
    return splits, findings


def carry_out(
    chosen: ClassificationRecipe,
    splits: Splits,
    findings: Findings,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None = None,
) -> Finished:
    """Train by a full recipe into `options.out`, or go on there, and write down what the run was made of."""
    out = Path(options.out)
    if world.first:
        advice = lr_advice(chosen)
        if advice:
            warn(advice)
        info(_headline(chosen, splits, device, world))
    model = fresh(build_model, chosen.model, chosen.seed)
    if weights and not (out / LAST).exists():  # a run that goes on has its weights
        load_weights(model, weights_source(weights), info=info if world.first else silent)
    task = Classification(model, chosen, options, splits)
    finished = fit_described(task, chosen, options, device=device, world=world, weights=weights)
    skipped = dict(findings.broken)  # an earlier process of this run may have met them
    for found in world.gather(task.skipped):
        skipped |= found
    if world.first:
        _note_data(out, splits, findings, skipped)
    return finished


def fresh(build: Callable[[Any], nn.Module], values: Any, seed: int) -> Any:
    """The network that `build` makes of `values`, whose first weights follow from `seed` alone."""
    torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    return build(values)


def weights_source(weights: str) -> str:
    """The file to start from: the best of a run where `weights` is its folder."""
    return str(weights_file(Path(weights))) if Path(weights).is_dir() else weights


def fit_described(
    task: Task,
    chosen: Recipe,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None = None,
) -> Finished:
    """`fit` into a folder that says by which recipe, on which machine and, in its checkpoints, from which `weights`."""
    out = Path(options.out)
    with_kernels(task.model, chosen, options, device)
    origin = None
    if weights and world.first and not (out / LAST).exists():  # a run that goes on knows it
        known = read_provenance(weights_source(weights))
        origin = known.as_text()
        if known.licence == NON_COMMERCIAL:
            info(
                f"These weights are under {known.licence}: what is trained from them is not for commercial use, either."
            )
    if world.first and not (out / LAST).exists():
        write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
        write_text(
            out / "environment.json",
            json.dumps(environment(device, triton=options.kernels == "triton"), indent=1) + "\n",
        )
    finished = fit(task, chosen, options, device=device, world=world, origin=origin)
    if world.first:  # again: whatever became of the file meanwhile, it says what was done
        write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
    return finished


def with_kernels(model: nn.Module, chosen: Recipe, options: RunOptions, device: torch.device) -> nn.Module:
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


def _refuse(splits: Splits, findings: Findings, options: RunOptions) -> None:
    """Raise DataError for what would spoil the run or end it later; everything else is only spoken about."""
    if findings.errors:
        raise DataError(" ".join(findings.errors))
    if not splits.val.entries:
        raise DataError(
            "No images are held out to evaluate on. Add val/<class>/ with some, give each class two images or more, "
            "or raise --val-share."
        )
    refuse_broken(findings.broken, options)


def refuse_broken(broken: Mapping[str, str], options: RunOptions) -> None:
    """Raise DataError where images, path -> reason, cannot be read and the person wants to know before the run."""
    if options.strict_images and broken:
        path, reason = next(iter(broken.items()))
        raise DataError(
            f"{number_of(len(broken), 'image')} cannot be read; the first is '{path}': {reason}. Mend or remove them, or "
            "leave out --strict-images."
        )


def choose_recipe(request: Request, splits: Splits, findings: Findings) -> ClassificationRecipe:
    """The full recipe: the named one, fitted to the data, with the person's changes on top."""
    chosen = recipe(
        request.recipe,
        request.model,
        images=len(splits.train.entries),
        image_px=findings.median_px,
        classes=len(splits.train.classes),
        batch=asked_batch(request.changes),
        in_channels=request.channels,
        seed=request.seed,
    )
    asked = request.changes.get("model.classes")
    if asked is not None and str(asked) != str(len(splits.train.classes)):
        raise ConvNeXtError(
            f"model.classes = {asked}, but the data have {number_of(len(splits.train.classes), 'class', 'classes')}. "
            "Leave it out: the head follows the data."
        )
    chosen = expect(with_changes(chosen, request.changes, images=len(splits.train.entries)), ClassificationRecipe)
    if chosen.optim.batch > len(splits.train.entries):
        some = 2 ** max(0, int(math.log2(len(splits.train.entries))) - 2)
        raise ConvNeXtError(
            f"optim.batch = {chosen.optim.batch} is more than the {number_of(len(splits.train.entries), 'training image')}. "
            f"Give a smaller one, e.g. --batch {some}, with a learning rate for it."
        )
    return chosen


def _headline(chosen: ClassificationRecipe, splits: Splits, device: torch.device, world: World) -> str:
    smallest = min([size for _, size in chosen.input.progressive], default=chosen.input.size_px)
    px = f"{smallest} to {chosen.input.size_px}" if chosen.input.progressive else f"{smallest}"
    many = f" x {world.size}" if world.size > 1 else ""
    length = length_of(chosen)
    images = number_of(len(splits.train.entries), "image")
    classes = number_of(len(splits.train.classes), "class", "classes")
    return (
        f"Training {chosen.model.name} by recipe '{chosen.name}': {images} in {classes}, "
        f"{len(splits.val.entries):,} held out, {length}, batch {chosen.optim.batch}, "
        f"{px} px, {chosen.precision} on {device.type}{many}"
    )


def length_of(chosen: Recipe) -> str:
    """'30 epochs', or '160 steps' where the recipe counts those."""
    schedule = chosen.schedule
    return number_of(schedule.steps, "step") if schedule.steps else number_of(schedule.epochs or 0.0, "epoch")


def _note_data(out: Path, splits: Splits, findings: Findings, skipped: dict[str, str]) -> None:
    """data.json: what the run was made of, and which images could not be used."""
    say_skipped(skipped, out)
    data = {
        "classes": list(splits.train.classes),
        "train": _counts(splits.train),
        "val": _counts(splits.val),
        "findings": list(findings.lines),
        "skipped": skipped,
    }
    write_text(out / "data.json", json.dumps(data, indent=1) + "\n")


def say_skipped(skipped: Mapping[str, str], out: Path) -> None:
    """How many images, path -> reason, the run in `out` had to do without; nothing where it had them all."""
    if skipped:
        were = "was left out; it is" if len(skipped) == 1 else "were left out; they are"
        warn(f"{number_of(len(skipped), 'image')} could not be read and {were} listed in '{out / 'data.json'}'.")


def _counts(dataset: Any) -> dict[str, Any]:
    per_class = dict.fromkeys(dataset.classes, 0)
    for entry in dataset.entries:
        per_class[dataset.classes[entry.label]] += 1
    return {"n": len(dataset.entries), "per_class": per_class}


def silent(_: str) -> None:
    """What a process that is not the first says."""
