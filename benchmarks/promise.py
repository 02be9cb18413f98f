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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convnext import load
from convnext.tasks.classification import calibration, conformal, promise
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.metrics import Outcomes, metrics
from convnext.tasks.classification.scoring import answers, eval_batch
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
    alone = calibration.fitted(seen.logits, seen.label)
    line: dict[str, Any] = {
        "data": args.name or Path(args.data).name,
        "n": len(seen),
        "splits": args.splits,
        "top1": round(float((seen.logits.argmax(1) == seen.label).mean()), 4),
        "temperature": round(scale.temperature, 4),
        "stretch": round(scale.stretch, 4),
        "ece_before": round(error(seen.outcomes()), 4),
        "ece": round(error(seen.outcomes(apart)), 4),
        "ece_temperature_alone": round(error(seen.outcomes(alone.log_scores(seen.logits))), 4),
        "promise": {each: kept(seen, float(each), args.splits) for each in args.promise.split(",") if each},
        "sets": {each: held(seen, float(each), args.splits) for each in args.sets.split(",") if each},
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
        found = answers(predictor.model, dataset, predictor.recipe.input, batch=eval_batch(predictor.recipe))
    if args.scores:
        np.savez(args.scores, labels=found.label, logits=found.logits)
    return found


def halves(n: int, splits: int) -> Any:
    """Pairs of places, the same every time."""
    rng = np.random.default_rng(0)
    for _ in range(splits):
        order = rng.permutation(n)
        yield order[: n // 2], order[n // 2 :]


def kept(seen: Answers, accuracy: float, splits: int) -> dict[str, Any]:
    """How a promise fares."""
    right = seen.logits.argmax(1) == seen.label
    missed, none, answered, beside = 0, 0, [], []
    for first, second in halves(len(seen), splits):
        scale = calibration.fit(seen.logits[first], seen.label[first])[0]
        score = np.exp(scale.log_scores(seen.logits).max(1)).astype(np.float32)
        threshold = promise.threshold_of(score[first], right[first], accuracy)
        if threshold is None:
            none += 1
            beside.append(0.0)
            continue
        given = second[score[second] >= threshold]
        missed += bool(len(given)) and right[given].mean() < accuracy
        answered.append(len(given) / len(second))
        beside.append(len(given) / max(1, oracle(score[second], right[second], accuracy)))
    return {
        "missed": missed / splits,
        "none": none / splits,
        "answered": round(float(np.mean(answered)), 4) if answered else None,
        "of_oracle": round(float(np.mean(beside)), 4),
    }


def oracle(score: np.ndarray, right: np.ndarray, accuracy: float) -> int:
    """How many images the lowest threshold answers that is right often enough on these very images."""
    rates = np.cumsum(right[np.argsort(-score, kind="stable")]) / np.arange(1, len(score) + 1)
    return int(np.flatnonzero(rates >= accuracy).max(initial=-1)) + 1


def held(seen: Answers, coverage: float, splits: int) -> dict[str, Any]:
    """How sets fare."""
    shares, sizes = [], []
    for first, second in halves(len(seen), splits):
        scale = calibration.fit(seen.logits[first], seen.label[first])[0]
        log_scores = scale.log_scores(seen.logits)
        sets = conformal.sets_of(log_scores[first], seen.label[first], coverage, "given")
        if sets is None:
            continue
        found = sets.sizes(log_scores[second])
        shares.append(conformal.covered(found, log_scores[second], seen.label[second]).mean())
        sizes.append(found.mean())
    if not shares:
        return {"none": 1.0}
    return {"covered": round(float(np.mean(shares)), 4), "mean_size": round(float(np.mean(sizes)), 3)}


def error(outcomes: Outcomes) -> float:
    """The calibration error."""
    return metrics(outcomes)["ece"]


if __name__ == "__main__":
    main()
