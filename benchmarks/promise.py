"""Whether scores mean what they say: calibration error, promises and sets over random halves of the scores of a run.

    python benchmarks/promise.py RUN DATA [--part val] [--promise 0.9,0.95] [--sets 0.9] [--splits 200] [--scores FILE.npz]

The run answers every image of the part once; FILE keeps the logits for the next time. Then, 200 times, one half of the images
fits the scale, measures the promise and the sets, and the other half judges them: how often fewer of its answers are right
than was promised, how many images are answered beside the lowest threshold that an oracle would take on this half, and how
many sets hold the right class. The halves are of one small collection: where the first is lucky the second is unlucky, so
misses are counted more strictly than for new images. A line of results/promise.jsonl.
"""

import argparse
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convnext import load
from convnext.tasks.classification import calibration, conformal, promise
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.metrics import Outcomes, metrics
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.scoring import answers
from convnext.tasks.evaluate import answering
from convnext.tasks.opening import part_of, source_of

RESULTS = Path(__file__).parent / "results" / "promise.jsonl"


def main() -> None:
    """Answer, halve and judge, append a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--part", default="val")
    parser.add_argument("--promise", default="0.9,0.95")
    parser.add_argument("--sets", default="0.9")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--name", help="what the line calls the data")
    args = parser.parse_args()
    seen = scores(args)
    scale, apart = calibration.fit(seen.logits, seen.label)
    splits = halves(seen, args.splits)
    alone = calibration.fitted(seen.logits, seen.label)
    name = args.name or Path(args.data).name
    asked = f"--promise {args.promise} --sets {args.sets} --splits {args.splits}"
    line: dict[str, Any] = {
        "command": f"python benchmarks/promise.py RUN {name} {asked}",
        "data": name,
        "n": len(seen),
        "splits": args.splits,
        "top1": round(float((seen.logits.argmax(1) == seen.label).mean()), 4),
        "temperature": round(scale.temperature, 4),
        "stretch": round(scale.stretch, 4),
        "ece_before": round(error(seen.outcomes()), 4),
        "ece": round(error(seen.outcomes(apart)), 4),
        "ece_temperature_alone": round(error(seen.outcomes(alone.log_scores(seen.logits))), 4),
        "promise": {each: kept(seen, float(each), splits) for each in args.promise.split(",") if each},
        "sets": {each: held(seen, float(each), splits) for each in args.sets.split(",") if each},
        **{"seed": 0, "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        **{"numpy": np.__version__, "torch": torch.__version__},
    }
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def scores(args: argparse.Namespace) -> Answers:
    """The logits of every image of the part, from the file where it is there."""
    if args.scores and args.scores.exists():
        held = np.load(args.scores)
        return Answers(np.arange(len(held["labels"])), held["labels"], held["logits"])
    predictor = load(args.run, task="classification", device="cpu")
    dataset = part_of(source_of(args.data, "classification"), part=args.part, classes=predictor.classes)
    with answering(predictor.recipe, predictor.device):
        found = answers(predictor.model, dataset, predictor.recipe, Pass())
    if args.scores:
        np.savez(args.scores, labels=found.label, logits=found.logits)
    return found


@dataclass(frozen=True)
class Half:
    """A split: places that measure, places that are judged, and the logarithms of all scores by what the first fitted."""

    first: np.ndarray
    second: np.ndarray
    log_scores: np.ndarray


def halves(seen: Answers, splits: int) -> list[Half]:
    """The same every time."""
    rng, found = np.random.default_rng(0), []
    for _ in range(splits):
        order = rng.permutation(len(seen))
        first, second = np.split(order, [len(order) // 2])
        scale = calibration.fit(seen.logits[first], seen.label[first])[0]
        found.append(Half(first, second, scale.log_scores(seen.logits)))
    return found


def kept(seen: Answers, accuracy: float, splits: list[Half]) -> dict[str, Any]:
    """How a promise fares."""
    right = seen.logits.argmax(1) == seen.label
    missed, none, answered, beside = 0, 0, [], []
    for each in splits:
        score = np.exp(each.log_scores.max(1)).astype(np.float32)
        threshold = promise.threshold_of(score[each.first], right[each.first], accuracy)
        if threshold is None:
            none += 1
            beside.append(0.0)
            continue
        given = each.second[score[each.second] >= threshold]
        missed += bool(len(given)) and right[given].mean() < accuracy
        answered.append(len(given) / len(each.second))
        beside.append(len(given) / max(1, oracle(score[each.second], right[each.second], accuracy)))
    return {
        "missed": missed / len(splits),
        "none": none / len(splits),
        "answered": round(float(np.mean(answered)), 4) if answered else None,
        "of_oracle": round(float(np.mean(beside)), 4),
    }


def oracle(score: np.ndarray, right: np.ndarray, accuracy: float) -> int:
    """How many images the lowest threshold answers that is right often enough on these very images."""
    rates = np.cumsum(right[np.argsort(-score, kind="stable")]) / np.arange(1, len(score) + 1)
    return int(np.flatnonzero(rates >= accuracy).max(initial=-1)) + 1


def held(seen: Answers, coverage: float, splits: list[Half]) -> dict[str, Any]:
    """How sets fare."""
    shares, sizes = [], []
    for each in splits:
        first, second = each.first, each.second
        sets = conformal.sets_of(each.log_scores[first], seen.label[first], coverage, "given")
        if sets is not None:
            found = sets.sizes(each.log_scores[second])
            shares.append(conformal.covered(found, each.log_scores[second], seen.label[second]).mean())
            sizes.append(found.mean())
    if not shares:
        return {"none": 1.0}
    return {"covered": round(float(np.mean(shares)), 4), "mean_size": round(float(np.mean(sizes)), 3)}


def error(outcomes: Outcomes) -> float:
    """The calibration error."""
    return metrics(outcomes)["ece"]


if __name__ == "__main__":
    main()
