"""Top-1 from random weights on Imagenette at 128 px: ConvNeXt-atto under two recipes, and a ResNet-18 beside it.

    python benchmarks/imagenette.py DATA [--epochs 20] [--runs atto,imagenet1k,resnet18] [--seeds 0] [--precision bf16]

DATA is a folder or zip with train/<class>/* and val/<class>/*. Every run is an ordinary `convnext train`, goes on after
an interruption, and ends as one line of results/imagenette.jsonl with its command, seed, machine, versions and times.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "imagenette.jsonl"
BATCH = 64  # of the plain ImageNet recipe, whose published rate is 4e-3 for a batch of 4096, scaled linearly
RUNS = {  # name -> how it differs; epochs, seed and precision are the same for all
    **{name: ["--model", name, "--recipe", "small"] for name in ("atto", "pico", "nano")},
    "imagenet1k": [
        *("--model", "atto", "--recipe", "imagenet1k", "--batch", str(BATCH), "--lr", str(4e-3 * BATCH / 4096)),
        *("--size", "128"),
    ],
    "resnet18": ["--model", "timm:resnet18", "--recipe", "small"],
}


def main() -> None:
    """Train what is asked for, one after the other, and print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", default="20")
    parser.add_argument("--runs", default="atto,imagenet1k,resnet18")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenette"))
    args, more = parser.parse_known_args()
    for seed in args.seeds.split(","):
        for name in args.runs.split(","):
            arguments = ["train", str(args.data), *RUNS[name], "--epochs", args.epochs, "--seed", seed]
            arguments += ["--precision", args.precision, "--schedule.eval_epochs", "5", *more]
            out = args.out / f"{name}_{args.epochs}ep_{args.precision}_seed{seed}"
            subprocess.run([sys.executable, "-m", "convnext", *arguments, "--out", str(out)], check=True)
            record(out, name, arguments)
    table()


def record(out: Path, name: str, arguments: list[str]) -> None:
    """Add one run to the results, in place of an earlier line of the same command."""
    evaluation = json.loads((out / "evaluation.json").read_text())
    recipe = json.loads((out / "recipe.json").read_text())
    environment = json.loads((out / "environment.json").read_text())
    timings = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    shown = shlex.join(["convnext", "train", "DATA", *arguments[2:]])
    row = {
        "run": name,
        "epochs": recipe["schedule"]["epochs"],
        "seed": recipe["seed"],
        "top1": evaluation["top1"],
        "top5": evaluation["top5"],
        "weights": evaluation["weights"],
        "n": evaluation["n"],
        "training_minutes": round(sum(t["seconds"] for t in timings) / 60, 1),
        "images_per_s": statistics.median(t["images_per_s"] for t in timings),
        "command": shown,
        **{key: environment[key] for key in ("device_name", "cores", "torch", "convnext")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = [other for other in rows if other["command"] != shown] + [row]
    RESULTS.write_text("".join(json.dumps(other) + "\n" for other in rows))


def table() -> None:
    """Print every result there is, best first."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(f"{'run':<12} {'epochs':>6} {'seed':>4} {'top-1':>7} {'weights':>7} {'minutes':>8} {'images/s':>10}")
    for row in sorted(rows, key=lambda r: (r["epochs"], -r["top1"])):
        print(
            f"{row['run']:<12} {row['epochs']:>6g} {row['seed']:>4} {row['top1']:>7.2%} {row['weights']:>7} "
            f"{row['training_minutes']:>8} {row['images_per_s']:>10.0f}"
        )


if __name__ == "__main__":
    main()
