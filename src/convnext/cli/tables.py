"""The tables of `predict --csv`, for spreadsheets and for programs: every image is in them, also one that was not readable.

A classifier has a row an image, a detector a row an object, a segmenter a row a class of an image.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from convnext.files import cell_text

PLACES = ("x0", "y0", "x1", "y1")  # of a box: its left, top, right and bottom edge, in pixels of the image as it came


def print_table(
    predictions: Iterable[Any], skipped: Mapping[str, str], predictor: Any, top: int | None, usual: int
) -> None:
    """CSV of `predictions`, as they come, then of `skipped` images; `usual`: classes of an image without --top."""
    from convnext.data.store import printable

    task = predictor.recipe.task
    if task == "classification":
        usual = len(predictor.classes) if predictor.several else usual
        head, made = _ranked(predictions, min(top or usual, len(predictor.classes)), predictor)
    elif task == "detection":
        head, made = _objects(predictions, predictor.recipe.head.masks)
    else:
        head, made = _shares(predictions, top)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["path", *head, "error"])
    for path, cells in made:
        rows.writerow(map(cell_text, [printable(path), *cells, *[""] * (len(head) - len(cells) + 1)]))
    for path, reason in skipped.items():
        rows.writerow(map(cell_text, [printable(path), *[""] * len(head), reason]))


Rows = Iterator[tuple[str, list[str]]]  # path, and the cells between path and error; what is missing is empty


def _ranked(predictions: Iterable[Any], ranks: int, predictor: Any) -> tuple[Sequence[str], Rows]:
    """The first `ranks` classes of each image, and what promises and sets add."""
    decision, sure = predictor.decision, predictor.several and predictor.thresholds.promise
    told_of = {"answered": decision.promise, "set": decision.sets, "sure": sure}
    more = [name for name, there in told_of.items() if there]

    def made() -> Rows:
        for prediction in predictions:
            cells = [cell for label, score in prediction.predictions for cell in (label, f"{score:.6f}")]
            cells += [""] * (2 * ranks - len(cells))  # an image may have fewer labels
            told = prediction.to_dict()
            cells += [
                ";".join(told[name]) if name in ("set", "sure") else "yes" if told[name] else "no" for name in more
            ]
            yield prediction.path, cells

    return [*(f"{name}{i + 1}" for i in range(ranks) for name in ("label", "score")), *more], made()


def _objects(predictions: Iterable[Any], masks: bool) -> tuple[Sequence[str], Rows]:
    """Every object with its box, and how many pixels its mask has; an image without any has one row with empty cells."""
    from convnext.data.masks import area

    def made() -> Rows:
        for prediction in predictions:
            outlines = prediction.outlines if masks else (None,) * len(prediction)
            for (label, score), box, outline in zip(prediction.predictions, prediction.boxes, outlines, strict=True):
                pixels = [str(area(outline))] if masks else []
                yield prediction.path, [label, f"{score:.6f}", *(f"{edge:.2f}" for edge in box), *pixels]
            if not len(prediction):
                yield prediction.path, []

    return ["label", "score", *PLACES, *(["mask_px"] if masks else [])], made()


def _shares(predictions: Iterable[Any], top: int | None) -> tuple[Sequence[str], Rows]:
    """The share of the pixels of every class, also of those that an image does not show, unless there is `top`."""

    def made() -> Rows:
        for prediction in predictions:
            shown = dict(prediction.predictions)
            absent = {} if top else {label: 0.0 for label in prediction.classes if label not in shown}
            for label, share in (shown | absent).items():
                yield prediction.path, [label, f"{share:.6f}"]

    return ["label", "share"], made()
