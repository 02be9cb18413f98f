"""The tasks: one row each. Everything behind it, training, evaluation and the command line, walks one road for all of them.

A row lies in the folder of its task and is imported when it is needed: who classifies does not wait for torchvision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from convnext.tasks.result import Evaluation

ROWS = {  # task -> the module whose ROW it is
    "classification": "convnext.tasks.classification.row",
    "detection": "convnext.tasks.detection.row",
    "segmentation": "convnext.tasks.segmentation.row",
}


def _nothing(_: Evaluation) -> dict[str, Any]:
    return {}


def _silent(recipe: Any, dataset: Any) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What tells one task from the others. A recipe, splits and a dataset are those of the task."""

    build: Callable[[Any], nn.Module]  # recipe -> fresh network
    load: Callable[..., None]  # (network, source, *, info, classes): the weights to start from, for data of `classes`
    task: Callable[[Any, Any, Any, Any], Any]  # (network, recipe, options, splits) -> engine.task.Task with `skipped`
    carry_out: Callable[
        ..., Any
    ]  # (recipe, splits, options, *, device, world, weights, forecast, watcher) -> fitting.Ended
    evaluation: Callable[..., Evaluation]  # (network, dataset, recipe, *, workers, world, skipped, progress)
    final: Callable[..., Evaluation]  # the same at the end of a run, with what is fitted on the held-out images
    fitted: Callable[
        ..., dict[str, Any]
    ]  # (dataset to train on, findings, name of the recipe; None: it is a value; the figure asked for) -> its fields
    fingerprint: Callable[[Any, Any], str]  # (dataset, recipe) -> of what is trained on, as a checkpoint has it
    counts: Callable[[Any, Any, str], dict[str, Any]]  # (dataset, findings, part) -> its part of data.json
    classes: str  # the field of the recipe that follows the classes of the data
    hold_out: str  # how some images come to be held out, for those who have none
    told: Callable[[Any, Any], str] = _silent  # (recipe, dataset to train on): what is done about uneven classes, or ''
    again: Callable[[Evaluation], dict[str, Any]] = _nothing  # what held-out images chose, for the evaluation of others


def row_of(task: str) -> Row:
    """The row of a task that there is."""
    row: Row = import_module(ROWS[task]).ROW
    return row
