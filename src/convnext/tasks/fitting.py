"""A network and its task, trained into a folder that says how: what every run does, however many stages it has."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import Recipe, RunOptions, TaskRecipe, Training
from convnext.engine.distributed import World
from convnext.engine.environment import environment
from convnext.engine.fit import Finished, fit
from convnext.engine.forecast import Work
from convnext.engine.records import info
from convnext.engine.run import amend_whole, last_of, weights_file
from convnext.engine.scored import Watcher
from convnext.engine.task import Task
from convnext.files import to_json, write_text
from convnext.kernels import dispatch
from convnext.models.fused import fuse
from convnext.models.licences import terms
from convnext.models.provenance import read_provenance
from convnext.tasks.convolution import accelerate
from convnext.tasks.evaluate import answering
from convnext.tasks.judged import judged
from convnext.tasks.result import Evaluation
from convnext.tasks.table import row_of
from convnext.tasks.weights import file_of, load_best
from convnext.tasks.work import work_of

FITTED = ("decision", "thresholds")  # of an evaluation: what the file of the weights holds, too


@dataclass(frozen=True)
class Ended:
    """How the training of a run ended."""

    finished: Finished  # of the weights that are kept
    skipped: Mapping[str, str]  # path -> reason of images that broke
    judged: Any = (
        None  # where no held-out images are left to score the kept weights on: what `Row.final` takes for them
    )
    about: Mapping[str, Any] = field(default_factory=dict)  # more for evaluation.json
    learnt: Any = None  # the images that the kept weights learnt from, where they are more than the run's own part


def in_one_go(
    chosen: Recipe,
    splits: Any,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None,
    forecast: bool = False,
    watcher: Watcher | None = None,
) -> Ended:
    """Train everything from `weights`, or from random ones, or go on with that. Raises what loading and `fit` raise."""
    row, origin = row_of(chosen.task), None
    model = fresh(chosen)
    if weights and not last_of(Path(options.out)):  # a run that goes on has its weights, and knows their origin
        told = info if world.first else silent
        row.load(model, file_of(weights), classes=splits.train.classes, info=told)
        origin = origin_of(weights, world)
    task = row.task(model, chosen, options, splits)
    work = work_of(chosen, splits) if forecast else None
    how: dict[str, Any] = {"device": device, "world": world, "origin": origin, "work": work, "watcher": watcher}
    finished = fit_described(task, chosen, options, **how)
    return Ended(finished, task.skipped)


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
    origin: Mapping[str, str] | None = None,
    work: Work | None = None,
    watcher: Watcher | None = None,
) -> Finished:
    """`fit` into a folder that says by which recipe and on which machine; `origin`: see `origin_of`."""
    out = Path(options.out)
    with_kernels(task.model, chosen, options, device)
    if world.first and not last_of(out):
        describe(chosen, options, device)
    how: dict[str, Any] = {"device": device, "world": world, "origin": origin, "work": work, "watcher": watcher}
    finished = fit(task, chosen, options, **how)
    if world.writes():  # again: whatever became of the file meanwhile, it says what was done
        write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
    return finished


def describe(chosen: Training, options: RunOptions, device: torch.device) -> None:
    """recipe.json and environment.json of a run that begins."""
    out = Path(options.out)
    write_text(out / "recipe.json", chosen.model_dump_json(indent=1) + "\n")
    found = environment(device, triton=options.kernels == "triton")
    write_text(out / "environment.json", to_json(found, indent=1) + "\n")


def origin_of(weights: str, world: World) -> dict[str, str]:
    """Where weights to start from come from and their licence, as every checkpoint carries it; a narrow one is logged."""
    known = read_provenance(file_of(weights))
    if world.first and terms(known.licence):
        info(f"These weights are under {known.licence}: {terms(known.licence)}.")
    return known.as_text()


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
        accelerate(model)  # evaluation's alone: the finished run scores the same to the bit
    return model


def placed(model: nn.Module, chosen: Training, options: RunOptions, device: torch.device) -> nn.Module:
    """`model` on its device and on the kernels, ready to answer."""
    with_kernels(model, chosen, options, device)
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def evaluated(
    chosen: Recipe,
    val: Any,
    options: RunOptions,
    ended: Ended,
    *,
    test: Any = None,
    device: torch.device,
    world: World,
    wanted: Mapping[str, Any] | None = None,
) -> Evaluation:
    """What the kept weights make of the held-out images, and of those of a `test` part, written into evaluation.json.

    What was fitted goes into their file. `wanted`: more for `Row.final`.
    """
    out, row, finished = Path(options.out), row_of(chosen.task), ended.finished
    model = placed(load_best(row.build(chosen), out, finished.weights), chosen, options, device)
    shown: dict[str, Any] = {"workers": options.workers, "progress": options.progress, **(wanted or {})}
    scored = val
    if ended.judged is not None:
        shown["judged"], scored = ended.judged, ended.judged[0]
    with answering(chosen, device):
        found = row.final(model, val, chosen, world=world, skipped={}, **shown)
        if test is not None:
            skipped: dict[str, str] = {}
            how: dict[str, Any] = {"workers": options.workers, "progress": options.progress, "world": world}
            tested = row.evaluation(model, test, chosen, skipped=skipped, **how, **row.again(found))
            images = judged(test, chosen, row.fingerprint)
            found = found.with_about(test=tested.figures | {"skipped": skipped, "images": images})
    early = {"stopped_early": True} if finished.early else {}
    made = {"metric": finished.metric, "weights": finished.weights, "step": finished.step}
    made["images"] = judged(scored, chosen, row.fingerprint)
    more = {name: value for name, value in ended.about.items() if isinstance(value, float)}  # scores, as in any report
    found = replace(found, scores={**found.scores, **more})
    found = found.with_about(**made, **early, **{name: ended.about[name] for name in ended.about if name not in more})
    if world.writes():
        fitted = {name: found.about[name] for name in FITTED if name in found.about}
        if fitted:
            amend_whole(weights_file(out, finished.weights), fitted)
        write_text(out / "evaluation.json", to_json(found.to_dict()) + "\n")
    return found


def silent(_: str) -> None:
    """What a process that is not the first says."""
