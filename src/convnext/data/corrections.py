"""A table of images whose labels were wrong, as people make one of `audit.csv`: they are left out, or get another class.

It has a column of paths, as the audit or `evaluation.json` names them, and may have one called `label`: an image with a class
there gets it, one without is left out. Other columns, such as the audit's `given`, `suggested` and `score`, say nothing.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from convnext.data.formats.table import header_of
from convnext.data.labelled import Dataset, Entry, Splits
from convnext.data.store import printable, require
from convnext.data.written import decoded
from convnext.errors import DataError, nearest, number_of

_PATHS = ("path", "image", "file", "filename", "file_name")


@dataclass(frozen=True)
class Corrections:
    """What a table says: path -> the class that an image is of, or '' to leave it out."""

    name: str
    rows: Mapping[str, str]


def read_corrections(file: str | os.PathLike[str]) -> Corrections:
    """The table at `file`. Raises DataError where it is none, or says two things of an image."""
    path, name = Path(file), printable(os.fspath(file))
    require(path)
    try:
        text, _ = decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"'{name}' cannot be read: {error.strerror}. Name a CSV table, such as audit.csv.") from None
    columns, delimiter, first = header_of(text)
    column = next((columns.index(known) for known in _PATHS if known in columns), -1)
    if column < 0:
        raise DataError(f"'{name}' has no column 'path'.{nearest('path', columns)} Name a table such as audit.csv.")
    label = columns.index("label") if "label" in columns else -1
    rows: dict[str, str] = {}
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[first:]
    for cells in lines:
        if not any(map(str.strip, cells)):
            continue
        image = cells[column].strip() if column < len(cells) else ""
        said = cells[label].strip() if 0 <= label < len(cells) else ""
        if rows.setdefault(image, said) != said:
            raise DataError(f"'{name}' says two things of '{image}': '{rows[image]}' and '{said}'. Keep one row.")
    return Corrections(name, rows)


def corrected(splits: Splits, corrections: Corrections, paths: Iterable[str]) -> Splits:
    """The same parts without the images that are left out, and with the classes that others get.

    `paths`: of all images of the data, also of a test part, which stays as it is; and which images are held out stays. Raises
    DataError for an image or a class that is not among the data.
    """
    known = {printable(entry.path) for part in (splits.train, splits.val) for entry in part.entries}
    apart = set(map(printable, paths)) - known
    missing = [path for path in corrections.rows if path not in known and path not in apart]
    if missing:
        hint = nearest(missing[0], known) if len(known) < 20_000 else ""
        raise DataError(
            f"'{corrections.name}' names {number_of(len(missing), 'image')} that the data do not have, '{missing[0]}' "
            f"first.{hint} Take the paths of an audit of the same DATA, or remove the rows."
        )
    classes = splits.train.classes
    unknown = next((label for label in corrections.rows.values() if label and label not in classes), None)
    if unknown is not None:
        raise DataError(
            f"'{corrections.name}' has the label '{unknown}', which is no class of the data.{nearest(unknown, classes)}"
        )
    if splits.train.several and any(corrections.rows.values()):
        raise DataError(
            f"'{corrections.name}' has labels, and images of several labels can only be left out. Empty them."
        )
    place = {name: number for number, name in enumerate(classes)}
    rows = {path: label for path, label in corrections.rows.items() if path in known}
    left = sum(not label for label in rows.values())
    said = f"By '{corrections.name}' {number_of(left, 'image')} left out and {number_of(len(rows) - left, 'label')} changed"
    others = len(corrections.rows) - len(rows)
    said += f"; {number_of(others, 'row')} of the test part, which stays as it is." if others else "."
    train, val = (_corrected(part, rows, place) for part in (splits.train, splits.val))
    return replace(splits, train=train, val=val, notes=(*splits.notes, said), given=splits.train)


def _corrected(part: Dataset, rows: Mapping[str, str], place: Mapping[str, int]) -> Dataset:
    entries = []
    for entry in part.entries:
        said = rows.get(printable(entry.path))
        if said is None:
            entries.append(entry)
        elif said:
            entries.append(Entry(entry.path, place[said]))
    return replace(part, entries=tuple(entries))
