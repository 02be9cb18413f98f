"""`convnext`: one function a verb. Results go to stdout, everything else to stderr.

Exit status: 0 done, 2 the user's mistake (one line), 1 ours, 130 stopped. torch loads inside the verbs, so that `--help`
answers at once.
"""

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from convnext import __version__
from convnext.config import RunOptions, override, parse
from convnext.errors import ConvNeXtError, nearest

SHORT = {  # flag -> the recipe field it is short for
    "epochs": "schedule.epochs",
    "batch": "optim.batch",
    "lr": "optim.lr",
    "size": "input.size_px",
    "precision": "precision",
}


def train(args: argparse.Namespace, rest: list[str]) -> int:
    """Train on a folder, CSV or zip of pictures; goes on where an earlier run of the same command stopped."""
    changes = {field: value for flag, field in SHORT.items() if (value := getattr(args, flag)) is not None}
    changes |= _changes(rest)
    _check_fields(args, changes)
    out = args.out or f"runs/{Path(args.data).resolve().stem}_{args.model.replace(':', '_')}"
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
    return _conclude(options, finished, splits, as_json=args.json)


def evaluate(args: argparse.Namespace) -> int:
    """Score a run on labelled pictures: top-1, top-5, calibration, per class, confusion."""
    from convnext.data.source import open_labelled
    from convnext.data.store import printable
    from convnext.deploy.predictor import load
    from convnext.reports.terminal import evaluation_text
    from convnext.tasks.evaluation import report

    predictor = load(args.run, weights=args.weights, device=args.device)
    dataset = open_labelled(args.data, classes=predictor.classes)
    skipped: dict[str, str] = {}
    outcomes = predictor.evaluate(dataset, workers=args.workers, batch=args.batch, skipped=skipped)
    result = report(outcomes, predictor.classes, [printable(entry.path) for entry in dataset.entries])
    result |= {"skipped": skipped, "weights": predictor.metadata.get("weights", "raw")}
    print(json.dumps(result) if args.json else evaluation_text(result))
    return 0


def predict(args: argparse.Namespace) -> int:
    """Name what is on pictures: text, JSON lines or CSV, one line a picture, broken pictures included."""
    from convnext.data.source import open_unlabelled
    from convnext.data.store import printable
    from convnext.deploy.predictor import load
    from convnext.engine.records import say

    predictor = load(args.run, weights=args.weights, device=args.device)
    dataset = open_unlabelled(args.paths)
    skipped: dict[str, str] = {}
    write = _writer(args, list(predictor.classes))
    done = 0
    for prediction in predictor.predict(dataset, top=args.top, batch=args.batch, workers=args.workers, skipped=skipped):
        write(printable(prediction.path), prediction.predictions, "")
        done += 1
    for path, reason in skipped.items():
        write(printable(path), (), reason)
        say(f"Skipped '{printable(path)}': {reason}")
    if not done:
        raise ConvNeXtError(f"None of the {len(dataset.entries)} pictures could be read.")
    return 0


def models(args: argparse.Namespace) -> int:
    """List every network with its parameters and multiply-accumulates at 224 px, 1000 classes."""
    from convnext.models.catalogue import catalogue
    from convnext.reports.terminal import table

    rows = catalogue()
    if args.json:
        print(json.dumps(rows))
        return 0
    cells = [[r["name"], f"{r['params'] / 1e6:.1f}", f"{r['macs'] / 1e9:.2f}", str(r["input_size"])] for r in rows]
    print(table(["model", "params (M)", "GMACs", "px"], cells))
    return 0


def demo(args: argparse.Namespace) -> int:
    """Train, evaluate and predict on scanned digits that come with scikit-learn: two minutes, no download."""
    from convnext.data.digits import write_digits

    folder = Path(args.out) / "pictures"
    write_digits(folder)
    words = ["train", str(folder), "--model", "atto", "--recipe", "small", "--epochs", "20", "--out", args.out]
    code = main([*words, "--augment.hflip", "0"])  # a digit in the mirror is another one, or none
    if code:
        return code
    sys.stderr.write("\nA few pictures that it has not seen:\n")
    some = [str(sorted((folder / "val" / str(digit)).iterdir())[0]) for digit in range(0, 10, 2)]
    return main(["predict", args.out, *some, "--top", "2"])


