"""A table of images whose labels were wrong, as people make one of `audit.csv`: they are left out, or get another class.

It has a column of paths, as the audit or `evaluation.json` names them, and may have one called `label`: an image with a class
there gets it, one without is left out. Where an image may have several labels, 'cat' there adds one, 'not cat' takes it away,
and the others stay. Other columns, such as the audit's `given`, `suggested` and `score`, say nothing.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from convnext.data.formats.csv_table import header_of
from convnext.data.labelled import Dataset, Entry, Splits
from convnext.data.store import printable, require
from convnext.data.written import decoded
from convnext.errors import DataError, nearest, number_of
from convnext.files import cell_meant

_PATHS = ("path", "image", "file", "filename", "file_name")


@dataclass(frozen=True)
class Corrections:
    """What a table says: path -> what its rows have as the label, '' to leave the image out."""

    name: str
    rows: Mapping[str, tuple[str, ...]]  # each of an image's labels once, in order


def read_corrections(file: str | os.PathLike[str]) -> Corrections:
    """The table at `file`. Raises DataError where it is none."""
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
    rows: dict[str, tuple[str, ...]] = {}
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[first:]
    for cells in lines:
        if not any(map(str.strip, cells)):
            continue
        image = cells[column].strip() if column < len(cells) else ""
        said = cells[label].strip() if 0 <= label < len(cells) else ""
        if said not in rows.get(image, ()):
            rows[image] = (*rows.get(image, ()), said)
    return Corrections(name, rows)


def corrected(splits: Splits, corrections: Corrections, paths: Iterable[str]) -> Splits:
    """The same parts without the images that are left out, and with the labels that others get.

    `paths`: of all images of the data, also of a test part, which stays as it is; and which images are held out stays. Raises
    DataError for an image or a class that is not among the data, and where two things are said of an image.
    """
    own = {printable(entry.path) for part in (splits.train, splits.val) for entry in part.entries}
    known = own | set(map(printable, paths))
    said = {cell_meant(path, known): labels for path, labels in corrections.rows.items()}
    missing = [path for path in said if path not in known]
    if missing:
        hint = nearest(missing[0], known) if len(known) < 20_000 else ""
        raise DataError(
            f"'{corrections.name}' names {number_of(len(missing), 'image')} that the data do not have, '{missing[0]}' "
            f"first.{hint} Take the paths of an audit of the same DATA, or remove the rows."
        )
    reading = _Reading(corrections.name, splits.train.classes, splits.train.several)
    changes = {path: reading.changes(path, labels) for path, labels in said.items()}
    rows = {path: each for path, each in changes.items() if path in own}
    left, changed = sum(each is None for each in rows.values()), sum(len(each or ()) for each in rows.values())
    told = f"By '{corrections.name}' {number_of(left, 'image')} left out and {number_of(changed, 'label')} changed"
    others = len(said) - len(rows)
    told += f"; {number_of(others, 'row')} of the test part, which stays as it is." if others else "."
    train, val = (_corrected(part, rows) for part in (splits.train, splits.val))
    units = splits.units
    if units is not None:
        units = units[[rows.get(printable(entry.path), {}) is not None for entry in splits.train.entries]]
    return replace(splits, train=train, val=val, notes=(*splits.notes, told), given=splits.train, units=units)


Change = Mapping[int, int]  # class -> 1: the image is of it, 0: it is not


@dataclass(frozen=True)
class _Reading:
    """How the labels of a table are read: its name, the classes of the data, whether an image may have several."""

    name: str
    classes: tuple[str, ...]
    several: bool

    def changes(self, path: str, labels: tuple[str, ...]) -> Change | None:
        """What becomes of an image; None: it is left out."""
        if "" in labels or not self.several:
            if len(labels) > 1:
                raise self._twice(path, labels[0], labels[1])
            return None if labels[0] == "" else {self._place(labels[0]): 1}
        found: dict[int, int] = {}
        for label in labels:
            for word in [label] if self._is_known(label) else re.split("[;|]", label):
                place, mark = self._marked(word.strip())
                if found.setdefault(place, mark) != mark:
                    name = self.classes[place]
                    raise self._twice(path, name, f"not {name}")
        return found

    def _is_known(self, label: str) -> bool:
        return cell_meant(label, self.classes) in self.classes

    def _marked(self, word: str) -> tuple[int, int]:
        """(place of the class, 1 or 0) of 'cat' or 'not cat'."""
        other = word.removeprefix("not ").strip()
        return (self._place(other), 0) if other != word and not self._is_known(word) else (self._place(word), 1)

    def _place(self, label: str) -> int:
        meant = cell_meant(label, self.classes)
        if meant not in self.classes:
            hint = nearest(label, self.classes)
            raise DataError(f"'{self.name}' has the label '{label}', which is no class of the data.{hint}")
        return self.classes.index(meant)

    def _twice(self, path: str, one: str, other: str) -> DataError:
        return DataError(f"'{self.name}' says two things of '{path}': '{one}' and '{other}'. Keep one row.")


def _corrected(part: Dataset, rows: Mapping[str, Change | None]) -> Dataset:
    entries = []
    for entry in part.entries:
        path = printable(entry.path)
        change = rows.get(path, {})
        if change is None:
            continue
        if not change:
            entries.append(entry)
        elif entry.marks is None:
            entries.append(Entry(entry.path, next(iter(change))))
        else:
            marks = tuple(change.get(place, mark) for place, mark in enumerate(entry.marks))
            entries.append(Entry(entry.path, entry.label, marks))
    return replace(part, entries=tuple(entries))
