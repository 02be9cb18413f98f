"""What a fresh process holds after its first answer: a network folded in hand, and a run.

    python benchmarks/held.py [base] [tiny] [--data DIR] [--quiet]

Each is a process of its own: fresh weights, one answer, then the resident memory that the system reports, and of it what the
process holds without anything of ours but the imports. One thread. A line of results/held.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from convnext.engine.machine import machine
from first import keep, write_run

RESULTS = Path(__file__).parent / "results" / "held.jsonl"
HELD = """
import gc, json, sys, torch, numpy as np, convnext, convnext.deploy.optimize, convnext.models.create
from convnext.deploy.load import load
def held():
    gc.collect()
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024
before = held()
"""
SHOWN = "print(json.dumps({'imports_mb': before, 'held_mb': held()}))"
IN_HAND = """
fast = convnext.optimize(convnext.create(sys.argv[1]).eval())  # what it was made of is gone
with torch.inference_mode():
    fast(torch.zeros(1, 3, 224, 224))
"""
RUN = """
predictor = load(sys.argv[2], device="cpu")
predictor(np.zeros((224, 224, 3), np.uint8))
"""


def main() -> int:
    """One process after the other, a line each, one line kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny", "base"])
    parser.add_argument("--data", type=Path, help="where runs are made, or lie from before")
    parser.add_argument("--quiet", action="store_true", help="print the line, and keep nothing in results/")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for model in args.models:
            run = write_run((args.data or Path(temporary)) / model, model)
            for name, program in (("in hand", IN_HAND), ("run", RUN)):
                command = [sys.executable, "-c", HELD + program + SHOWN, model, str(run)]
                done = subprocess.run(
                    command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
                )
                found[f"{model}, {name}"] = told = json.loads(done.stdout.splitlines()[-1])
                print(f"{model:<8} {name:<8} {told}", file=sys.stderr)
    keep({"benchmark": "held", "contenders": found} | machine(), None if args.quiet else RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
