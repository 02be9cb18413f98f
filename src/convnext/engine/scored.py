"""What an evaluation of the loop hands to those who look at what the network answers while it learns."""

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


def show(
    watcher: Watcher | None, task: Task, update: Update, scores: Mapping[str, Mapping[str, float]], place: str
) -> None:
    """Let `watcher` look at the task's network with the weights that are better by the `scores` of 'raw' and 'ema'.

    It is None in a process that only gives its part of them.
    """
    better = max(scores, key=lambda weights: (scores[weights][task.metric], -scores[weights]["loss"]))
    with update.whole(task.model, better) as network, torch.inference_mode(), update.autocast():
        if watcher:
            watcher(Scored(network, better, place, task.metric, scores[better][task.metric]))