def doctor(args: argparse.Namespace) -> int:
    """Say what this machine and installation offer, and what is missing."""
    from convnext.engine.distributed import choose_device
    from convnext.engine.environment import compiler, environment, extras

    facts = environment(choose_device(args.device))
    found = extras()
    if args.json:
        print(json.dumps({**facts, "compiler": compiler(), "extras": {k: ok for k, (ok, _) in found.items()}}))
        return 0
    for name, value in facts.items():
        print(f"{name:<14} {value}")
    print(f"{'compiler':<14} {compiler() or 'none found: --compile will not work on the CPU'}")
    for name, (ok, text) in found.items():
        print(f"{name:<14} {'installed' if ok else 'missing'}: {text}")
    return 0


def _conclude(options: RunOptions, finished: Any, splits: Any, *, as_json: bool) -> int:
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
    return 0


def _writer(args: argparse.Namespace, classes: list[str]) -> Callable[[str, Any, str], None]:
    """How one picture's answer is printed."""
    if args.json:

        def line(path: str, predictions: Any, error: str) -> None:
            row: dict[str, Any] = {"path": path, "predictions": [{"label": k, "score": p} for k, p in predictions]}
            print(json.dumps(row | ({"error": error} if error else {})), flush=True)

        return line
    if args.csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        ranks = range(1, min(args.top, len(classes)) + 1)
        rows.writerow(["path", *(name for i in ranks for name in (f"label{i}", f"score{i}")), "error"])
        return lambda path, predictions, error: rows.writerow(
            [
                path,
                *(v for k, p in predictions for v in (k, f"{p:.6f}")),
                *[""] * (2 * (len(ranks) - len(predictions))),
                error,
            ]
        )
    return lambda path, predictions, error: print(
        f"{path}: " + (", ".join(f"{k} {p:.1%}" for k, p in predictions) or f"not readable ({error})"), flush=True
    )


def _fields_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Dotted options with their values, and all other words: argparse would take such a value for a path."""
    fields, others, left = [], [], list(words)
    while left:
        word = left.pop(0)
        if not re.match(r"--\w+\.", word):
            others.append(word)
            continue
        fields.append(word)
        if "=" not in word and left and not left[0].startswith("--"):
            fields.append(left.pop(0))
    return fields, others


def _changes(rest: Sequence[str]) -> dict[str, str | None]:
    """['--optim.lr', '1e-3', '--seed=1'] -> {'optim.lr': '1e-3', 'seed': '1'}; None where a value is missing."""
    changes: dict[str, str | None] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConvNeXtError(f"'{word}' is not understood here. Paths come first, options start with --.")
        name, equals, value = word.removeprefix("--").partition("=")
        missing = not equals and (not words or words[0].startswith("--"))
        changes[name.replace("-", "_")] = None if missing else value if equals else words.pop(0)
    return changes


def _check_fields(args: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Refuse unknown fields and values before any data are read or torch is loaded."""
    from convnext.config import fields_of
    from convnext.recipes import recipe

    probe = recipe(args.recipe, args.model, images=1000, picture_px=224, classes=2, in_channels=args.channels)
    flags = {name.replace("_", "-") for name in vars(args)} - {"verb", "function"}
    for name, value in changes.items():
        if name not in fields_of(probe):
            raise ConvNeXtError(
                f"No option or recipe field is called '--{name}'.{nearest(name, [*fields_of(probe), *flags])}"
            )
        if value is None:
            raise ConvNeXtError(f"--{name} needs a value.")
    override(probe, {"schedule.warmup_epochs": 0, **changes} if "schedule.epochs" in changes else changes)


def _picked(args: argparse.Namespace, kind: type[RunOptions]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in kind.model_fields if getattr(args, name, None) is not None}


