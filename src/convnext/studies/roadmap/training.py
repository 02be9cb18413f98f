"""The roadmap on a person's own data: every step trained under one budget and one recipe, to be compared.

Each run is an ordinary one in `OUT/<step>_seed<k>/`, so that a plan that was killed goes on: finished runs are kept, the
interrupted one continues at its step. What is known so far stands in `OUT/roadmap.json`, renewed after every run.
"""

import contextlib
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convnext.config import ClassificationRecipe, Recipe, RoadmapConfig, RunOptions, override, parse
from convnext.data.loader import steps_in_epoch
from convnext.data.opening import recognise
from convnext.data.source import Source
from convnext.engine import checkpoint
from convnext.engine.claim import Claim
from convnext.engine.environment import environment
from convnext.engine.records import info, warn
from convnext.engine.run import LAST
from convnext.engine.schedule import total_steps
from convnext.errors import ConvNeXtError, TrainingError
from convnext.files import to_json, write_text
from convnext.models.profile import measure
from convnext.recipes.roadmap import Regime, Step, chosen_steps, narrower, roadmap
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.train import Examined, Request, carry_out, choose_recipe, examine
from convnext.tasks.workplace import workplace

RESULTS = "roadmap.json"
_FREE = {"model.patch", "model.drop_path", "model.layer_scale"}  # fields of the network that no step is about


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which steps are trained on what, and under which budget."""

    data: str
    regime: Regime = "t"
    steps: tuple[str, ...] = ()  # names of `recipes.roadmap.STEPS`; none: all 17
    width_factor: float = 1.0  # of every step's width
    epochs: float | None = None  # of every run; None: what the recipe 'small' takes for these data
    seeds: int = 1  # runs of every step, with seeds 0, 1, ...; they share one split of the data
    channels: int = 3
    val_share: float = 0.2
    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted recipe fields, the same for every step


@dataclass(frozen=True)
class _Runs:
    """A plan, its data, and the folder that holds the runs."""

    plan: Plan
    source: Source
    data: Examined
    out: Path

    def recipe(self, step: Step, seed: int) -> ClassificationRecipe:
        """The recipe 'small', fitted to the data, with this step's network; EMA weights are off, as in the paper.

        AdamW for every step but the first, which stands for ResNet's own recipe: SGD with a rate of 0.1 for a batch of
        256, a tenth of it after each third of the run, no warm-up, no label smoothing, no stochastic depth.
        Epochs and augmentation are those of the others: one budget.
        """
        plan = self.plan
        changes = {"optim.ema": 0.0, **plan.changes, "model.width": narrower(step.config, plan.width_factor).width}
        if plan.epochs is not None:
            changes["schedule.epochs"] = plan.epochs
        request = Request(data=self.source, model=step.config.name, channels=plan.channels, changes=changes)
        chosen: ClassificationRecipe = choose_recipe(request, None, self.data)
        epochs = chosen.schedule.epochs
        assert epochs is not None, "`_check` refuses steps"
        last: dict[str, Any] = {"schedule.eval_epochs": math.ceil(epochs)}  # results are those of the last step
        if step.recipe == "original":
            last |= {"optim.name": "sgd", "optim.lr": 0.1 * chosen.optim.batch / 256, "optim.weight_decay": 1e-4}
            last |= {"optim.momentum": 0.9, "optim.clip": 0.0, "augment.smoothing": 0.0, "model.drop_path": 0.0}
            last |= {"schedule.kind": "step", "schedule.step_epochs": epochs / 3, "schedule.warmup_epochs": 0.0}
        return override(chosen, {**last, "seed": seed})

    def folder(self, step: Step, seed: int) -> Path:
        return self.out / f"{step.name}_seed{seed}"

    def finished(self, step: Step, seed: int) -> bool:
        """Whether this run, by exactly this recipe and on these images, was trained to its end."""
        last, chosen, train = self.folder(step, seed) / LAST, self.recipe(step, seed), self.data.splits.train
        if not last.exists():
            return False
        metadata = checkpoint.read_metadata(last)
        steps = total_steps(steps_in_epoch(len(train.entries), chosen.optim.batch), chosen.schedule)
        there = (parse(Recipe, metadata["recipe"], where=f"'{last}'"), metadata["images"], metadata["state"]["step"])
        return there == (chosen, fingerprint(train), steps)

    def result(self, step: Step) -> dict[str, Any]:
        """One row of roadmap.json: what the step is, what it costs here, and what its finished runs reached."""
        chosen = self.recipe(step, 0)
        assert isinstance(chosen.model, RoadmapConfig)
        params, macs = measure(chosen.model, chosen.input.eval_size_px)
        folders = self.out.glob(f"{step.name}_seed*")
        seeds = sorted(int(match[1]) for folder in folders if (match := re.search(r"_seed(\d+)$", folder.name)))
        runs = [_score(self.folder(step, seed), seed) for seed in seeds if self.finished(step, seed)]
        top1 = [run["top1"] for run in runs]
        return {
            **{name: getattr(step, name) for name in ("name", "group", "change", "base", "recipe")},
            **{name: getattr(step, name) for name in ("paper_gflops", "likely_gflops", "paper_top1", "paper_std")},
            "params": params,
            "macs": macs,
            "runs": runs,
            "mean": statistics.fmean(top1) if top1 else None,
            "std": statistics.stdev(top1) if len(top1) > 1 else None,
        }


def train_roadmap(
    plan: Plan, options: RunOptions, *, after: Callable[[dict[str, Any]], object] | None = None
) -> dict[str, Any] | None:
    """Train what is left of `plan` under `options.out` and return what roadmap.json then holds; the first process does.

    Seed by seed, so that a first image of all steps is there early; `after` gets the results after every run.
    A step that cannot be trained (its loss became infinite, say) is noted under 'failed' and the others go on.
    Raises ConvNeXtError for a plan that cannot be carried out, Interrupted when asked to stop.
    """
    steps = _check(plan)
    source = recognise(plan.data, annotated=False, labels="single")
    request = Request(data=source, channels=plan.channels, val_share=plan.val_share)
    with workplace(options) as (device, world):
        data = examine(request, options, world)
        runs = _Runs(plan, source, data, Path(options.out))
        for step in steps:
            runs.recipe(step, 0)  # a value that a recipe refuses is refused now, not at night
        facts = environment(device)
        failed: dict[str, str] = {}
        results = _results(runs, failed, facts)
        for i, (seed, step) in enumerate((seed, step) for seed in range(plan.seeds) for step in steps):
            place = runs.folder(step, seed)
            if world.from_first(world.first and runs.finished(step, seed)):
                continue
            if world.first:
                info(f"Run {i + 1} of {plan.seeds * len(steps)}: {step.name}, seed {seed}. {step.change}")
            try:
                with Claim(place) if world.first else contextlib.nullcontext() as claim:
                    here = options.model_copy(update={"out": str(place)})
                    carry_out(runs.recipe(step, seed), data, here, device=device, world=replace(world, claim=claim))
            except TrainingError as error:
                if world.size > 1:  # the other processes may not know
                    raise
                failed[place.name] = str(error)
                warn(f"{step.name} failed and is left out: {error}")
            if world.writes():
                results = _results(runs, failed, facts)
                if after:
                    after(results)
        return results if world.first else None


def _check(plan: Plan) -> tuple[Step, ...]:
    """The plan's steps in order. Raises ConvNeXtError for a wrong plan, before any image is read."""
    steps = chosen_steps(plan.regime, plan.steps)
    narrower(steps[0].config, plan.width_factor)
    if plan.seeds < 1:
        raise ConvNeXtError(f"seeds = {plan.seeds} must be 1 or more: every step needs a run.")
    decided = {f"model.{name}" for name in RoadmapConfig.model_fields} - _FREE
    for name in plan.changes:
        if name in decided or name in ("seed", "schedule.epochs", "schedule.steps"):
            raise ConvNeXtError(
                f"'{name}' cannot be set for a roadmap: its steps, epochs and seeds decide it. Leave it out; "
                f"{', '.join(sorted(_FREE))} and the fields of input, augment and optim are free."
            )
    return steps


