"""`convnext roadmap`."""

import argparse
from pathlib import Path
from typing import Any

from convnext.cli.options import changes_of, count, json_flag, refuse_more
from convnext.cli.printing import show
from convnext.config import RunOptions, parse
from convnext.errors import ConvNeXtError
from convnext.files import to_json

HELP = (
    "The steps from ResNet to ConvNeXt: what each changes, costs and gained; with --train, what it gains on your data."
)
TRAINING = ("steps", "width_factor", "epochs", "seeds", "out", "channels", "val_share", "device", "workers")


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = "With --train any field of input, augment and optim is an option too: --optim.lr 1e-3."
    parser.add_argument("--regime", choices=("t", "b"), default="t", help="ResNet-50 to T, or ResNet-200 to B (t)")
    parser.add_argument("--train", metavar="DATA", help="train every step on these images and draw the chart")
    parser.add_argument("--steps", help="steps to train, e.g. patchify,kernel_7 (all)")
    parser.add_argument("--width-factor", type=float, help="factor on the channels of every step (1)")
    parser.add_argument("--epochs", type=float, help="epochs of every step (as in recipe 'small')")
    parser.add_argument("--seeds", type=count, help="runs per step, for error bars (1)")
    parser.add_argument("--out", help="folder for the runs and the chart (runs/roadmap_<data>)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="3 for colour, 1 for grey (3)")
    parser.add_argument("--val-share", type=float, help="share to hold out when the data have no val part (0.2)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--workers", type=int, help="processes that read images (chosen automatically)")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the table, or train and print what came out."""
    if args.train:
        return _train(args, changes_of(rest))
    refuse_more(args, rest)
    extra = next((name for name in TRAINING if getattr(args, name) is not None), None)
    if extra:
        raise ConvNeXtError(f"--{extra.replace('_', '-')} is for training: add --train DATA.")
    from convnext.recipes.roadmap import rows
    from convnext.studies.roadmap.text import roadmap_text

    show(to_json(rows(args.regime)) if args.json else roadmap_text(args.regime))
    return 0


def _train(args: argparse.Namespace, changes: dict[str, Any]) -> int:
    missing = next((name for name, value in changes.items() if value is None), None)
    if missing:
        raise ConvNeXtError(f"--{missing} needs a value.")
    out = Path(args.out or f"runs/roadmap_{Path(args.train).resolve().stem}")
    given: dict[str, Any] = {name: getattr(args, name) for name in TRAINING if getattr(args, name) is not None}
    chosen: dict[str, Any] = {name: given.pop(name) for name in ("device", "workers") if name in given}
    options = parse(RunOptions, {**chosen, "out": str(out)}, where="options")
    from convnext.engine.records import info
    from convnext.studies.roadmap.page import results_text, write_roadmap
    from convnext.studies.roadmap.training import Plan, train_roadmap

    given.pop("out", None)
    if "steps" in given:
        given["steps"] = tuple(name.strip() for name in given["steps"].split(","))
    plan = Plan(data=args.train, regime=args.regime, changes=changes, **given)
    results = train_roadmap(plan, options, after=lambda _: write_roadmap(out))
    if results is not None:  # one of several processes speaks
        chart, page = write_roadmap(out)
        info(f"The chart: {chart}, the page: {page}")
        show(to_json(results) if args.json else results_text(results))
    return 0