def _count(text: str) -> int:
    """A whole number of things, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '?([^' ]+)'? \(choose from (.*)\)", message)
        hint = nearest(choice[1], re.findall(r"[\w.-]+", choice[2])) if choice else ""
        raise ConvNeXtError(f"{message[0].upper()}{message[1:]}.{hint} `{self.prog} --help` shows the form.")


def _parser() -> _Parser:
    parser = _Parser(prog="convnext", description="Train, evaluate and use ConvNeXt on your own pictures.")
    parser.add_argument("--version", action="version", version=f"convnext {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(function: Callable[..., int]) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").strip()
        added = verbs.add_parser(function.__name__, help=text, description=text, allow_abbrev=False)
        added.set_defaults(function=function)
        return added

    _train_flags(verb(train))
    for function in (evaluate, predict):
        sub = verb(function)
        sub.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
        if function is evaluate:
            sub.add_argument("data", metavar="DATA", help="pictures in class folders, a CSV, or a zip of either")
        else:
            sub.add_argument("paths", metavar="PATH", nargs="+", help="pictures, folders, globs or zips")
            sub.add_argument("--top", type=_count, default=5, help="classes a picture (5)")
            sub.add_argument("--csv", action="store_true", help="CSV on stdout")
        sub.add_argument("--weights", default="best", help="best, raw, ema or last (best)")
        sub.add_argument("--batch", type=_count, default=32, help="pictures per forward pass (32)")
        sub.add_argument("--workers", type=int, default=-1, help="processes that read pictures (chosen)")
    verb(models)
    verb(demo).add_argument("--out", default="runs/demo", help="folder of the run (runs/demo)")
    verb(doctor)
    for name in ("evaluate", "predict", "doctor"):
        verbs.choices[name].add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    for name in ("train", "evaluate", "predict", "models", "doctor"):
        verbs.choices[name].add_argument("--json", action="store_true", help="the result as JSON on stdout")
    return parser


def _train_flags(sub: argparse.ArgumentParser) -> None:
    sub.epilog = (
        "Any recipe field is an option too: --optim.lr 1e-3 --augment.mixup 0 --model.stem overlap. "
        "`runs/<name>/recipe.json` lists them all."
    )
    sub.add_argument(
        "data", metavar="DATA", help="folder of class folders (or of train/ and val/), CSV, or a zip of one"
    )
    sub.add_argument("--model", default="atto", help="a name from `convnext models`, or timm:NAME (atto)")
    sub.add_argument("--recipe", default="small", help="small, imagenet1k, finetune, ... (small)")
    sub.add_argument("--out", help="folder of the run (runs/<data>_<model>)")
    sub.add_argument("--weights", help="start from this file, or hub:OWNER/NAME")
    sub.add_argument("--channels", type=int, default=3, choices=(1, 3), help="3 for colour, 1 for grey (3)")
    sub.add_argument("--val-share", type=float, default=0.2, help="held out when the data have no val part (0.2)")
    sub.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (0)")
    for flag, field in SHORT.items():
        sub.add_argument(f"--{flag}", help=f"short for --{field}")
    sub.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    sub.add_argument("--workers", type=int, help="processes that read pictures (chosen)")
    sub.add_argument("--micro-batch", type=int, help="pictures per forward pass; gradients add up to the batch")
    sub.add_argument("--compile", action="store_true", default=None, help="torch.compile the network")
    sub.add_argument("--cache", choices=("auto", "on", "off"), help="keep decoded pictures in memory (auto)")
    sub.add_argument("--checkpoint-steps", type=int, help="save every so many steps, besides every few minutes")
    sub.add_argument("--checkpoint-minutes", type=float, help="save at least this often (5)")
    sub.add_argument("--strict-pictures", action="store_true", default=None, help="a broken picture ends the run")
    sub.add_argument("--tensorboard", action="store_true", default=None, help="write TensorBoard files as well")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show end no command
        fields, others = _fields_apart(sys.argv[1:] if words is None else words)
        args, rest = _parser().parse_known_args(others)
        rest = fields + rest
        if args.verb == "train":
            return train(args, rest)
        if rest:
            known = [name.replace("_", "-") for name in vars(args) if name not in ("verb", "function")]
            raise ConvNeXtError(
                f"`convnext {args.verb}` does not know '{rest[0]}'.{nearest(rest[0].strip('-'), known)}"
            )
        return int(args.function(args))
    except ConvNeXtError as error:
        interrupted = type(error).__name__ == "Interrupted"
        sys.stderr.write(f"convnext: {error}\n".encode("utf-8", "backslashreplace").decode())
        return 130 if interrupted else 2
    except KeyboardInterrupt:
        sys.stderr.write("convnext: stopped.\n")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
