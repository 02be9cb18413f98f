"""Whether activation maps show what a classifier looks at: deletion and insertion curves (arXiv 1806.07421).

    python benchmarks/explain.py RUN DATA [--images 100] [--seed 0]

Pixels are taken away in the order of the map, the strongest first, and replaced by the mean colour; or they are brought back
onto a blurred image. The score is the probability of the class that the whole image is given, averaged over the curve:
deletion is good when it is low, insertion when it is high. Beside the methods stand maps of noise, as coarse as those of the
last stage, and the middle of the image. Writes a line of JSON to benchmarks/results/explain.jsonl.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import convnext
from convnext.data.decode import decode
from convnext.data.evaluation import eval_transform
from convnext.data.opening import open_labelled, recognise
from convnext.engine.machine import processor
from convnext.errors import ConvNeXtError

RESULTS = Path(__file__).parent / "results" / "explain.jsonl"
STEPS = 20  # of each curve
BLUR_PX = 10  # at 224 px; less at smaller sizes

Heat = NDArray[np.float32]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data", help="held-out images: classes of the run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    predictor: Any = convnext.load(args.run, task="classification", device="cpu")
    dataset = open_labelled(recognise(args.data), classes=predictor.classes, split=None)
    rng = np.random.default_rng(args.seed)
    chosen = rng.permutation(len(dataset.entries))[: args.images].tolist()
    found: dict[str, list[tuple[float, float]]] = {}
    for place in chosen:
        pixels = decode(dataset.store.read(dataset.entries[place].path), channels=3)
        shown = eval_transform(pixels, predictor.recipe.input)
        for name, heat in maps(predictor, pixels, rng).items():
            found.setdefault(name, []).append(curves(predictor.probabilities, shown, heat, predictor.recipe.input.mean))
    row: dict[str, Any] = {
        "command": f"explain.py RUN DATA --images {args.images} --seed {args.seed}",
        "n": len(chosen),
    }
    row |= {"network": predictor.recipe.model.name, "size_px": predictor.recipe.input.eval_size_px}
    row |= {"top1": predictor.metadata.get("score"), "curves": {name: summary(each) for name, each in found.items()}}
    row |= {"better_than_noise": {name: beaten(each, found["noise"]) for name, each in found.items()}}
    row |= {"threads": torch.get_num_threads(), "processor": processor(), "torch": torch.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def maps(predictor: Any, pixels: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Heat]:
    """Name -> (side, side) of every method at every stage that it takes, and what they are compared with."""
    side = predictor.recipe.input.eval_size_px
    last = predictor.explain(pixels)
    ways = [("cam", None)] + [(name, stage) for name in ("gradcam", "layercam") for stage in range(last.stage, 0, -1)]
    made: dict[str, Heat] = {}
    for method, stage in ways:
        try:
            one = predictor.explain(pixels, method=method, stage=stage)
        except ConvNeXtError:  # no exact map of this head, or no other stage
            continue
        view = replace(one.view, box=(0, 0, side, side))
        made[method if stage is None else f"{method} {stage}"] = view.spread(one.grids[0], (side, side), (side, side))
    noise = rng.random(last.grids.shape[1:], np.float32)
    made["noise"] = replace(last.view, box=(0, 0, side, side)).spread(noise, (side, side), (side, side))
    away = (np.arange(side) - (side - 1) / 2) ** 2
    made["middle"] = -np.sqrt(away[:, None] + away).astype(np.float32)
    return made


def curves(
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    shown: NDArray[np.uint8],
    heat: Heat,
    mean: tuple[float, ...],
) -> tuple[float, float]:
    """(deletion, insertion): the mean probability of the class of the whole image over each curve."""
    side = len(shown)
    rank = np.empty(side * side, np.int64)
    rank[np.argsort(-heat.ravel(), kind="stable")] = np.arange(side * side)
    rank = rank.reshape(side, side)
    grey = np.broadcast_to(np.round(255 * np.array(mean)).astype(np.uint8), shown.shape)
    soft = np.asarray(Image.fromarray(shown).filter(ImageFilter.GaussianBlur(BLUR_PX * side / 224)))
    ends = [round(side * side * step / STEPS) for step in range(STEPS + 1)]
    taken = [(rank < end)[:, :, None] for end in ends]
    images = [np.where(each, grey, shown) for each in taken] + [np.where(each, shown, soft) for each in taken]
    probabilities = score(np.stack(images))
    label = int(probabilities[0].argmax())
    deleted, inserted = probabilities[: STEPS + 1, label], probabilities[STEPS + 1 :, label]
    return float(np.trapezoid(deleted) / STEPS), float(np.trapezoid(inserted) / STEPS)


def summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Means, and the standard error of insertion less deletion, which is the higher the better."""
    deletion, insertion = np.array(rows).T
    gap = insertion - deletion
    found = {"deletion": deletion.mean(), "insertion": insertion.mean(), "gap": gap.mean()}
    found |= {"gap_error": gap.std(ddof=1) / np.sqrt(len(gap))}
    return {name: round(float(value), 4) for name, value in found.items()}


def beaten(rows: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """The share of images on which insertion less deletion is larger than that of `others`."""
    ours, theirs = (np.array(each)[:, 1] - np.array(each)[:, 0] for each in (rows, others))
    return round(float((ours > theirs).mean()), 3)


if __name__ == "__main__":
    main()
