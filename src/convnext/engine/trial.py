"""How fast this machine trains a task: a few steps of a network that is thrown away, with the reading of images.

A run that starts afterwards is the same to the bit as one without: what happens at a step depends on its number alone.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from convnext.config import RunOptions, Training
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.learning import learn, micro_of, update_of
from convnext.engine.replays import WARM
from convnext.engine.task import Task
from convnext.engine.update import Update
from convnext.files import workroom

LEAST_STEPS, MOST_STEPS = 4, 60  # of a place in the run


@dataclass(frozen=True)
class Timed:
    """What steps of one kind take, in seconds."""

    step_s: float  # of the later half of those that were tried
    start_s: float  # what the first took beyond that: compiling, starting the processes that read


def try_steps(
    task: Task, recipe: Training, options: RunOptions, *, world: World, device: Any, at: Sequence[range], most_s: float
) -> tuple[list[Timed], Update]:
    """What a step takes in each range of `at`, trying for about `most_s` seconds in all, and the update that did it.

    Changes the task's network. All processes take the same steps; each has its own times.
    """
    update = update_of(task, recipe, options, device=device, world=world)
    how: dict[str, Any] = {"device": device, "world": world, "micro": micro_of(options, update)}
    least = LEAST_STEPS + (WARM + 1 if update.replays else 0)  # so many before the first that is replayed
    found = []
    for steps in at:
        steps = steps[:MOST_STEPS]
        times = [time.monotonic()]
        with closing(cast(Generator[Any, None, None], task.batches(steps, world))) as batches:
            for step, batch in zip(steps, batches, strict=True):
                _, learnt = learn(task, update, recipe, step, batch, **how)
                learnt.losses.tolist()  # the device has done it
                times.append(time.monotonic())
                tried = len(times) - 1
                if world.from_first(tried >= least and times[-1] - times[1] > most_s / len(at)):
                    break
        found.append(_timed(times))
    return found, update


def saving_s(update: Update, task: Task, folder: Path) -> float:
    """Seconds to write a checkpoint of this size below `folder`. Raises OSError when the disk refuses."""
    tensors = checkpoint.under("model", task.model.state_dict())
    tensors |= checkpoint.under("optimizer", update.optimizers.tensors())
    if update.ema:
        tensors |= checkpoint.under("ema", update.ema.tensors())
    with workroom(folder, "trial") as room:
        started = time.monotonic()
        checkpoint.save(room / "last.safetensors", tensors, {})
        return time.monotonic() - started


def _timed(times: Sequence[float]) -> Timed:
    """From when the reading began and when each step was done."""
    each = [later - earlier for earlier, later in pairwise(times)]
    steady = each[1:][len(each[1:]) // 2 :] or each
    step_s = sum(steady) / len(steady)
    return Timed(step_s, max(0.0, each[0] - step_s))
