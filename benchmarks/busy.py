"""How OpenMP's threads wait, on a quiet machine and beside other work: images a second of inference and of training steps.

    python benchmarks/busy.py [tiny] [--busy 0,1,2] [--rounds 3] [--seconds 4]

Threads of a parallel region that are ready wait for the others in a loop, or asleep. A loop is quicker while every thread has
a core of its own; beside other work it keeps the thread that is waited for from running. Each contender is a fresh process with
libgomp's own setting, GOMP_SPINCOUNT (turns of that loop before it sleeps), or OMP_WAIT_POLICY=PASSIVE. They take turns, beside
`--busy` processes that compute without end. A line of results/busy.jsonl for each number of these: medians over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from convnext.engine.machine import machine

RESULTS = Path(__file__).parent / "results" / "busy.jsonl"
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "spin_100000": {"GOMP_SPINCOUNT": "100000"},
    "spin_10000": {"GOMP_SPINCOUNT": "10000"},
    "spin_3000": {"GOMP_SPINCOUNT": "3000"},
    "spin_1000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WORK = """
import sys, time
import torch
import convnext
name, seconds = sys.argv[1], float(sys.argv[2])
def rate(step, images):
    step()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        done += images
    return done / (time.perf_counter() - start)
model = convnext.create(name)
fast = convnext.optimize(model.eval())
one, small = torch.rand(1, 3, 224, 224), torch.rand(16, 3, 32, 32)
with torch.inference_mode():
    predict = rate(lambda: fast(one), 1)
model.train()
optimizer = torch.optim.AdamW(model.parameters())
def step():
    model(small).logsumexp(1).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print(predict, rate(step, 16))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="atto")
    parser.add_argument("--busy", default="0,1,2", help="processes that compute beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    args = parser.parse_args()
    for busy in map(int, args.busy.split(",")):
        row = measured(args, busy)
        print(json.dumps(row), flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


def measured(args: argparse.Namespace, busy: int) -> dict[str, Any]:
    """One row: the medians of all ways beside `busy` processes."""
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        for _ in range(args.rounds):
            for way, variables in WAYS.items():
                found[way].append(once(args, variables))
    finally:
        for other in others:
            other.kill()
            other.wait()
    rates = {
        way: dict(zip(("predict", "train"), map(statistics.median, zip(*rounds, strict=True)), strict=True))
        for way, rounds in found.items()
    }

    return {**machine(), "model": args.model, "busy": busy, "images_per_s": rates}


def once(args: argparse.Namespace, variables: dict[str, str]) -> list[float]:
    """Images a second in inference and in training, of one process."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", WORK, args.model, str(args.seconds)]
    done = subprocess.run(command, env=left | variables, check=True, capture_output=True, text=True)
    return [float(each) for each in done.stdout.split()]


if __name__ == "__main__":
    main()
