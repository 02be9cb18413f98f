"""`convnext predict RUN PATH...`."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from convnext.cli.options import (
    CLASSES,
    count,
    predictor_flags,
    refuse_more,
    refuse_of_other_tasks,
    share,
)
from convnext.cli.printing import show, show_json
from convnext.cli.tables import print_table
from convnext.errors import ConvNeXtError, number_of
from convnext.files import to_json

HELP = (
    "Name what is on images, by the run's task: classes, objects with boxes and masks, or the class of every pixel. "
    "One line per image as text, JSON or CSV; with --out also drawn images and masks."
)
TOP = 5  # classes of an image that a classifier names
LISTS = {"classification": "predictions", "detection": "predictions", "segmentation": "shares"}  # of `to_dict`
Answers = Iterator[tuple[Any, dict[str, Any]]]  # predictions, and what the JSON adds to each
Writing = tuple[Callable[[Any], dict[str, Any]], Callable[[], None]]
TASK_FLAGS = {  # flag -> the tasks that know it
    "batch": CLASSES,
    "threshold": CLASSES,
    "score": ("detection",),
    "multi_scale": ("segmentation",),
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "--json: one line per image; for a detector one list in COCO's result format, with file_name and category "
        "added, and masks as compressed run lengths."
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint or a file of `convnext export`")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, globs, zips or tables")
    parser.add_argument("--top", type=count, help=f"classes or objects per image ({TOP} for a classifier, else all)")
    parser.add_argument("--csv", action="store_true", help="CSV on stdout: a row an image, an object, or a class")
    text = (
        "several labels an image: lowest score of a class that is named (its own threshold, chosen on held-out images)"
    )
    parser.add_argument("--threshold", type=share, help=text)
    parser.add_argument("--score", type=share, help="detection: lowest score shown (0.5)")
    parser.add_argument(
        "--multi-scale", action="store_true", help="segmentation: predict at several scales, with flips"
    )
    out = "new folder for drawn images, with classes or objects on them; of a segmenter for index masks and overlays"
    parser.add_argument("--out", metavar="DIR", help=out)
    predictor_flags(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Predict and print, an image as soon as it is known."""
    refuse_more(args, rest)
    if args.json and args.csv:
        raise ConvNeXtError("--json and --csv are two forms of one answer. Give one of them.")
    from convnext.data.band_store import with_bands
    from convnext.data.unlabelled import open_unlabelled
    from convnext.deploy.load import load

    predictor: Any = load(args.run, weights=args.weights, device=args.device)
    task = predictor.recipe.task
    refuse_of_other_tasks(args, TASK_FLAGS, task, f"'{args.run}' is")
    images = open_unlabelled(args.paths)
    if args.bands:
        predictor = predictor.with_bands(args.bands)
    images = with_bands(images, predictor.recipe.input.bands)
    write, end = _nowhere() if args.out is None else _folder(args, task, predictor.classes, images)
    skipped: dict[str, str] = {}
    frames: dict[str, int] = {}
    asked = {name: getattr(args, name) for name in ("score", "multi_scale", "batch", "threshold")}
    how = {name: value for name, value in asked.items() if value is not None and value is not False}
    found = predictor.predict(images, top=args.top, workers=args.workers, skipped=skipped, **how)
    answers = ((prediction, write(prediction)) for prediction in _noted(found, frames))
    if args.csv:
        print_table((prediction for prediction, _ in answers), skipped, predictor, args.top, TOP)
    elif not args.json:
        _print_text(answers, skipped)
    elif task == "detection":
        _print_list(answers)
    else:
        _print_objects(answers, skipped, LISTS[task])
    end()
    _tell_frames(frames)
    _conclude(skipped, len(images.entries), named=not (args.json and task == "detection"))
    return 0


def _noted(found: Iterator[Any], frames: dict[str, int]) -> Iterator[Any]:
    """The same predictions; printable path -> frames, of files that hold more than one, goes into `frames`."""
    from convnext.data.store import printable

    for prediction in found:
        if prediction.frames > 1:
            frames[printable(prediction.path)] = prediction.frames
        yield prediction


def _tell_frames(frames: Mapping[str, int]) -> None:
    """That only the first frame of some files was asked about."""
    from convnext.data.scan import frames_line
    from convnext.engine.records import warn

    if frames:
        warn(f"{frames_line(frames)} Save the others as images of their own to predict them too.")


def _nowhere() -> Writing:
    return lambda prediction: {}, lambda: None


def _folder(args: argparse.Namespace, task: str, classes: Sequence[str], images: Any) -> Writing:
    """What writes the files of a prediction into --out, and says what the JSON adds about them; and what ends it."""
    from convnext.data.sample import IGNORE
    from convnext.deploy.output import Folder

    paths = [entry.path for entry in images.entries]
    if task != "segmentation":
        drawings = Folder.planned(args.out, args.paths, paths, [".jpg"])

        def draw(prediction: Any) -> dict[str, Any]:
            drawings.draw(prediction.image_id - 1, ".jpg", prediction.draw())
            return {}

        return draw, drawings.end
    masks = Folder.planned(args.out, args.paths, paths, [".png", "_overlay.jpg"], "classes.json")
    names = to_json({"classes": list(classes), "ignore_index": IGNORE}).encode()

    def write(prediction: Any) -> dict[str, Any]:
        place = prediction.image_id - 1
        file = masks.draw(place, ".png", prediction.mask_image())
        masks.draw(place, "_overlay.jpg", prediction.draw())
        masks.write_once("classes.json", names)
        return {"mask": file}

    return write, masks.end


def _print_text(answers: Answers, skipped: Mapping[str, str]) -> None:
    """A line an image."""
    for prediction, _ in answers:
        _print_line(prediction.path, prediction.text())
    for path, reason in skipped.items():
        _print_line(path, f"not readable ({reason})")


def _print_objects(answers: Answers, skipped: Mapping[str, str], name: str) -> None:
    """A JSON object an image; `name`: of the list in it, which is empty for images that could not be read."""
    from convnext.data.store import printable

    for prediction, more in answers:
        show_json(prediction.to_dict() | more)
    for path, reason in skipped.items():
        show_json({"path": printable(path), name: [], "error": reason})


def _print_list(answers: Answers) -> None:
    """One JSON list of COCO's rows, which has no place for images that could not be read; nothing where none could."""
    before = ""
    for prediction, _ in answers:
        before = before or "["
        for row in prediction.to_dict()[LISTS["detection"]]:
            show(f"{before}{to_json(row)}")
            before = ","
    if before:
        show("]" if before == "," else "[]")


def _print_line(path: str, text: str) -> None:
    from convnext.data.store import printable

    show([f"{printable(path)}: {text}"])


def _conclude(skipped: Mapping[str, str], total: int, *, named: bool) -> None:
    """How many images could not be read, and which, unless the results have `named` them.

    Raises ConvNeXtError where that is everything.
    """
    from convnext.data.store import printable
    from convnext.engine.records import warn

    for path, reason in {} if named else skipped.items():
        warn(f"Skipped '{printable(path)}': {reason}")
    if named and 0 < len(skipped) < total:
        warn(f"{number_of(len(skipped), 'image')} of {total:,} could not be read; the results say why.")
    if len(skipped) == total:
        path, reason = next(iter(skipped.items()))
        raise ConvNeXtError(f"None of the {total} images could be read; the first is '{printable(path)}': {reason}.")
