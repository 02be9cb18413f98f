"""A CSV of images: a header with the columns `path` and `label`, and `split` if the images are split already.

Spreadsheets add a line `sep=;`, empty rows at the end, and their own encoding (`written.decoded`).
"""

import csv
import io
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from convnext.data.formats.files import ImageFinder
from convnext.data.formats.listing import PARTS, Listing
from convnext.data.names import Names
from convnext.data.parts import part_of_folder, part_of_name
from convnext.data.store import Tree, printable
from convnext.data.written import as_bytes_were, composed, decoded, decomposed, one_each, spellings
from convnext.errors import DataError, nearest, number_of

_COLUMNS = ("path", "label", "split")
_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?(?:\r\n|\r|\n)", re.IGNORECASE)


class Row(NamedTuple):
    """One image of the table; `split` is 'train', 'val', 'test' or '' where the table has no such column."""

    path: str
    label: str
    split: str


def tables_at(tree: Tree) -> list[str]:
    """The CSV files at the top of a tree."""
    top = [number for number, prefix in enumerate(tree.files.prefixes) if not prefix]
    return list(tree.files.take(np.isin(tree.files.prefix, top) & tree.files.ending_in({".csv"})))


def tables_of(tree: Tree) -> dict[str, str]:
    """The tables to read -> the part that their name says, and others like them -> '-'.

    Only those whose first line names both columns: other CSV files beside the images are left alone. One table says
    itself what is in it, as does one with a column `split`; of several, train.csv and test.csv are the parts.
    """
    columns = {file: set(_header(decoded(tree.once.read(file))[0])[0]) for file in tables_at(tree)}
    tables = [file for file in columns if {"path", "label"} <= columns[file]]
    if len(tables) < 2:
        return dict.fromkeys(tables, "")
    parts = {file: part_of_name(file) for file in tables}
    plain = [file for file in tables if not parts[file]]
    if not any(parts.values()) or (plain and "split" in columns[plain[0]]):
        chosen = plain[0]
        return {file: "" if file == chosen else "-" for file in tables}
    if plain and "train" not in parts.values():
        parts[plain[0]] = "train"
    return {file: part or "-" for file, part in parts.items()}


def listing_of(tree: Tree, tables: dict[str, str], name: str, left_out: dict[str, int]) -> Listing:
    """Every image of the tables, as `tables_of` gives them. `name` is what messages call the source.

    Raises DataError when there is no row, or one is wrong.
    """
    rows, notes = list[Row](), list[str]()
    whole = len(tree.files) == 1
    for file, part in tables.items():
        shown = name if whole and name.endswith(printable(file)) else f"{name}/{printable(file)}"
        if part == "-":
            notes.append(f"Table '{printable(file)}' was not read: another one says what is in this data set.")
            continue
        text, codec = decoded(tree.once.read(file))
        if codec:
            notes.append(f"'{shown}' is not UTF-8: its encoding was taken for {codec}.")
        own = rows_of(text, shown)
        if not own:
            raise DataError(f"'{shown}' has a header and no rows. Add one line for each image.")
        own, moved = _found(own, tree, codec)
        if moved:
            notes.append(f"{number_of(moved, 'image')} of '{shown}' found by the end of the path.")
        rows += [row._replace(split=row.split or part) for row in own]
    return _listing(rows, tree, left_out, tuple(notes))


def _listing(rows: list[Row], tree: Tree, left_out: dict[str, int], notes: tuple[str, ...]) -> Listing:
    called = one_each(row.label for row in rows)
    number: dict[str, int] = {}
    labels = np.array([number.setdefault(called[row.label], len(number)) for row in rows], np.int32)
    classes = sorted(number)
    order = np.empty(len(number), np.int32)
    order[[number[label] for label in classes]] = np.arange(len(classes))
    part = np.array([PARTS.index(row.split) for row in rows], np.int8)
    labels = order[labels]
    seen = set(np.unique(labels[part != PARTS.index("test")]).tolist())
    only_test = frozenset(name for label, name in enumerate(classes) if label not in seen)
    paths = Names.of(row.path for row in rows)
    return Listing(paths, labels, part, tuple(classes), tree.store, left_out, notes, only_test)


def _found(rows: list[Row], tree: Tree, codec: str) -> tuple[list[Row], int]:
    """The rows with their images' stored names, and how many of them only the end of their path gave away.

    A path that is nowhere stays as it is written, and is named when it is read.
    """
    finder: ImageFinder | None = None
    found, moved = list[Row](), 0
    for row in rows:
        path: str | None = row.path
        if not tree.store.has(row.path):
            path = next(filter(tree.store.has, _candidates(row.path, codec)), None)
            if path is None and len(tree.files) > 1:
                finder = finder or ImageFinder(tree.files)
                path = finder.find(row.path, row.split, surely=True)
            if path is None:
                path = next(filter(tree.store.has, _ends(row.path)), None)
                moved += path is not None
        found.append(row if path in (None, row.path) else row._replace(path=path or row.path))
    return found, moved


def _candidates(path: str, codec: str) -> Iterator[str]:
    for written in dict.fromkeys((path, as_bytes_were(path) if codec == "cp1252" else path)):
        for name in spellings(written):
            stem, ending = os.path.splitext(name)
            for form in (str, composed, decomposed):
                yield form(name)
                yield from (form(stem) + ending.lower(), form(stem) + ending.upper())


def _ends(path: str) -> Iterator[str]:
    """The path without its first folders, the longest first: what is left of one that was written elsewhere."""
    for name in spellings(path):
        words = name.split("/")
        yield from ("/".join(words[first:]) for first in range(1, len(words) - 1))


def rows_of(text: str, name: str) -> list[Row]:
    """Every row, or DataError with the line that is wrong. `name` is what messages call the table."""
    columns, delimiter, first = _header(text)
    for wanted in ("path", "label"):
        if wanted not in columns:
            raise DataError(
                f"'{name}' has no column '{wanted}' in its first line ({', '.join(columns)})."
                f"{nearest(wanted, columns)} "
                "It needs 'path' and 'label', and may have 'split'."
            )
    for column in _COLUMNS:
        if columns.count(column) > 1:
            raise DataError(f"'{name}' has two columns '{column}'. Remove one, or give it another name.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    for _ in range(first):
        next(reader)
    try:
        return [
            _row(dict(zip(columns, cells, strict=False)), f"'{name}' line {reader.line_num}")
            for cells in reader
            if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise DataError(f"'{name}' line {reader.line_num} is not CSV: {error}.") from None


def _header(text: str) -> tuple[list[str], str, int]:
    """(the columns, what separates them, how many lines stand before the first row)."""
    said = _SEPARATOR.match(text)
    text = text[said.end() :] if said else text.lstrip("\ufeff")
    first = re.split(r"[\r\n]", text, maxsplit=1)[0].strip()
    delimiter = said[1] if said else max(",;\t", key=first.count)
    columns = [cell.strip().strip('"').strip().lower() for cell in first.split(delimiter)]
    return columns, delimiter, 2 if said else 1


def _row(cells: dict[str, str], where: str) -> Row:
    path, label = cells.get("path", "").strip(), cells.get("label", "").strip()
    if not path or not label:
        raise DataError(f"{where} has no {'path' if not path else 'label'}. Give it one or remove the line.")
    split = cells.get("split", "").strip().lower()
    part = part_of_folder(split)
    if "split" in cells and not part:
        raise DataError(f"{where}: split '{split}' is not 'train', 'val' or 'test'.{nearest(split, PARTS[1:])}")
    return Row(path, printable(label), part)
