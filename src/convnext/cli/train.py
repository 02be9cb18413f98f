"""`convnext train DATA`."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from convnext.cli.words import changes_of, flags_of, json_flag
from convnext.config import RunOptions, fields_of, override, parse
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes import recipe

HELP = "Train on a folder, CSV or zip of pictures; goes on where an earlier run of the same command stopped."
SHORT = {  # flag -> the recipe field it is short for
    "epochs": "schedule.epochs",
    "batch": "optim.batch",
    "lr": "optim.lr",
    "size": "input.size_px",
    "precision": "precision",
}

MEANING = {
    "epochs": "times that every picture is seen",
    "batch": "pictures per optimizer step, over all devices",
    "lr": "largest learning rate, for that batch",
    "size": "side of the training crop in pixels",
    "precision": "fp32, bf16 or fp16",
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its words. What decides the numbers is a recipe field; the rest is a `RunOptions` field."""
    parser.epilog = (
        "Any recipe field is an option too: --optim.lr 1e-3 --augment.mixup 0 --model.stem overlap. "
        "`runs/<name>/recipe.json` lists them all."
    )
    data = "folder of class folders (or of train/ and val/), CSV, or a zip of one"
    parser.add_argument("data", metavar="DATA", help=data)
    parser.add_argument("--model", default="atto", help="a name from `convnext models`, or timm:NAME (atto)")
    parser.add_argument("--recipe", default="small", help="small, imagenet1k, finetune, ... (small)")
    parser.add_argument("--out", help="folder of the run (runs/<data>_<model>)")
    parser.add_argument("--weights", help="start from this file or run, or hub:OWNER/NAME")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3), help="3 for colour, 1 for grey (3)")
    parser.add_argument("--val-share", type=float, default=0.2, help="held out when the data have no val part (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (0)")
    for flag, field in SHORT.items():
        parser.add_argument(f"--{flag}", help=f"{MEANING[flag]}; short for --{field} (as the recipe has it)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--workers", type=int, help="processes that read pictures (chosen)")
    parser.add_argument("--micro-batch", type=int, help="pictures per forward pass; gradients add up to the batch")
    parser.add_argument("--compile", action="store_true", default=None, help="torch.compile the network")
    parser.add_argument("--cache", choices=("auto", "on", "off"), help="keep decoded pictures in memory (auto)")
    parser.add_argument("--checkpoint-steps", type=int, help="save every so many steps, besides every few minutes")
    parser.add_argument("--checkpoint-minutes", type=float, help="save at least this often (5)")
    parser.add_argument("--strict-pictures", action="store_true", default=None, help="a broken picture ends the run")
    parser.add_argument("--tensorboard", action="store_true", default=None, help="write TensorBoard files as well")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, evaluate what came out, write the report."""
    changes = check(args, rest)
    out = args.out or f"runs/{Path(args.data).resolve().stem}_{args.model.replace(':', '_')}"
    _check_out(out, args.data)
    options = parse(RunOptions, {"out": out, **_picked(args, RunOptions)}, where="options")
    from convnext.tasks.train import Request, train

    request = Request(
        data=args.data,
        recipe=args.recipe,
        model=args.model,
        weights=args.weights,
        channels=args.channels,
        val_share=args.val_share,
        seed=args.seed,
        changes=changes,
    )
    finished, splits = train(request, options)
    if int(os.environ.get("RANK", "0")):
        return 0
    _conclude(options, finished, splits, as_json=args.json)
    return 0


def check(args: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """The recipe fields that the words change; unknown ones and bad values are refused before torch or data are read."""
    changes: dict[str, Any] = {
        field: text for flag, field in SHORT.items() if (text := getattr(args, flag)) is not None
    }
    changes |= changes_of(rest)
    probe = recipe(args.recipe, args.model, images=1000, picture_px=224, classes=2, in_channels=args.channels)
    if probe.task != "classification":
        raise ConvNeXtError(
            f"Recipe '{args.recipe}' is for {probe.task}; class folders want small, finetune or imagenet1k."
        )
    for name, value in changes.items():
        if name not in fields_of(probe):
            hint = nearest(name, [*fields_of(probe), *flags_of(args)])
            raise ConvNeXtError(f"No option or recipe field is called '--{name}'.{hint}")
        if value is None:
            raise ConvNeXtError(f"--{name} needs a value.")
    override(probe, {"schedule.warmup_epochs": 0, **changes} if "schedule.epochs" in changes else changes)
    return changes


def _check_out(out: str, data: str) -> None:
    """A run among the pictures would be taken for pictures the next time."""
    place, pictures = Path(out).resolve(), Path(data).resolve()
    if place == Path.cwd() or pictures in (place, *place.parents):
        raise ConvNeXtError(
            f"--out {out} is {'the current folder' if place == Path.cwd() else 'among the pictures'}. "
            "Name a folder for this run alone, e.g. --out runs/first."
        )


def _picked(args: argparse.Namespace, kind: type[RunOptions]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in kind.model_fields if getattr(args, name, None) is not None}


def _conclude(options: RunOptions, finished: Any, splits: Any, *, as_json: bool) -> None:
    """Evaluate the best weights, write evaluation.json and report.html, and print the result."""
    from convnext.deploy.predictor import load
    from convnext.engine.checkpoint import write_text
    from convnext.engine.records import say
    from convnext.reports.run import write_report
    from convnext.tasks.evaluation import report

    out = options.out
    predictor = load(out, device=options.device)
    outcomes = predictor.evaluate(splits.val, workers=options.workers)
    result = report(outcomes, predictor.classes, [entry.path for entry in splits.val.entries])
    result["weights"] = finished.weights
    write_text(Path(out) / "evaluation.json", json.dumps(result) + "\n")
    page = write_report(Path(out), read=splits.val.store.read)
    if as_json:
        keys = ("top1", "top5", "loss", "ece", "n", "weights")
        print(json.dumps({"run": out, "report": str(page), "step": finished.step, **{k: result[k] for k in keys}}))
    else:
        print(f"top-1 {result['top1']:.2%}  top-5 {result['top5']:.2%} on {result['n']:,} held-out pictures: {out}")
        say(f"The report: {page}")