def _results(runs: _Runs, failed: dict[str, str], facts: Mapping[str, str]) -> dict[str, Any]:
    """Gather everything that is finished and write it down."""
    plan, splits = runs.plan, runs.data.splits
    every = roadmap(plan.regime)
    chosen = runs.recipe(every[1], 0)
    rows = [runs.result(step) for step in every]
    results = {
        "regime": plan.regime,
        "width_factor": plan.width_factor,
        "epochs": chosen.schedule.epochs,
        "batch": chosen.optim.batch,
        "size_px": chosen.input.eval_size_px,
        "data": Path(plan.data).name,
        "classes": len(splits.train.classes),
        "train": len(splits.train.entries),
        "val": len(splits.val.entries),
        "steps": rows,
        "failed": failed,
        "environment": dict(facts),
    }
    write_text(runs.out / RESULTS, to_json(results, indent=1) + "\n")
    return results


def _score(folder: Path, seed: int) -> dict[str, Any]:
    """What a finished run reached with its last weights; not its best, which the held-out images would have chosen."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in lines if row["kind"] == "eval" and row["weights"] == "raw"][-1]
    clock = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    minutes = round(sum(row["seconds"] for row in clock) / 60, 2)
    return {"seed": seed, "top1": last["top1"], "loss": last["loss"], "minutes": minutes}
