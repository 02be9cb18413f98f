"""What an evaluation of the loop hands to those who look at what the network answers while it learns."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from convnext.engine.task import Task
from convnext.engine.update import Update


@dataclass(frozen=True)
class Scored:
    """The network in evaluation mode, with those of its weights that the evaluation found better, and what it found."""

    model: nn.Module
    weights: str  # 'raw' or 'ema'
    place: str  # in the run: 'epoch 3/30' or 'step 80/160'
    metric: str
    score: float


Watcher = Callable[[Scored], object]  # in inference mode and in the precision of the run; it must not raise


def show(watcher: Watcher, task: Task, update: Update, scores: Mapping[str, Mapping[str, float]], place: str) -> None:
    """Let `watcher` look at the task's network with the weights that are better by the `scores` of 'raw' and 'ema'."""
    better = max(scores, key=lambda weights: (scores[weights][task.metric], -scores[weights]["loss"]))
    seen = update.ema.swapped(task.model) if update.ema and better == "ema" else contextlib.nullcontext()
    with seen, torch.inference_mode(), update.autocast():
        watcher(Scored(task.model, better, place, task.metric, scores[better][task.metric]))
