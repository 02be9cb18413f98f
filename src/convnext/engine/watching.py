"""What the loop looks out for: a loss or weights that are not finite, a loss that stays flat, and memory that is short."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convnext.config import Training
from convnext.engine.distributed import World
from convnext.engine.parts import is_part, own
from convnext.engine.records import warn
from convnext.engine.run import State
from convnext.engine.schedule import warmup_steps
from convnext.errors import TrainingError, number_of

PATIENCE = 100  # steps after the warm-up before a flat loss is spoken of
_FLAT = 0.98  # of the loss of a network that knows nothing


def refuse_not_finite(loss: float, step: int, lr: float, names: list[str]) -> None:
    """Raise TrainingError where the loss of `step` is no number; `names`: the files of its batch."""
    if not math.isfinite(loss):
        raise _not_finite(f"The loss became {loss}", step, lr, names)


def refuse_broken_weights(
    parameters: Sequence[Tensor], step: int, lr: float, names: list[str], *, world: World
) -> None:
    """Raise TrainingError where weights are not finite, before they are scored or saved: the loss shows it a step later."""
    norms = torch._foreach_norm([own(weight.detach()) for weight in parameters])
    sound = bool(torch.stack(norms).isfinite().all())
    if not all(world.gather(sound) if is_part(parameters[0]) else [sound]):
        raise _not_finite("Weights became inf or nan", step, lr, names)


def warn_if_flat(state: State, recipe: Training, *, steps_per_epoch: int, chance_loss: float, spoken: bool) -> None:
    """Warn, once, when after the warm-up the loss is still where a network that knows nothing has it.

    Ends an epoch in `state`. `spoken`: this process is the one that speaks.
    """
    schedule = recipe.schedule
    mean = mean_of(state.epoch_losses) if state.epoch_losses else 0.0
    state.epoch_losses.clear()
    epoch = state.step / steps_per_epoch
    warmup = warmup_steps(steps_per_epoch, schedule) / steps_per_epoch
    learnt = state.step - warmup * steps_per_epoch  # steps at full rate: fewer can be flat by chance
    if epoch < warmup + 1 or learnt < PATIENCE or mean < _FLAT * chance_loss or state.flat_warned:
        return
    state.flat_warned = True
    if spoken:
        length = number_of(state.step, "step") if schedule.steps else number_of(epoch, "epoch")
        warn(
            f"The loss is {mean:.3f} after {length}, warm-up included; guessing gives {chance_loss:.3f}. "
            f"Most likely optim.lr = {recipe.optim.lr:g} does not suit a batch of {recipe.optim.batch} (try a third and "
            "three times of it), or the labels do not match the images."
        )


def mean_of(values: list[float]) -> float:
    """The mean, from a sum without rounding."""
    return math.fsum(values) / len(values)


def _not_finite(what: str, step: int, lr: float, names: list[str]) -> TrainingError:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return TrainingError(
        f"{what} at step {step + 1} (lr {lr:.3g}); its images: {shown}. Lower optim.lr, set optim.clip (1.0 is usual) "
        "or use --precision fp32; `last`, if it was written already, holds the state before."
    )
