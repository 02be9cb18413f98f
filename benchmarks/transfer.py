"""Fine-tuning from given weights beside its rivals, at 10 and 50 images a class and on all of them.

    python benchmarks/transfer.py DATA --weights FILE [--sizes 10,50,all] [--seeds 0,1,2,3,4] [--runs transfer,small,...]

DATA is a zip or folder with train/<class>/* and test/<class>/*. Each run gets the same training images (drawn by seed,
no validation images beside them), may hold out of them what it likes, and is scored once on `test`. Ours is
`convnext train IMAGES --weights FILE` and nothing else. `probe` is the frozen network of that run; of few images, that of
its first part. `small` starts from random
weights; `finetune` is the paper's recipe with its rate scaled linearly to batch 32. The others are in transfer_rivals.py.
`--all-seeds` are the seeds of 'all'. `transfer` and `small` train in the numbers that the device is fast in, or in those of
`--precision`; the others in float32. Every run ends as one line of results/transfer.jsonl and is not made again from the
same file of weights.
"""

import argparse
import hashlib
import json
import math
import random
import shutil
import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

import convnext
import transfer_rivals as rivals
from convnext.engine.environment import environment
from convnext.engine.precision import fast_format

RESULTS = Path(__file__).parent / "results" / "transfer.jsonl"
FINETUNE = {"optim.batch": 32, "optim.lr": 5e-5 * 32 / 512}
OF_THE_DEVICE = ("transfer", "small")  # which do not say what they are computed in
RUNS = ("transfer", "probe", "small", "finetune", *rivals.RIVALS)


def main() -> None:
    """Make the runs that are not yet in the results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", default="atto", help="network of `small`, which has no weights to tell it")
    parser.add_argument("--sizes", default="10,50,all")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--all-seeds", default="0,1")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--px", type=int, default=128, help="input of the rivals: what the weights were trained at")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="numbers of `transfer` and `small` (the device's)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    args = parser.parse_args()
    source = unpacked(args.data, args.out)
    weights = hashlib.sha256(args.weights.read_bytes()).hexdigest()[:12]
    for size in args.sizes.split(","):
        for seed in (int(word) for word in (args.all_seeds if size == "all" else args.seeds).split(",")):
            images = drawn(source, args.out, size, seed)
            for run in args.runs.split(","):
                where = {"data": args.data.stem, "weights": weights, "size": size, "seed": seed}
                if run in OF_THE_DEVICE:
                    where |= {"precision": args.precision or fast_format(torch.device("cpu")) or "fp32"}
                if run != "probe" and not known(where | {"run": run}):
                    for row in made(run, images, source / "test", size, seed, args):
                        record(where | row)
    table(args.data.stem, weights)


def unpacked(data: Path, out: Path) -> Path:
    """DATA as a folder."""
    if data.is_dir():
        return data
    folder = out / data.stem
    if not folder.exists():
        with zipfile.ZipFile(data) as archive:
            archive.extractall(folder)
    return folder


def drawn(source: Path, out: Path, size: str, seed: int) -> Path:
    """A folder of classes with `size` training images each, or all of them."""
    if size == "all":
        return source / "train"
    folder = out / f"{source.name}_{size}_{seed}"
    if not folder.exists():
        for name in sorted(each.name for each in (source / "train").iterdir()):
            (folder / name).mkdir(parents=True)
            files = sorted((source / "train" / name).iterdir())
            for file in random.Random(seed).sample(files, min(int(size), len(files))):
                shutil.copy(file, folder / name)
    return folder


def made(run: str, images: Path, test: Path, size: str, seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one contestant and score it on `test`; ours gives the line of its probe as well."""
    start = time.perf_counter()
    if run in rivals.RIVALS:
        return [{"run": run, "top1": rival(run, images, test, seed, args), **spent(start)}]
    out = args.out / "_".join([run, size, str(seed), *([args.precision] if args.precision else [])])
    given: dict[str, Any] = {"seed": seed, "workers": 0, "progress": False, "out": out}
    if run in OF_THE_DEVICE and args.precision:
        given |= {"overrides": {"precision": args.precision}}
    if run == "small":
        given |= {"model": args.model}
    elif run == "finetune":
        given |= {"weights": args.weights, "recipe": "finetune", "overrides": FINETUNE, "epochs": 30}
    else:
        given |= {"weights": args.weights}
    trained = convnext.train(images, **given)
    took = spent(start)
    rows = [{"run": run, "top1": scored(trained, test), "held_out_top1": trained.scores["top1"], **took}]
    if run == "transfer":
        rows[0]["chosen"] = trained.to_dict()["chosen"]
        rows.append({"run": "probe", "top1": scored(trained, test, weights="probe"), **took})
    return rows


def scored(run: convnext.Run, test: Path, weights: str = "best") -> float:
    """Top-1 on the images of `test`."""
    return float(convnext.evaluate(run, test, weights=weights).to_dict()["top1"])


def rival(run: str, images: Path, test: Path, seed: int, args: argparse.Namespace) -> float:
    """Top-1 of another trainer's defaults on the same weights."""
    torch.manual_seed(seed)
    classes = sorted(each.name for each in images.iterdir())
    network = convnext.create(args.model, stem="patch", patch=4, classes=len(classes), weights=args.weights)
    network = rivals.prepared(network)
    torch.nn.init.trunc_normal_(network.head.weight, std=0.02)
    torch.nn.init.zeros_(network.head.bias)
    network = rivals.RIVALS[run](network, *rivals.read(images, classes, args.px), args.px, seed)
    return rivals.accuracy(network, *rivals.read(test, classes, args.px), args.px)


def spent(start: float) -> dict[str, float]:
    """The time since `start`."""
    return {"minutes": round((time.perf_counter() - start) / 60, 2)}


def known(key: dict[str, Any]) -> bool:
    """Whether the results hold a run of this data, size, seed and name."""
    return any(all(row.get(name) == value for name, value in key.items()) for row in rows_of())


def rows_of() -> list[dict[str, Any]]:
    """All results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def record(row: dict[str, Any]) -> None:
    """Add one line to the results."""
    machine = environment(torch.device("cpu"))
    row |= {key: machine[key] for key in ("device_name", "cores", "torch", "convnext")}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def table(data: str, weights: str) -> None:
    """Mean and standard error of each contestant at each size, and the differences of ours, seed by seed."""
    rows = [row for row in rows_of() if (row["data"], row.get("weights")) == (data, weights)]
    for size in dict.fromkeys(row["size"] for row in rows):
        print(f"\n{data}, {size} images a class")
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows:
            if row["size"] == size:
                found.setdefault(contestant(row), {})[row["seed"]] = row
        for name, by_seed in sorted(found.items(), key=lambda each: RUNS.index(each[0].split()[0])):
            values = [row["top1"] for row in by_seed.values()]
            minutes = statistics.median(row["minutes"] for row in by_seed.values())
            line = (
                f"{name:<13} {statistics.mean(values):7.2%} +- {error(values):.2%} (n={len(values)}, {minutes:.1f} min)"
            )
            for ours, of_ours in found.items():
                shared = [of_ours[seed]["top1"] - by_seed[seed]["top1"] for seed in by_seed if seed in of_ours]
                if ours.startswith("transfer") and ours != name and shared:
                    line += f"  {ours} minus it: {statistics.mean(shared):+.2%} +- {error(shared):.2%}"
            print(line)


def contestant(row: dict[str, Any]) -> str:
    """Whose row it is; with its numbers, where they are not float32."""
    return row["run"] + (" bf16" if row.get("precision") == "bf16" else "")


def error(values: list[float]) -> float:
    """The standard error of their mean; not a number of one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
