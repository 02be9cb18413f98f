"""Whether a learning rate suits its batch, judged by the pair that the recipe was made with.

Linear scaling (arXiv 1706.02677) and square-root scaling (usual for Adam) differ; a rate is only spoken about when it is
far from both.
"""

import math
from typing import NamedTuple

from convnext.config import Recipe
from convnext.recipes.small import BASE_BATCH, BASE_LR

FAR = 3.0  # times outside what linear and square-root scaling call for


class Pair(NamedTuple):
    """A learning rate and the batch and optimizers that it was chosen for."""

    optimizers: tuple[str, ...]
    lr: float
    batch: int
    root: bool = False  # scale by the square root of the batch instead of linearly


PAIRS = {  # recipe: its pair; tests compare them with the recipes
    "imagenet1k": Pair(("adamw",), 4e-3, 4096),
    "imagenet22k": Pair(("adamw",), 4e-3, 4096),
    "finetune": Pair(("adamw",), 5e-5, 512),
    "finetune384": Pair(("adamw",), 5e-5, 512),
    "finetune384_1k": Pair(("adamw",), 5e-5, 512),
    "resnet_original": Pair(("sgd",), 0.1, 256),
    "small": Pair(("adamw", "muon"), BASE_LR, BASE_BATCH, root=True),
}


def expected_lr(recipe: Recipe) -> float | None:
    """What the recipe's own pair calls for at `recipe.optim.batch`; None where there is no pair for its optimizer."""
    pair = PAIRS.get(recipe.name)
    if pair is None or recipe.optim.name not in pair.optimizers:
        return None
    ratio = recipe.optim.batch / pair.batch
    return pair.lr * (math.sqrt(ratio) if pair.root else ratio)


def lr_advice(recipe: Recipe) -> str | None:
    """One line when optim.lr is more than FAR times outside linear and square-root scaling of the recipe's pair."""
    expected = expected_lr(recipe)
    if expected is None:
        return None
    pair, optim = PAIRS[recipe.name], recipe.optim
    ratio = optim.batch / pair.batch
    calls_for = (pair.lr * ratio, pair.lr * math.sqrt(ratio))
    if min(calls_for) / FAR <= optim.lr <= max(calls_for) * FAR:
        return None
    made = "made" if recipe.name == "small" else "published"
    return (
        f"optim.lr = {optim.lr:g}, but recipe '{recipe.name}' was {made} with {pair.lr:g} for batch {pair.batch}; "
        f"batch {optim.batch} calls for {expected:.3g}. Add `--optim.lr {expected:.3g}`, or change optim.batch."
    )
