"""Whether a learning rate suits its batch, judged by the pair that the recipe was made with.

Linear scaling (arXiv 1706.02677, for SGD) and square-root scaling (for Adam, arXiv 2205.10287) differ; a rate is only
mentioned when it is far from both. What is advised follows the optimizer, and is never too low to learn anything.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from convnext.config import Recipe, override
from convnext.errors import ConvNeXtError, number_of
from convnext.recipes.small import BASE_BATCH, BASE_LR
from convnext.recipes.transfer import TRANSFER_BATCH, TRANSFER_LR, transfer_lr

FAR = 3.0  # times outside what linear and square-root scaling call for
MADE_HERE = ("small", "transfer")  # their values are ours
LEAST_ADAM = 5e-5  # the lowest rate that was published for a whole run: below, a run of usual length learns nothing
MOST_TUNING = 2e-3  # with fresh heads and few images, rates up to this one taught more than the published ones


class Pair(NamedTuple):
    """A learning rate and the batch and optimizers that it was chosen for."""

    optimizers: tuple[str, ...]
    lr: float
    batch: int
    most: float = 0.0  # a rate up to this one is never too high


PAIRS = {  # recipe: its pair; tests compare them with the recipes
    "imagenet1k": Pair(("adamw",), 4e-3, 4096),
    "imagenet22k": Pair(("adamw",), 4e-3, 4096),
    "finetune": Pair(("adamw",), 5e-5, 512, MOST_TUNING),
    "finetune384": Pair(("adamw",), 5e-5, 512, MOST_TUNING),
    "finetune384_1k": Pair(("adamw",), 5e-5, 512, MOST_TUNING),
    "resnet_original": Pair(("sgd",), 0.1, 256),
    "small": Pair(("adamw", "muon"), BASE_LR, BASE_BATCH),
    "transfer": Pair(("adamw",), TRANSFER_LR, TRANSFER_BATCH),
}


def expected_lr(recipe: Recipe) -> float | None:
    """What the recipe's own pair calls for at `recipe.optim.batch`; None where there is no pair for its optimizer."""
    pair = PAIRS.get(recipe.name)
    if pair is None or recipe.optim.name not in pair.optimizers:
        return None
    if recipe.name == "transfer":
        return transfer_lr(recipe.optim.batch, recipe.model)
    ratio = recipe.optim.batch / pair.batch
    return pair.lr * ratio if recipe.optim.name == "sgd" else max(LEAST_ADAM, pair.lr * math.sqrt(ratio))


def lr_advice(recipe: Recipe) -> str | None:
    """One line when optim.lr is more than FAR times outside linear and square-root scaling of the recipe's pair."""
    expected = expected_lr(recipe)
    if expected is None:
        return None
    pair, optim = PAIRS[recipe.name], recipe.optim
    ratio = optim.batch / pair.batch
    calls_for = (pair.lr * ratio, pair.lr * math.sqrt(ratio), expected)
    if min(calls_for) / FAR <= optim.lr <= max(*(FAR * lr for lr in calls_for), pair.most):
        return None
    made = "made" if recipe.name in MADE_HERE else "published"
    return (
        f"optim.lr = {optim.lr:g}, but recipe '{recipe.name}' was {made} with {pair.lr:g} for batch {pair.batch}; "
        f"batch {optim.batch} calls for {expected:.3g}. Add `--optim.lr {expected:.3g}`, or change optim.batch."
    )


def with_fitting_batch(chosen: Recipe, images: int, asked: Mapping[str, Any]) -> Recipe:
    """`chosen` with a batch of no more than `images`, and the rate that its pair has for that.

    What is `asked` for stays as it is; raises ConvNeXtError where that is the batch and it is too large.
    """
    batch = chosen.optim.batch
    if batch <= images:
        return chosen
    smaller = 2 ** max(0, int(math.log2(images)) - 2)
    if "optim.batch" in asked:
        raise ConvNeXtError(
            f"optim.batch = {batch} is more than the {number_of(images, 'training image')}. "
            f"Give a smaller one, e.g. --batch {smaller}, or leave it out."
        )
    made = override(chosen, {"optim.batch": smaller})
    lr = None if "optim.lr" in asked else expected_lr(made)
    return made if lr is None else override(made, {"optim.lr": float(f"{lr:.3g}")})


def batch_advice(recipe: Recipe, images: int) -> str | None:
    """One line where a published recipe has a smaller batch than its own because there are so few `images`."""
    pair = PAIRS.get(recipe.name)
    if pair is None or recipe.name in MADE_HERE or pair.batch <= images or recipe.optim.batch >= pair.batch:
        return None
    return (
        f"Recipe '{recipe.name}' was published with batch {pair.batch}, and there are "
        f"{number_of(images, 'training image')}: it takes batch {recipe.optim.batch} and optim.lr = {recipe.optim.lr:g}."
    )
