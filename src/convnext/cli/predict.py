"""`convnext predict RUN PATH...`."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from convnext.cli import dense
from convnext.cli.options import (
    BATCH,
    CLASSES,
    DENSE,
    count,
    predictor_flags,
    refuse_more,
    refuse_of_other_tasks,
    share,
)
from convnext.errors import ConvNeXtError, on_one_line

HELP = (
    "Name what is on images, by the run's task: classes, objects with boxes and masks, or the class of every pixel. "
    "One line per image as text, JSON or CSV; with --out also drawn images and masks."
)
TOP = 5  # classes of an image that a classifier names
TASK_FLAGS = {  # flag -> the tasks that know it
    "csv": CLASSES,
    "batch": CLASSES,
    "out": DENSE,
    "score": ("detection",),
    "multi_scale": ("segmentation",),
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "--json: one line per image; for a detector one list in COCO's result format, with file_name and category "
        "added, and masks as compressed run lengths."
    )
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, globs or zips")
    parser.add_argument("--top", type=count, help=f"classes or objects per image ({TOP} for a classifier, else all)")
    parser.add_argument("--csv", action="store_true", help="classification: CSV on stdout")
    parser.add_argument("--score", type=share, help="detection: lowest score shown (0.5)")
    parser.add_argument(
        "--multi-scale", action="store_true", help="segmentation: predict at several scales, with flips"
    )
    out = "new folder for drawn images (detection), or for index masks and overlays (segmentation)"
    parser.add_argument("--out", metavar="DIR", help=out)
    predictor_flags(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Predict and print, an image as soon as it is known."""
    refuse_more(args, rest)
    if args.json and args.csv:
        raise ConvNeXtError("--json and --csv are two forms of one answer. Give one of them.")
    from convnext.data.opening import open_unlabelled
    from convnext.deploy.exported import is_exported

    predictor = _predictor(args, is_exported(args.run))
    task = predictor.recipe.task
    refuse_of_other_tasks(args, TASK_FLAGS, task, f"'{args.run}' is")
    images = open_unlabelled(args.paths)
    (_classify if task == "classification" else _dense)(args, predictor, images)
    return 0


def _predictor(args: argparse.Namespace, exported: bool) -> Any:
    """What answers for the run; exported files need no torch."""
    if exported:
        from convnext.deploy.exported_predictor import open_predictor

        return open_predictor(args.run)
    from convnext.deploy.load import load

    return load(args.run, weights=args.weights, device=args.device)


def _dense(args: argparse.Namespace, predictor: Any, images: Any) -> None:
    """Objects, or classes of pixels."""
    detects = predictor.recipe.task == "detection"
    skipped: dict[str, str] = {}
    opening, done = "[", 0  # of a detector's list
    for answer in (dense.detect if detects else dense.segment)(args, predictor, images, skipped):
        done += 1
        if not args.json:
            print(on_one_line(f"{answer.path}: {answer.text}"), flush=True)
        for row in answer.rows if args.json else ():
            print(f"{opening if detects else ''}{json.dumps(row)}", flush=True)
            opening = ","
    for path, reason in skipped.items():
        if not args.json:
            print(on_one_line(f"{path}: not readable ({reason})"))
        elif not detects:  # COCO's list has no place for it
            print(json.dumps({"path": path, "shares": [], "error": reason}))
    if args.json and detects and done:
        print("]" if opening == "," else "[]")
    _conclude(skipped, done, len(images.entries))


def _classify(args: argparse.Namespace, predictor: Any, images: Any) -> None:
    """Classes of images."""
    from convnext.data.store import printable

    skipped: dict[str, str] = {}
    write = _writer(args, len(predictor.classes))
    done = 0
    top, batch = args.top or TOP, args.batch or BATCH
    for prediction in predictor.predict(images, top=top, batch=batch, workers=args.workers, skipped=skipped):
        write(printable(prediction.path), prediction.predictions, "")
        done += 1
    for path, reason in skipped.items():
        write(printable(path), (), reason)
    _conclude(skipped, done, len(images.entries))


def _conclude(skipped: dict[str, str], done: int, total: int) -> None:
    """Name what could not be read. Raises ConvNeXtError where that is everything."""
    from convnext.data.store import printable
    from convnext.engine.records import warn

    for path, reason in skipped.items():
        warn(f"Skipped '{printable(path)}': {reason}")
    if not done:
        raise ConvNeXtError(f"None of the {total} images could be read.")


def _writer(args: argparse.Namespace, classes: int) -> Callable[[str, Sequence[tuple[str, float]], str], None]:
    """How one image's answer is printed."""
    if args.csv:
        ranks = min(args.top or TOP, classes)
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
    return on_one_line(f"{path}: " + (", ".join(f"{k} {p:.1%}" for k, p in pairs) or f"not readable ({error})"))
