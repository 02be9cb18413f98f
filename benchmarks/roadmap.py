"""Which of the paper's decisions matter on these images: every step from ResNet to ConvNeXt under one budget.

    python benchmarks/roadmap.py DATA [--regime t] [--width-factor 0.25] [--epochs 10] [--seeds 2] [--steps a,b]

DATA is a folder or zip with train/<class>/* and val/<class>/*. Goes on after an interruption. After every run,
results/roadmap.json holds the figures, the command, the machine and the versions, and results/roadmap.svg the chart;
`--name` keeps the results of another plan beside them. Further options are recipe fields: --precision bf16 --optim.batch 64.
"""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from convnext.config import RunOptions
from convnext.studies.roadmap.page import results_text, write_roadmap
from convnext.studies.roadmap.training import Plan, train_roadmap

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Train what is left of the plan, and print the table with its reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--regime", default="t", choices=("t", "b"))
    parser.add_argument("--steps", default="", help="names with commas between them (all)")
    parser.add_argument("--width-factor", type=float, default=0.25)
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--name", default="roadmap", help="of the two files of results")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--out", type=Path, default=Path("runs/roadmap"))
    args, more = parser.parse_known_args()
    plan = Plan(
        data=str(args.data),
        regime=args.regime,
        steps=tuple(args.steps.split(",")) if args.steps else (),
        width_factor=args.width_factor,
        epochs=args.epochs,
        seeds=args.seeds,
        changes=fields(more),
    )
    options = RunOptions(out=str(args.out), device=args.device, workers=args.workers)
    results = train_roadmap(plan, options, after=lambda found: keep(found, args))
    keep(results, args)
    print(results_text(results))


def keep(results: dict[str, Any], args: argparse.Namespace) -> None:
    """Draw what there is so far and put it among the results, with the command that makes it."""
    drawing, _ = write_roadmap(args.out)
    arguments = [argument for argument in sys.argv[1:] if argument != str(args.data)]
    command = shlex.join(["python", "benchmarks/roadmap.py", "DATA", *arguments])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.name}.json").write_text(json.dumps({"command": command, **results}, indent=1) + "\n")
    shutil.copyfile(drawing, RESULTS / f"{args.name}.svg")


def fields(arguments: list[str]) -> dict[str, str]:
    """['--optim.batch', '64', '--precision', 'bf16'] -> {'optim.batch': '64', 'precision': 'bf16'}"""
    if len(arguments) % 2 or not all(argument.startswith("--") for argument in arguments[::2]):
        raise SystemExit(f"Recipe fields come as pairs, --optim.batch 64; not as {shlex.join(arguments)}.")
    return dict(zip((argument.removeprefix("--") for argument in arguments[::2]), arguments[1::2], strict=True))


if __name__ == "__main__":
    main()
