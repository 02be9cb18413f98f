"""Box and mask AP from random weights on an annotated data set, by the recipe `small_detection`.

    python benchmarks/detection.py DATA [--model atto] [--seeds 0] [--pictures N] [--recipe.field value ...]

DATA is anything that `convnext train` takes for detection: a COCO JSON file, a folder or a zip. `--pictures N` trains and
evaluates on the first N training pictures: can they be learnt by heart? Every run goes on after an interruption and ends
as one line of results/detection.jsonl with its command, seed, machine, versions and times.
"""

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from convnext.cli.words import changes_of
from convnext.config import RunOptions
from convnext.data.dense.export import to_coco
from convnext.data.dense.opening import open_dense_splits
from convnext.tasks.train_dense import DenseRequest, train_dense

RESULTS = Path(__file__).parent / "results" / "detection.jsonl"
FIGURES = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")


def main() -> None:
    """Train with each seed, one after the other, and print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="atto")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--px", type=int, help="shorter side to train at (that of the pictures)")
    parser.add_argument("--pictures", type=int, help="train and evaluate on the first N training pictures alone")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/detection"))
    args, more = parser.parse_known_args()
    shown = [word for word in sys.argv[1:] if word not in (str(args.data), "--out", str(args.out))]
    data, where = args.data, {}
    if args.pictures:
        data = first_pictures(args.data, args.pictures, args.out)
        where = {"images": str(args.data), "val": str(data)}
    for seed in (int(word) for word in args.seeds.split(",")):
        out = args.out / f"{data.stem}_{args.model}_seed{seed}"
        changes = changes_of(more)
        request = DenseRequest(
            data=str(data), **where, model=args.model, seed=seed, picture_px=args.px, changes=changes
        )
        options = RunOptions(out=str(out), device=args.device, workers=args.workers, micro_batch=args.micro_batch)
        _, _, evaluation = train_dense(request, options)
        record(out, data.stem, shlex.join(["python", "benchmarks/detection.py", "DATA", *shown]), evaluation)
    table()


def first_pictures(data: Path, count: int, folder: Path) -> Path:
    """A COCO JSON file of the first `count` training pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{data.stem}_first{count}.json"
    file.write_text(json.dumps(to_coco(open_dense_splits(data).train, range(count))))
    return file


def record(out: Path, data: str, command: str, evaluation: dict[str, Any]) -> None:
    """Add one run to the results, in place of an earlier line of the same data, command and seed."""
    recipe = json.loads((out / "recipe.json").read_text())
    environment = json.loads((out / "environment.json").read_text())
    timings = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    row = {
        "data": data,
        "model": recipe["model"]["name"],
        "epochs": recipe["schedule"]["epochs"],
        "px": recipe["dense"]["eval_short_px"],
        "batch": recipe["optim"]["batch"],
        "seed": recipe["seed"],
        **{name: evaluation[name] for name in FIGURES if name in evaluation},
        **{name: evaluation[name] for name in ("n", "most", "weights", "step")},
        "training_minutes": round(sum(t["seconds"] for t in timings) / 60, 1),
        "pictures_per_s": statistics.median(t["pictures_per_s"] for t in timings),
        "command": command,
        **{key: environment[key] for key in ("device_name", "cores", "torch", "convnext")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    same = ("data", "command", "seed")
    rows = [other for other in rows if any(other[key] != row[key] for key in same)] + [row]
    RESULTS.write_text("".join(json.dumps(other) + "\n" for other in rows))


def table() -> None:
    """Print every result there is, best first."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(
        f"{'data':<12} {'model':<8} {'epochs':>6} {'seed':>4} "
        + " ".join(f"{name:>9}" for name in FIGURES)
        + "  minutes"
    )
    for row in sorted(rows, key=lambda r: (r["data"], -r["box_ap"])):
        figures = " ".join("        -" if row.get(name) is None else f"{row[name]:>9.3f}" for name in FIGURES)
        print(
            f"{row['data']:<12} {row['model']:<8} {row['epochs']:>6g} {row['seed']:>4} {figures}  {row['training_minutes']}"
        )


if __name__ == "__main__":
    main()
