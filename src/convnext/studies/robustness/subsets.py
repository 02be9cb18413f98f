"""Test sets of ImageNet that carry their own labels: part of the classes (ImageNet-A, -R), all of them by name (Sketch)
or by number (V2), or several right answers for an image (ReaL).

No list of classes is stored here: which classes count follows from the folders that are there.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnext.data.labelled import Dataset, Entry
from convnext.data.opening import open_labelled
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.data.unlabelled import open_unlabelled
from convnext.data.written import matched
from convnext.errors import DataError, nearest, number_of
from convnext.tasks.classification.metrics import Outcomes

_IMAGENET = 1000
_WNID = re.compile(r"n\d{8}")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class Subset:
    """Labelled images of some of a model's classes."""

    dataset: Dataset  # labels index the model's classes
    only: tuple[int, ...]  # classes that may be answered; empty when all may


def open_subset(data: Source, classes: Sequence[str], *, part: str | None = None) -> Subset:
    """Images whose classes are some of `classes`; answers are then limited to these, as for ImageNet-A and -R
    (arXiv 1907.07174, 2006.16241). Of several labels an image all other classes are unknown.

    `part` is that of `open_labelled`. Folders named by numbers are positions in ImageNet's order (as ImageNet-V2 has them).
    Raises DataError for a folder that is no class of the model.
    """
    found = open_labelled(data, split=part)
    places = _places(matched(found.classes, classes), classes, data.name)
    only = tuple(sorted(places))
    return Subset(found.relabelled(tuple(classes), places), only if len(only) < len(classes) else ())


def _places(folders: Sequence[str], classes: Sequence[str], name: str) -> list[int]:
    index = {known: number for number, known in enumerate(classes)}
    unknown = [folder for folder in folders if folder not in index]
    if not unknown:
        return [index[folder] for folder in folders]
    order = imagenet_order(classes)
    if all(folder.isdecimal() and int(folder) < len(order) for folder in folders):
        return [order[int(folder)] for folder in folders]
    raise DataError(
        f"'{name}' has class '{printable(unknown[0])}', which the model does not know.{nearest(unknown[0], classes)} "
        f"It knows {number_of(len(classes), 'class', 'classes')}; folders carry their names, or their numbers in "
        "ImageNet's order."
    )


def imagenet_order(classes: Sequence[str]) -> list[int]:
    """Position in the model of each class in ImageNet's order: sorted WordNet ids, or the model's own order where its
    classes have other names."""
    if all(_WNID.fullmatch(name) for name in classes):
        return sorted(range(len(classes)), key=classes.__getitem__)
    return list(range(len(classes)))


@dataclass(frozen=True)
class RealLabels:
    """Validation images with all the answers that people accepted: Beyer et al. 2020, arXiv 2006.07159."""

    dataset: Dataset  # only images that have an answer; the label is one of them
    answers: tuple[frozenset[int], ...]  # of each entry, as positions in the model's classes
    left_out: int  # images without any accepted answer: ReaL does not count them


def open_real(data: str | Path, labels: str | Path, classes: Sequence[str]) -> RealLabels:
    """The ImageNet validation images below `data` with the answers of `labels`, the published `real.json`.

    Images are told by their names, ILSVRC2012_val_XXXXXXXX; folders do not matter. Raises DataError.
    """
    if len(classes) != _IMAGENET:
        raise DataError(f"ReaL labels are for the {_IMAGENET} ImageNet classes; this model knows {len(classes)}.")
    rows = _read_answers(Path(labels))
    order = imagenet_order(classes)
    found = open_unlabelled([str(data)])
    entries, answers, left_out = [], [], 0
    for entry in found.entries:
        number = _VALIDATION.search(entry.path)
        if number is None or not 1 <= int(number[1]) <= len(rows):
            raise DataError(
                f"'{printable(entry.path)}' is no image of the ImageNet validation set: ReaL needs names "
                f"ILSVRC2012_val_00000001 to {len(rows):08d}."
            )
        right = frozenset(order[k] for k in rows[int(number[1]) - 1])
        if right:
            entries.append(Entry(entry.path, min(right)))
            answers.append(right)
        else:
            left_out += 1
    if not entries:
        raise DataError(f"None of the {left_out} images of '{printable(str(data))}' has a ReaL label.")
    return RealLabels(Dataset(tuple(classes), tuple(entries), found.store), tuple(answers), left_out)


def real_accuracy(outcomes: Outcomes, labels: RealLabels) -> float:
    """The share of images whose first answer is among the accepted ones."""
    pairs = zip(outcomes.index.tolist(), outcomes.predicted.tolist(), strict=True)
    return float(np.mean([predicted in labels.answers[index] for index, predicted in pairs]))


def _read_answers(path: Path) -> list[list[int]]:
    """One list of class numbers for each validation image, in order."""
    try:
        rows = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}. Name ReaL's real.json.") from None
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON ({error}). Name ReaL's real.json.") from None
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and all(isinstance(k, int) and 0 <= k < _IMAGENET for k in row) for row in rows
    ):
        raise DataError(f"'{path}' is no ReaL file: it should be a list with a list of class numbers for each image.")
    return rows
