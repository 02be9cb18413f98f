"""The learning rate at every optimizer step: a pure function of the step, so that a resumed run needs no state for it.

As in the code released with arXiv 2201.03545: set before each step, warm-up with both ends included.
"""

import math

from convnext.config import OptimConfig, ScheduleConfig


def total_steps(steps_per_epoch: int, schedule: ScheduleConfig) -> int:
    """Optimizer steps of the whole run, at least one; epochs may be fractional."""
    return schedule.steps or max(1, round((schedule.epochs or 0.0) * steps_per_epoch))


def warmup_steps(steps_per_epoch: int, schedule: ScheduleConfig) -> int:
    """Optimizer steps of the warm-up."""
    return schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)


def evaluations_until(step: int, *, steps_per_epoch: int, schedule: ScheduleConfig) -> int:
    """Evaluations of a run up to the end of `step` steps, that one included; the last of all does not count."""
    every = schedule.eval_epochs * steps_per_epoch
    return math.floor(step / every + 1e-9)  # of 5 in 3 epochs the fifth follows 5 * 0.6 of them, whatever rounding says


def lr_at(step: int, *, steps_per_epoch: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """The rate for `step`, counted from 0, before any factor of a parameter group.

    Warm-up over W steps is linspace(0, lr, W), so step 0 has rate 0 and step W - 1 the peak. After it, with t = i / n
    for the i-th of the n remaining steps, 'cosine' and 'linear' fall from lr at t = 0 towards min_lr, which t = 1 would
    reach one step after the last. 'step' multiplies by step_factor every step_epochs, counted from the run's start, or
    after the epochs of `milestones`. A min_lr above lr counts as lr: no schedule rises after its warm-up.

    With `warmup_from` the decay counts all steps from the run's start, and the warm-up multiplies it by
    warmup_from + (1 - warmup_from) * step / W, so that step W is the first that has it whole: the schedules of COCO and
    ADE20K, for which 'linear' is a polynomial of power 1.
    """
    warmup = warmup_steps(steps_per_epoch, schedule)
    if schedule.warmup_from is not None:
        share = min(1.0, schedule.warmup_from + (1 - schedule.warmup_from) * step / max(1, warmup))
        return share * _decayed(step, 0, steps_per_epoch, optim, schedule)
    if step < warmup:
        return optim.lr * step / max(1, warmup - 1)
    return _decayed(step, warmup, steps_per_epoch, optim, schedule)


def _decayed(step: int, first: int, steps_per_epoch: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """The rate without warm-up; 'cosine' and 'linear' begin to fall at step `first`."""
    least = min(schedule.min_lr, optim.lr)
    if schedule.kind == "step":
        falls = step // max(1, round(schedule.step_epochs * steps_per_epoch))
        if schedule.milestones:
            falls = sum(step >= round(epoch * steps_per_epoch) for epoch in schedule.milestones)
        return max(least, optim.lr * schedule.step_factor**falls)
    rest = max(1, total_steps(steps_per_epoch, schedule) - first)
    t = min(1.0, (step - first) / rest)
    height = 0.5 * (1 + math.cos(math.pi * t)) if schedule.kind == "cosine" else 1 - t
    return least + (optim.lr - least) * height
