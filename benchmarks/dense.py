"""Detection and segmentation on an annotated data set, by `small_detection` or `small_segmentation`.

    python benchmarks/dense.py DATA [--model atto] [--weights FILE] [--seeds 0] [--px N] [--images N] [--recipe.field value ...]

Training starts from random weights, or with `--weights` from those of a classifier.

DATA is anything that `convnext train` takes for these tasks: a COCO JSON file, a folder, a zip. Figures are those of the
held-out images in original pixels: AP of boxes and masks, or mIoU at one scale and at several with flips, also on a
part called 'test' where there is one; which weights are best is decided on 'val'. `--images N` trains and evaluates on
the first N training images: can they be learnt by heart? Every run goes on after an interruption and ends as one line
of results/dense.jsonl with its command, seed, machine, versions and times.
"""

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from convnext.cli.options import changes_of
from convnext.config import Recipe, RunOptions, parse
from convnext.data.formats.export import to_coco
from convnext.data.opening import open_dense, open_dense_splits, open_parts, recognise
from convnext.engine.update import autocast
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.metrics import metrics
from convnext.tasks.segmentation.scoring import evaluate
from convnext.tasks.train import Request, train
from convnext.tasks.weights import load_best

RESULTS = Path(__file__).parent / "results" / "dense.jsonl"
FIGURES = {
    "detection": ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"),
    "segmentation": ("miou", "miou_multi_scale", "test_miou", "test_miou_multi_scale", "pixel_accuracy"),
}


def main() -> None:
    """Train with each seed, one after the other, and print the tables of all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", help="the backbone (atto, or that of the weights)")
    parser.add_argument("--weights", type=Path, help="a classifier whose backbone is the start")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--px", type=int, help="shorter side to train at (that of the images)")
    parser.add_argument("--images", type=int, help="train and evaluate on the first N training images alone")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/dense"))
    args, more = parser.parse_known_args()
    hidden = {str(args.data): None, "--out": None, str(args.out): None, str(args.weights): "FILE"}
    shown = [name for word in sys.argv[1:] if (name := hidden.get(word, word))]
    data, where = args.data, {}
    if args.images:
        data = first_images(args.data, args.images, args.out)
        where = {"images": args.data}
    for seed in (int(word) for word in args.seeds.split(",")):
        out = args.out / f"{data.stem}_{args.model or ('weights' if args.weights else 'atto')}_seed{seed}"
        changes = changes_of(more)
        source = recognise(data, annotated=True, **where)
        request = Request(
            data=source,
            val=source if where else None,
            model=args.model,
            weights=str(args.weights) if args.weights else None,
            seed=seed,
            size_px=args.px,
            changes=changes,
        )
        options = RunOptions(out=str(out), device=args.device, workers=args.workers, micro_batch=args.micro_batch)
        evaluation = train(request, options).evaluation.to_dict()
        if evaluation["task"] == "segmentation":
            evaluation |= ways_of_testing(data, out, evaluation["weights"])
        record(out, data.stem, shlex.join(["python", "benchmarks/dense.py", "DATA", *shown]), evaluation)
    table()


def first_images(data: Path, count: int, folder: Path) -> Path:
    """A COCO JSON file of the first `count` training images."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{data.stem}_first{count}.json"
    file.write_text(json.dumps(to_coco(open_dense_splits(recognise(data)).train, range(count))))
    return file


def ways_of_testing(data: Path, out: Path, weights: str) -> dict[str, float]:
    """mIoU of a finished segmenter at several scales, and both ways on images that decided nothing."""
    chosen = parse(Recipe, json.loads((out / "recipe.json").read_text()), where="recipe.json")
    model = load_best(build(chosen), out, weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = {"": None} | ({"test_": "test"} if {"val", "test"} <= set(open_parts(recognise(data))) else {})
    found = {}
    for name, part in parts.items():
        for way in ("", "_multi_scale") if part else ("_multi_scale",):
            with torch.inference_mode(), autocast(chosen.precision, "cpu"):
                dataset = open_dense(recognise(data), part=part)
                outcomes = evaluate(model, dataset, chosen, multi_scale=bool(way))
            found[f"{name}miou{way}"] = metrics(outcomes)["miou"]
    return found


def record(out: Path, data: str, command: str, evaluation: dict[str, Any]) -> None:
    """Add one run to the results, in place of an earlier line of the same data, model, command and seed."""
    recipe = json.loads((out / "recipe.json").read_text())
    environment = json.loads((out / "environment.json").read_text())
    timings = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    task = evaluation["task"]
    row = {
        "data": data,
        "task": task,
        "model": recipe["model"]["name"],
        "start": "weights" if "--weights" in command else "random",
        "epochs": recipe["schedule"]["epochs"],
        "px": recipe["input"]["eval_short_px"],
        "batch": recipe["optim"]["batch"],
        "precision": recipe["precision"],
        "seed": recipe["seed"],
        **{name: evaluation[name] for name in (*FIGURES[task], "n", "most", "weights", "step") if name in evaluation},
        "training_minutes": round(sum(t["seconds"] for t in timings) / 60, 1),
        "images_per_s": statistics.median(t["images_per_s"] for t in timings),
        "command": command,
        **{key: environment[key] for key in ("device_name", "cores", "torch", "convnext")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    same = ("data", "model", "command", "seed")
    rows = [other for other in rows if any(other[key] != row[key] for key in same)] + [row]
    RESULTS.write_text("".join(json.dumps(other) + "\n" for other in rows))


def table() -> None:
    """Print every result there is, a table for each task."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for task, names in FIGURES.items():
        own = sorted((row for row in rows if row["task"] == task), key=lambda row: (row["data"], -row[names[0]]))
        if not own:
            continue
        widths = [max(8, len(name)) for name in names]
        headings = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        print(f"{'data':<18} {'model':<8} {'start':<8} {'px':>4} {'epochs':>6} {'seed':>4} {headings}  minutes")
        for row in own:
            cells = [
                f"{'-' if row.get(name) is None else format(row[name], '.3f'):>{width}}"
                for name, width in zip(names, widths, strict=True)
            ]
            print(
                f"{row['data']:<18} {row['model']:<8} {row.get('start', 'random'):<8} "
                f"{row['px']:>4} {row['epochs']:>6g} {row['seed']:>4} "
                f"{' '.join(cells)}  {row['training_minutes']}"
            )


if __name__ == "__main__":
    main()
