"""One step of a run, from a raw batch to the new weights: for the loop, and for whoever tries how long it takes."""

from typing import Any

import torch
from torch import nn

from convnext.config import RunOptions, Training
from convnext.engine.chances import seed_of
from convnext.engine.distributed import World, network_of, sharding_of
from convnext.engine.ema import Ema
from convnext.engine.given import Learnt
from convnext.engine.optim import Optimizers
from convnext.engine.replays import replays_of
from convnext.engine.schedule import lr_at
from convnext.engine.shortage import explain_memory, out_of_memory
from convnext.engine.task import Task
from convnext.engine.update import Update


def update_of(task: Task, recipe: Training, options: RunOptions, *, device: torch.device, world: World) -> Update:
    """The update of a run that starts; the task's network goes to `device`.

    Raises ConvNeXtError for a batch that the processes cannot share, or a step that cannot be recorded and shall be.
    """
    slots = task.slots(world)
    replays = replays_of(task.varies, recipe, options, device, world)
    model: nn.Module = task.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sharding = sharding_of(model, recipe, options, world)
    optimizers = Optimizers(model, recipe.optim, recorded=replays is not None)
    ema = Ema(model, recipe.optim.ema, recipe.optim.ema_warmup) if recipe.optim.ema else None
    network = model if sharding else network_of(model, world, compiled=options.compile)
    return Update(network, recipe, optimizers, ema, task.loss, slots, world.size, sharding, replays)


def micro_of(options: RunOptions, update: Update) -> int:
    """Images of a micro-batch on this device."""
    return options.micro_batch or len(update.slots)


def learn(
    task: Task,
    update: Update,
    recipe: Training,
    step: int,
    batch: Any,
    *,
    device: torch.device,
    world: World,
    micro: int,
) -> tuple[float, Learnt]:
    """Take optimizer step `step` with `batch`: its learning rate, and what it had to learn from.

    Raises TrainingError, with what to turn down, where memory runs out.
    """
    torch.manual_seed(seed_of(recipe.seed, step, world.rank))
    task.model.train()
    lr = lr_at(step, steps_per_epoch=task.steps_per_epoch, optim=recipe.optim, schedule=recipe.schedule)
    prepared = None
    try:
        prepared = task.prepare(batch, step=step, slots=update.slots, device=device)
        return lr, update(prepared, step=step, lr=lr, micro=micro)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise explain_memory(update, prepared, micro, error, smaller=task.smaller, exact=task.exact) from error
