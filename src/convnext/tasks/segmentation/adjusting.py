"""How a segmenter whose rare classes counted more in training ends: with answers for classes as rare as they are.

Such training makes a network answer as if rare classes were less rare, so it names them too often. What was given can be
taken back: the posterior of another prior is a shift of the logits (Menon et al. 2020, arXiv 2007.07314, section 4), that
is, another bias of the last layer. How much of it is best, the held-out images choose.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnext.config import RunOptions, SegmentationRecipe
from convnext.data.opening import DenseSplits
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.records import info
from convnext.engine.run import OTHERS, save_whole, weights_file
from convnext.tasks.balance import given_to_rare
from convnext.tasks.evaluate import answering
from convnext.tasks.fitting import Ended, in_one_go, placed
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.metrics import TITLES, metrics
from convnext.tasks.segmentation.scoring import evaluate

ADJUSTED = "adjusted"  # what these weights are called
Scores = Mapping[str, float]
_BIAS = "decoder.classify.conv.bias"  # (K,), of the layer whose answers are the classes


def adjusted(state: Mapping[str, Tensor], recipe: SegmentationRecipe, share: float) -> dict[str, Tensor]:
    """The weights that answer for a world in which `share` of what training gave to rare classes is taken back.

    0 changes nothing; after 1 the network answers for the classes' own shares of the pixels.
    """
    bias = state[_BIAS]
    return {**state, _BIAS: (bias.double() - share * given_to_rare(recipe.loss)).to(bias.dtype)}


def carry_out(
    chosen: SegmentationRecipe,
    splits: DenseSplits,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    **how: Any,
) -> Ended:
    """Train in one go, then choose how much the answers take back; `how` is what `in_one_go` takes. Raises what it raises."""
    ended = in_one_go(chosen, splits, options, device=device, world=world, **how)
    if not chosen.adjustments:
        return ended
    out, kept = Path(options.out), ended.finished
    state, header = checkpoint.read(weights_file(out, kept.weights))

    def scored(share: float) -> Scores:
        model = build(chosen)
        model.load_state_dict(adjusted(state, chosen, share))
        placed(model, chosen, options, device)
        shown: dict[str, Any] = {"workers": options.workers, "progress": options.progress, "world": world}
        with answering(chosen, device):
            return metrics(evaluate(model, splits.val, chosen, skipped=dict(ended.skipped), **shown))

    found = {0.0: header["metrics"]} | {share: scored(share) for share in chosen.adjustments}
    share = max(found, key=lambda each: (found[each][kept.metric], -found[each]["loss"], -each))
    weights, score = ADJUSTED if share else kept.weights, found[share][kept.metric]
    if world.writes():
        (out / OTHERS[ADJUSTED]).unlink(missing_ok=True)  # of an earlier choice
        if share:
            header |= {"weights": weights, "share": share, "score": score, "metrics": found[share]}
            save_whole(out / OTHERS[ADJUSTED], adjusted(state, chosen, share), header)
    if world.first:
        info(_told(found, kept.metric, share))
    world.wait()
    candidates = [{"share": each, **found[each]} for each in sorted(found)]
    about = {"metric": kept.metric, "of": kept.weights, "share": share, "candidates": candidates}
    finished = replace(kept, score=score, weights=weights)
    return replace(ended, finished=finished, about={**ended.about, "chosen": weights, "adjusted": about})


def _told(found: Mapping[float, Scores], metric: str, share: float) -> str:
    """The choice in one line."""
    shares = ", ".join(f"{100 * each:.3g}" for each in sorted(found))
    scores = ", ".join(f"{100 * found[each][metric]:.1f}" for each in sorted(found))
    return (
        f"Rare classes counted more in training. With {shares}% of that taken back in the answers, {TITLES[metric]} on the "
        f"held-out images is {scores}%. Kept: {100 * share:.3g}%{f' ({OTHERS[ADJUSTED]})' if share else ''}."
    )
