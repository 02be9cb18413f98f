"""`convnext predict RUN PATH...`."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from convnext.cli.words import count, predictor_flags, refuse_more
from convnext.errors import ConvNeXtError

HELP = "Name what is on pictures: text, JSON lines or CSV, one line a picture, broken pictures included."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its words."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="pictures, folders, globs or zips")
    parser.add_argument("--top", type=count, default=5, help="classes a picture (5)")
    parser.add_argument("--csv", action="store_true", help="CSV on stdout")
    predictor_flags(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Predict and print, a line a picture as soon as it is known."""
    refuse_more(args, rest)
    if args.json and args.csv:
        raise ConvNeXtError("--json and --csv are two forms of one answer. Give one of them.")
    from convnext.data.source import open_unlabelled
    from convnext.data.store import printable
    from convnext.deploy.predictor import load
    from convnext.engine.records import say

    predictor = load(args.run, weights=args.weights, device=args.device)
    dataset = open_unlabelled(args.paths)
    skipped: dict[str, str] = {}
    write = _writer(args, len(predictor.classes))
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


def _writer(args: argparse.Namespace, classes: int) -> Callable[[str, Sequence[tuple[str, float]], str], None]:
    """How one picture's answer is printed."""
    if args.csv:
        ranks = min(args.top, classes)
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["path", *(f"{name}{i + 1}" for i in range(ranks) for name in ("label", "score")), "error"])
        return lambda path, pairs, error: rows.writerow(_cells(path, pairs, error, ranks))
    return lambda path, pairs, error: print((_object if args.json else _line)(path, pairs, error), flush=True)


def _cells(path: str, pairs: Sequence[tuple[str, float]], error: str, ranks: int) -> list[str]:
    cells = [cell for label, score in pairs for cell in (label, f"{score:.6f}")]
    return [path, *cells, *[""] * (2 * ranks - len(cells)), error]


def _object(path: str, pairs: Sequence[tuple[str, float]], error: str) -> str:
    row: dict[str, Any] = {"path": path, "predictions": [{"label": label, "score": score} for label, score in pairs]}
    return json.dumps(row | ({"error": error} if error else {}))


def _line(path: str, pairs: Sequence[tuple[str, float]], error: str) -> str:
    line = f"{path}: " + (", ".join(f"{k} {p:.1%}" for k, p in pairs) or f"not readable ({error})")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)  # a name may hold a new line
