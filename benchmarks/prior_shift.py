"""A segmenter whose rare classes counted more in training: how much of that should its answers take back?

    python benchmarks/prior_shift.py RUN DATA [--shifts 0,0.25,0.5]

Pixels of a class with share p of all count p^-tau in training (`loss.tau`), so the network's answers are those for a world
where rare classes are less rare. A shift s adds s log p to the logits, which is a change of the last layer's bias: 0 leaves
them, tau takes all back. 'val' chooses by mIoU at one scale, the part 'test' is scored as it is and with what was chosen. One
line goes to results/prior_shift.jsonl.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from convnext.config import Recipe, parse
from convnext.data.opening import open_dense, recognise
from convnext.engine.environment import environment
from convnext.engine.update import autocast
from convnext.models.fused import fuse
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.metrics import metrics
from convnext.tasks.segmentation.scoring import evaluate
from convnext.tasks.weights import load_best

RESULTS = Path(__file__).parent / "results" / "prior_shift.jsonl"


def main() -> None:
    """Score 'val' with each shift and 'test' with none and the best; print and keep the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shifts", default="0,0.25,0.5")
    args = parser.parse_args()
    recipe: Any = parse(Recipe, json.loads((args.run / "recipe.json").read_text()), where="recipe.json")
    weights = json.loads((args.run / "evaluation.json").read_text())["weights"]
    model: Any = load_best(build(recipe), args.run, weights)
    model.to(memory_format=torch.channels_last)
    fuse(model)
    bias = model.decoder.classify.conv.bias
    trained, prior = bias.detach().clone(), torch.tensor(recipe.loss.shares).log()

    def miou(part: str, shift: float) -> float:
        with torch.inference_mode(), autocast(recipe.precision, "cpu"):
            bias.copy_(trained + shift * prior)
            found: float = metrics(evaluate(model, open_dense(recognise(args.data), part=part), recipe))["miou"]
        print(f"{part:<5} shift {shift:<5} mIoU {found:.4f}", flush=True)
        return found

    val = {shift: miou("val", shift) for shift in map(float, args.shifts.split(","))}
    chosen = max(val, key=lambda shift: val[shift])
    machine = environment(torch.device("cpu"))
    row = {
        "data": args.data.stem,
        "model": recipe.model.name,
        "tau": recipe.loss.tau,
        "val_miou": val,
        "chosen": chosen,
        "test_miou": {shift: miou("test", shift) for shift in sorted({0.0, chosen})},
        **{key: machine[key] for key in ("device_name", "cores", "torch", "convnext")},
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
