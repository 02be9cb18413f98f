"""From annotated images to a finished run of detection or segmentation, as `train.py` does it for classes."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import DetectionRecipe, Recipe, RunOptions, SegmentationRecipe, expect, override
from convnext.data.annotated_preflight import DenseFindings, preflight_dense
from convnext.data.dataset import DenseDataset
from convnext.data.opening import DenseSplits, open_dense_splits
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.fit import Finished
from convnext.engine.records import info
from convnext.engine.run import LAST, weights_file
from convnext.engine.update import autocast
from convnext.errors import ConvNeXtError, DataError, number_of
from convnext.files import write_text
from convnext.recipes import DEFAULT, asked_batch, recipe, with_changes
from convnext.tasks.dense_weights import load_dense_weights
from convnext.tasks.detection import detection
from convnext.tasks.detection import report as detection_tables
from convnext.tasks.segmentation import metrics as segmentation_metrics
from convnext.tasks.segmentation import segmentation
from convnext.tasks.train import (
    fit_described,
    fresh,
    length_of,
    refuse_broken,
    say_skipped,
    silent,
    weights_source,
    with_kernels,
    workplace,
)

_FEW = 60  # objects of an image; with more, more than COCO's 100 detections are shown


@dataclass(frozen=True, kw_only=True)
class DenseRequest:
    """What a person asks for when they train on boxes, masks or label maps."""

    data: Source
    val: Source | None = None  # held-out images, when they are elsewhere
    recipe: str | None = None  # None: the small one of the data's task
    model: str = "atto"
    weights: str | None = None  # a run, a file or 'hub:OWNER/NAME': of the task, or of a classifier for the backbone
    channels: int = 3
    image_px: int | None = None  # shorter side that a small recipe trains at; None: that of the images
    val_share: float = 0.2
    seed: int = 0
    changes: Mapping[str, Any]  # dotted recipe fields -> value, e.g. {'optim.lr': '1e-3'}


@dataclass(frozen=True)
class DenseTask:
    """What tells one dense task from the other, for everything here and behind."""

    recipe: str  # that is taken when none is named
    build: Callable[[Recipe], nn.Module]
    task: Callable[..., Any]  # (model, recipe, options, train, val, val_share) -> engine.task.Task with `skipped`
    report: Callable[..., dict[str, Any]]  # (model, dataset, recipe, *, workers, world, skipped) -> evaluation.json
    fitted: Callable[[DenseDataset], dict[str, Any]]  # what the data decide about a recipe
    fingerprint: Callable[[DenseDataset, Recipe], str]  # of what is trained on, as a checkpoint has it


def detection_report(model: nn.Module, dataset: DenseDataset, chosen: DetectionRecipe, **ways: Any) -> dict[str, Any]:
    """What `evaluation.json` holds of a detector; `ways` are those of `detection.evaluate`."""
    outcomes = detection.evaluate(model, dataset, chosen, **ways)
    return detection_tables.report(outcomes, dataset, most=detection.limit_of(chosen))


def segmentation_report(
    model: nn.Module, dataset: DenseDataset, chosen: SegmentationRecipe, **ways: Any
) -> dict[str, Any]:
    """What `evaluation.json` holds of a segmenter; `ways` are those of `segmentation.evaluate`."""
    outcomes = segmentation.evaluate(model, dataset, chosen, **ways)
    paths = [printable(entry.path) for entry in dataset.entries]
    return segmentation_metrics.report(outcomes, dataset.classes, paths)


def fitted_detector(train: DenseDataset) -> dict[str, Any]:
    """No mask head where there are no masks, and room for half as many detections again as an image has objects."""
    changes: dict[str, Any] = {} if train.has_masks else {"head.masks": False}
    objects = max((int((~e.objects.crowd).sum()) for e in train.entries if e.objects is not None), default=0)
    return changes | ({"head.most": 100 * math.ceil(1.5 * objects / 100)} if objects > _FEW else {})


TASKS = {
    "detection": DenseTask(
        DEFAULT["detection"],
        detection.build_detector,
        detection.Detection,
        detection_report,
        fitted_detector,
        lambda train, chosen: detection.fingerprint(
            detection.shown_in_training(train, expect(chosen, DetectionRecipe))
        ),
    ),
    "segmentation": DenseTask(
        DEFAULT["segmentation"],
        segmentation.build_segmenter,
        segmentation.Segmentation,
        segmentation_report,
        lambda train: {},
        lambda train, chosen: segmentation.fingerprint(train),
    ),
}


def train_dense(request: DenseRequest, options: RunOptions) -> tuple[Finished, DenseSplits, dict[str, Any]]:
    """Train by `request` into `options.out` and evaluate the best weights; with the same request again, go on.

    Returns how it ended, the data, and what `evaluation.json` holds. Raises ConvNeXtError (and its kinds) for everything
    that the person can mend.
    """
    with workplace(options) as (device, world):
        splits, findings = examine_dense(request, options, world)
        chosen = choose_dense_recipe(request, splits, findings)
        finished = _carry_out(chosen, splits, findings, options, device=device, world=world, weights=request.weights)
        return finished, splits, _evaluate(chosen, splits.val, options, finished, device=device, world=world)


def examine_dense(request: DenseRequest, options: RunOptions, world: World) -> tuple[DenseSplits, DenseFindings]:
    """The images, and what a look at all of them found and logged. Raises DataError when they cannot be used."""
    splits = open_dense_splits(request.data, val=request.val, val_share=request.val_share, seed=request.seed)
    findings = world.from_first(preflight_dense(splits, workers=max(0, options.workers)) if world.first else None)
    if findings.errors:
        raise DataError(" ".join(findings.errors))
    if not splits.val.entries:
        raise DataError("No images are held out to evaluate on. Name some with --val, or raise --val-share.")
    refuse_broken(findings.broken, options)
    if world.first:
        for line in findings.lines:
            info(line)
    return splits, findings


def choose_dense_recipe(request: DenseRequest, splits: DenseSplits, findings: DenseFindings) -> Recipe:
    """The full recipe: the named one or the small one of the task, fitted to the data, with the person's changes on top.

    Raises ConvNeXtError for a recipe of another task, and for a field or a value that is refused.
    """
    task = splits.train.task
    chosen = recipe(
        request.recipe or TASKS[task].recipe,
        request.model,
        images=len(splits.train.entries),
        image_px=request.image_px or min(findings.median_size),
        classes=len(splits.train.classes),
        batch=asked_batch(request.changes),
        in_channels=request.channels,
        seed=request.seed,
    )
    if chosen.task != task:
        raise ConvNeXtError(
            f"recipe '{chosen.name}' is for {chosen.task}, and the data are for {task}. Take '{TASKS[task].recipe}'."
        )
    asked = request.changes.get("head.classes")
    if asked is not None and str(asked) != str(len(splits.train.classes)):
        raise ConvNeXtError(
            f"head.classes = {asked}, but the data have {number_of(len(splits.train.classes), 'class', 'classes')}. "
            "Leave it out: the head follows the data."
        )
    chosen = override(chosen, TASKS[task].fitted(splits.train))
    return with_changes(chosen, request.changes, images=len(splits.train.entries))


def load_best(model: nn.Module, run: Path, weights: str = "best") -> nn.Module:
    """`model` with the weights of a finished run, ready to evaluate. Raises CheckpointError where there are none."""
    tensors, _ = checkpoint.read(weights_file(run, weights))
    model.load_state_dict(checkpoint.of("model", tensors) or tensors)
    return model.eval()


def _carry_out(
    chosen: Recipe,
    splits: DenseSplits,
    findings: DenseFindings,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None,
) -> Finished:
    """Train by a full recipe into `options.out`, or go on there, and write down what the run was made of."""
    out, kind = Path(options.out), TASKS[chosen.task]
    if world.first:
        info(_headline(chosen, splits, device, world))
    model = fresh(kind.build, chosen, chosen.seed)
    if weights and not (out / LAST).exists():  # a run that goes on has its weights
        load_dense_weights(model, weights_source(weights), info=info if world.first else silent)
    task = kind.task(model, chosen, options, splits.train, splits.val, splits.val_share)
    finished = fit_described(task, chosen, options, device=device, world=world, weights=weights)
    skipped = dict(findings.broken)  # an earlier process of this run may have met them
    for found in world.gather(task.skipped):
        skipped |= found
    if world.first:
        _note_data(out, splits, findings, skipped)
    return finished


def _evaluate(
    chosen: Recipe, val: DenseDataset, options: RunOptions, finished: Finished, *, device: torch.device, world: World
) -> dict[str, Any]:
    """evaluation.json: what the best weights make of the held-out images."""
    out, kind = Path(options.out), TASKS[chosen.task]
    model = with_kernels(load_best(kind.build(chosen), out, finished.weights), chosen, options, device)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode(), autocast(chosen.precision, device.type):
        result = kind.report(
            model, val, chosen, workers=options.workers, world=world, skipped={}, progress=options.progress
        )
    result |= {"metric": finished.metric, "weights": finished.weights, "step": finished.step}
    if world.first:
        write_text(out / "evaluation.json", json.dumps(result) + "\n")
    return result


def _headline(chosen: Recipe, splits: DenseSplits, device: torch.device, world: World) -> str:
    many = f" x {world.size}" if world.size > 1 else ""
    return (
        f"Training {chosen.task} on {chosen.model.name} by recipe '{chosen.name}': "
        f"{number_of(len(splits.train.entries), 'image')} with "
        f"{number_of(len(splits.train.classes), 'class', 'classes')}, {len(splits.val.entries):,} held out, "
        f"{length_of(chosen)}, batch {chosen.optim.batch}, {chosen.precision} on {device.type}{many}"
    )


def _note_data(out: Path, splits: DenseSplits, findings: DenseFindings, skipped: dict[str, str]) -> None:
    """data.json: what the run was made of, and which images could not be used."""
    say_skipped(skipped, out)
    data = {
        "task": splits.train.task,
        "classes": list(splits.train.classes),
        **{name: _counts(part, findings, name) for name, part in (("train", splits.train), ("val", splits.val))},
        "findings": list(findings.lines),
        "problems": findings.problems,
        "skipped": skipped,
    }
    write_text(out / "data.json", json.dumps(data, indent=1) + "\n")


def _counts(dataset: DenseDataset, findings: DenseFindings, part: str) -> dict[str, Any]:
    """'per_class' counts objects, or pixels of maps; 'images' those that show the class."""
    return {"n": len(dataset.entries), "per_class": findings.per_class[part], "images": findings.images[part]}
