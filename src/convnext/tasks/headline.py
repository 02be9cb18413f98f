"""What a run says of itself before its first step."""

from typing import Any

import torch

from convnext.config import Recipe, TaskRecipe, Training
from convnext.engine.distributed import World
from convnext.engine.precision import float32_here
from convnext.errors import number_of


def headline(chosen: Recipe, splits: Any, own_px: int, device: torch.device, world: World) -> str:
    """What is trained, on what and for how long, in one line; `own_px`: the shorter side of most images."""
    least, most = chosen.input.training_px
    larger = f" (images of {own_px} are enlarged)" if chosen.task != "classification" and own_px < least else ""
    many = f" x {world.size}" if world.size > 1 else ""
    rest = f" and {float32_here(device)}" if float32_here(device) == "TF32" else ""
    images, held = len(splits.train.entries), f"{len(splits.val.entries):,} held out"
    if chosen.task == "classification" and splits.val_share and (parts := chosen.start.folds):
        images, held = images + len(splits.val.entries), f"each held out once in {parts} parts"
    return (
        f"Training {chosen.model.name} by recipe '{chosen.name}': {number_of(images, 'image')} in "
        f"{number_of(len(splits.train.classes), 'class', 'classes')}, {held}, "
        f"{length_of(chosen)}, batch {chosen.optim.batch}, {f'{least} to {most}' if least < most else most} px{larger}, "
        f"{chosen.precision}{rest} on {device.type}{many}"
    )


def backbone_line(chosen: TaskRecipe) -> str:
    """How a backbone that starts from weights learns beside the head; '' of a classifier, and where it learns alike."""
    rates, starts = chosen.optim, "The backbone starts from weights:"
    if rates.backbone_lr < 1:
        return f"{starts} it learns at {rates.backbone_lr:g} times the rate of the head."
    if rates.layer_decay < 1 and chosen.task != "classification":
        return f"{starts} each of its layers learns at {rates.layer_decay:g} times the rate of the one behind it."
    return ""


def length_of(chosen: Training) -> str:
    """'30 epochs', or '160 steps' where the recipe counts those; of a probe alone that the network stays as it is."""
    if getattr(getattr(chosen, "start", None), "mode", "full") == "probe":
        return "a linear head on the frozen network"
    schedule = chosen.schedule
    return number_of(schedule.steps, "step") if schedule.steps else number_of(schedule.epochs or 0.0, "epoch")
