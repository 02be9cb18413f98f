"""What makes up for uneven classes? Each way of --balance on a long-tailed cut of a data set of class folders.

    python benchmarks/balance.py DATA --out DIR [--ratio 100] [--most 300] [--seeds 0,1,2] [--ways auto,none,...]

DATA is a folder or zip with train/<class>/* and val/<class>/*. The cut keeps every class, in a random order, with fewer
images each, the last with 1/RATIO of the first, as CIFAR-LT does (arXiv 1901.05555, section 5); --val images of each
class are held out and stay even. It is written into DIR once. Every run is an ordinary `convnext train` with the best
weights chosen by balanced accuracy, and ends as one line of results/balance.jsonl.
"""

import argparse
import json
import shlex
import statistics
import sys
import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from convnext.cli import main as main_of_package

RESULTS = Path(__file__).parent / "results" / "balance.jsonl"
WAYS = ("auto", "none", "sampler", "weights", "logits")
FIGURES = ("macro_f1", "balanced_accuracy", "top1")
NETWORK = ["--size", "32", "--model.depths", "1,1,1", "--model.widths", "24,48,96", "--workers", "0"]  # seconds a run


def main() -> None:
    """Write the cut, train what is asked for and not yet there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ratio", type=int, default=100)
    parser.add_argument("--most", type=int, default=300, help="images of the largest class")
    parser.add_argument("--val", type=int, default=50, help="held-out images of each class")
    parser.add_argument("--epochs", default="20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(WAYS))
    args, more = parser.parse_known_args()
    for seed in args.seeds.split(","):
        data = args.out / f"cut_{args.ratio}_{seed}"
        counts = cut(args.data, data, args.ratio, args.most, args.val, int(seed))
        for way in args.ways.split(","):
            arguments = [
                "train",
                str(data),
                "--balance",
                way,
                "--metric",
                "balanced_accuracy",
                "--seed",
                seed,
                *NETWORK,
            ]
            arguments += ["--epochs", args.epochs, "--schedule.eval_epochs", "10", "--device", "cpu", *more]
            out = args.out / f"{way}_{args.ratio}_{args.epochs}ep_{seed}"
            if not (out / "evaluation.json").exists() and main_of_package([*arguments, "--out", str(out)]):
                sys.exit(f"`convnext {shlex.join(arguments)}` failed")
            record(out, way, args.ratio, counts, arguments)
    table()


def cut(source: Path, target: Path, ratio: int, most: int, held_out: int, seed: int) -> list[int]:
    """Write the long-tailed cut of `source` into `target`; the images of each class that are trained on, most first."""
    read, names = opened(source)
    files: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) > 2 and parts[-3] in ("train", "val"):
            files[parts[-3], parts[-2]].append(name)
    rng = np.random.default_rng(seed)
    classes = sorted({label for part, label in files if part == "train"})
    classes = [classes[i] for i in rng.permutation(len(classes))]
    most = min([most, *(len(files["train", label]) for label in classes)])
    counts = [max(1, round(most * ratio ** (-place / (len(classes) - 1)))) for place in range(len(classes))]
    for label, count in zip(classes, counts, strict=True):
        for part, many in {"train": count, "val": held_out}.items():
            own = sorted(files[part, label])
            for place in rng.permutation(len(own))[:many]:
                file = target / part / label / PurePosixPath(own[place]).name
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(read(own[place]))
    return counts


def opened(source: Path):  # type: ignore[no-untyped-def]
    """(how a file is read, the names of all) of a folder or zip."""
    if source.is_dir():
        names = [str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()]
        return lambda name: (source / name).read_bytes(), names
    pack = zipfile.ZipFile(source)
    return pack.read, [name for name in pack.namelist() if not name.endswith("/")]


def record(out: Path, way: str, ratio: int, counts: list[int], arguments: list[str]) -> None:
    """Add one run to the results, in place of an earlier line of the same command."""
    evaluation = json.loads((out / "evaluation.json").read_text())
    recipe = json.loads((out / "recipe.json").read_text())
    environment = json.loads((out / "environment.json").read_text())
    recalls = {row["name"]: row["recall"] for row in evaluation["per_class"]}
    data = json.loads((out / "data.json").read_text())["train"]["per_class"]
    rarest = sorted(data, key=data.__getitem__)[: max(1, len(data) // 3)]
    shown = shlex.join(["convnext", "train", "CUT", *arguments[2:]])
    row = {
        "way": way,
        "done": recipe["loss"]["balance"],
        "ratio": ratio,
        "train_images": counts,
        "epochs": recipe["schedule"]["epochs"],
        "seed": recipe["seed"],
        **{figure: evaluation[figure] for figure in FIGURES},
        "recall_of_rarest_third": statistics.fmean(recalls[name] for name in rarest),
        "n": evaluation["n"],
        "command": shown,
        **{key: environment[key] for key in ("device_name", "cores", "torch", "convnext")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = [other for other in rows if (other["command"], other["ratio"]) != (shown, ratio)] + [row]
    RESULTS.write_text("".join(json.dumps(other) + "\n" for other in rows))


def table() -> None:
    """Print mean and spread over the seeds of every way."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    figures = (*FIGURES, "recall_of_rarest_third")
    print(f"{'way':<8} {'ratio':>5} {'epochs':>6} {'seeds':>5} " + " ".join(f"{figure:>24}" for figure in figures))
    for ratio, epochs, way in sorted({(row["ratio"], row["epochs"], row["way"]) for row in rows}):
        same = [row for row in rows if (row["ratio"], row["epochs"], row["way"]) == (ratio, epochs, way)]
        cells = []
        for figure in figures:
            values = [row[figure] for row in same]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{100 * statistics.fmean(values):>14.1f} ± {100 * spread:>4.1f} %")
        print(f"{way:<8} {ratio:>5} {epochs:>6g} {len(same):>5} " + " ".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
