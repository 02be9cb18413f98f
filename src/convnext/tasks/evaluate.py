"""A trained network on a person's labelled images, for every task: never those that it has learnt, unless asked."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import Recipe
from convnext.engine.forks import tell_once
from convnext.engine.records import info, warn
from convnext.engine.update import autocast
from convnext.tasks.judged import judged_on, refuse_learnt
from convnext.tasks.opening import Named, look, open_scored, scored_source
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import named_once
from convnext.tasks.table import row_of


@contextlib.contextmanager
def answering(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Inside, networks run without gradients and in the recipe's precision."""
    tell_once()
    with torch.inference_mode(), autocast(recipe.precision, device.type):
        yield


def evaluate(
    network: nn.Module,
    data: Named,
    recipe: Recipe,
    metadata: Mapping[str, Any],
    *,
    device: torch.device,
    part: str | None = None,
    workers: int = 0,
    progress: bool = False,
    run: Path | None = None,
    **ways: Any,
) -> Evaluation:
    """Score any callable network of `recipe`, whose checkpoint says `metadata`, on the images of `data`.

    `part`: 'train', 'val' or 'test'; None: val where there is one, else test, else all; of data that the run parted
    itself, what it held out is val. `run`: the folder of the weights; copies of what they learnt from are told. `ways` are
    those of the task: `multi_scale` of segmentation, `batch` of classification. Raises DataError for data of another task,
    of unknown classes, or without that part.
    """
    row = row_of(recipe.task)
    asked: dict[str, Any] = {"part": part, "run": run, "learnt": refuse_learnt if ways.get("wanted") else warn}
    dataset = open_scored(scored_source(data, recipe.task), recipe, metadata, row.fingerprint, **asked)
    known: Mapping[str, str] = {}
    if recipe.task != "classification":
        findings = look(dataset, workers=workers)
        known = findings.broken
        for line in findings.lines:
            info(line)
    skipped: dict[str, str] = {}
    with answering(recipe, device), named_once(known):
        found = row.evaluation(network, dataset, recipe, workers=workers, skipped=skipped, progress=progress, **ways)
    if ways.get("multi_scale"):
        found = found.with_about(multi_scale=True)
    return found.with_about(skipped=skipped, **judged_on(dataset, recipe, metadata, row.fingerprint))
