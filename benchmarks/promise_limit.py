"""What a promise can answer at best: this project's tests beside those of somebody who knows the accuracy at every score.

    python benchmarks/promise_limit.py [--n 1962] [--promise 0.98] [--trials 400]

Simulated scores with the accuracy of a network that is right for 82 % of ten classes. The one who knows begins where a test
at 5 % is likeliest to pass, spends all of the 5 % there, and goes on as everybody does. Both are measured against the lowest
threshold that is right often enough among endless images. A line of results/promise_limit.jsonl.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from convnext.tasks.classification.promise import CONFIDENCE, luck, threshold_of

RESULTS = Path(__file__).parent / "results" / "promise_limit.jsonl"
FLOOR, REST, POWER = 0.004, 0.177, 4.5  # of the surest c, a share of FLOOR + REST c^(POWER - 1) is wrong


def main() -> None:
    """Simulate, append a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1962)
    parser.add_argument("--promise", type=float, default=0.98)
    parser.add_argument("--trials", type=int, default=400)
    args = parser.parse_args()
    n, accuracy, rng = args.n, args.promise, np.random.default_rng(0)
    most = ((1 - accuracy - FLOOR) / REST) ** (1 / (POWER - 1))
    steps = np.unique(np.geomspace(n // 10, n, 120).astype(int))
    best, answered = likeliest(steps, n, accuracy), {"here": [], "who knows": []}
    for _ in range(args.trials):
        place = np.sort(rng.random(n))
        chance = FLOOR + REST * POWER * place ** (POWER - 1)
        right = rng.random(n) >= chance
        threshold = threshold_of(1 - chance, right, accuracy)
        answered["here"].append(0 if threshold is None else int((1 - chance >= threshold).sum()))
        answered["who knows"].append(known(np.cumsum(~right), steps[steps >= best], accuracy))
    shares = {who: np.array(places) / n for who, places in answered.items()}
    line = {
        "command": f"python benchmarks/promise_limit.py --n {n} --promise {accuracy} --trials {args.trials}",
        "oracle_answers": round(most, 4),
        **{
            who: {"of_oracle": round(float(share.mean() / most), 3), "none": round(float((share == 0).mean()), 3)}
            | {"missed": round(float((share > most).mean()), 3)}
            for who, share in shares.items()
        },
    }
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def likeliest(steps: np.ndarray, n: int, accuracy: float) -> int:
    """The place where a test at 5 % is likeliest to pass, by 2,000 samples of the true number of mistakes."""
    rng, chances = np.random.default_rng(1), []
    for place in steps.tolist():
        share = place / n
        found = rng.binomial(place, FLOOR + REST * share ** (POWER - 1), 2000)
        values, counts = np.unique(found, return_counts=True)
        passed = [luck(int(value), place, accuracy) <= 1 - CONFIDENCE for value in values]
        chances.append(float((counts * passed).sum()))
    return int(steps[int(np.argmax(chances))])


def known(wrong: np.ndarray, steps: np.ndarray, accuracy: float) -> int:
    """How many images the sequence from the first of `steps` on ends with."""
    best = 0
    for place in steps.tolist():
        if luck(int(wrong[place - 1]), place, accuracy) > 1 - CONFIDENCE:
            break
        best = place
    return best


if __name__ == "__main__":
    main()
