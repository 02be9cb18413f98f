"""A table of images: a path or the image itself, a label, and a part if the images are split already.

CSV, JSON lines, Parquet and Arrow mean the same by the same columns (`columns`). Spreadsheets add a line `sep=;`, empty rows
at the end, and their own encoding (`written.decoded`).
"""

import csv
import io
import os
import re
from collections.abc import Iterator

import numpy as np

from convnext.data.arrow import RowStore, Shard
from convnext.data.formats.columns import Row, columns_of, refuse_captions, refuse_twice, row_of
from convnext.data.formats.files import ImageFinder
from convnext.data.formats.listing import PARTS, Listing
from convnext.data.formats.records import TEXT_TABLES, records_at
from convnext.data.names import Names
from convnext.data.store import Tree, printable
from convnext.data.written import as_bytes_were, composed, decoded, decomposed, one_each, spellings
from convnext.errors import DataError, number_of

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?(?:\r\n|\r|\n)", re.IGNORECASE)
_UNLABELLED = "rows of the test part without a label"


def listing_of(tree: Tree, tables: dict[str, str], name: str, left_out: dict[str, int]) -> Listing:
    """Every image of the tables, as `tables_of` gives them. `name` is what messages call the source.

    Raises DataError when there is no row, or one is wrong.
    """
    rows, notes, shards = list[Row](), list[str](), dict[str, Shard]()
    whole = len(tree.files) == 1
    for file, part in tables.items():
        shown = name if whole and name.endswith(printable(file)) else f"{name}/{printable(file)}"
        if part == "-":
            notes.append(f"Table '{printable(file)}' was not read: another one says what is in this data set.")
            continue
        if os.path.splitext(file)[1].lower() in TEXT_TABLES:
            text, codec = decoded(tree.once.read(file))
            own, more, held = *rows_of(text, shown, part), False
            notes += [f"'{shown}' is not UTF-8: its encoding was taken for {codec}."] if codec else []
        else:
            records, codec = records_at(tree, file, shown), ""
            own, more = records.rows(part)
            held = records.shard is not None
            shards |= {file: records.shard} if records.shard is not None else {}
        if not own:
            raise DataError(f"'{shown}' has a header and no rows. Add one line for each image.")
        notes += more
        if not held:
            own, moved = _found(own, tree, codec, file.rpartition("/")[0])
            notes += [f"{number_of(moved, 'image')} of '{shown}' found by the end of the path."] if moved else []
        rows += own
    return _listing(rows, tree, shards, left_out, (*tree.store.notes, *dict.fromkeys(notes)))


def _listing(
    rows: list[Row], tree: Tree, shards: dict[str, Shard], left_out: dict[str, int], notes: tuple[str, ...]
) -> Listing:
    kept = [row for row in rows if row.label]
    if not kept:
        raise DataError(f"none of the {number_of(len(rows), 'image')} has a label. Name a table with labels.")
    if len(kept) < len(rows):
        left_out = left_out | {_UNLABELLED: len(rows) - len(kept)}
    called = one_each(row.label for row in kept)
    number: dict[str, int] = {}
    labels = np.array([number.setdefault(called[row.label], len(number)) for row in kept], np.int32)
    classes = sorted(number)
    order = np.empty(len(number), np.int32)
    order[[number[label] for label in classes]] = np.arange(len(classes))
    part = np.array([PARTS.index(row.split) for row in kept], np.int8)
    labels = order[labels]
    seen = set(np.unique(labels[part != PARTS.index("test")]).tolist())
    only_test = frozenset(name for label, name in enumerate(classes) if label not in seen)
    store = RowStore(shards, tree.store) if shards else tree.store
    paths = Names.of(row.path for row in kept)
    return Listing(paths, labels, part, tuple(classes), store, left_out, notes, only_test)


def _found(rows: list[Row], tree: Tree, codec: str, folder: str) -> tuple[list[Row], int]:
    """The rows with their images' stored names, and how many of them only the end of their path gave away.

    `folder`: of the table, from which its paths count where they lead to a file. A path that is nowhere stays as it is
    written, and is named when it is read.
    """
    finder: ImageFinder | None = None
    found, moved = list[Row](), 0
    for row in rows:
        written = [f"{folder}/{row.path}", row.path] if folder and not row.path.startswith("/") else [row.path]
        path = next(filter(tree.store.has, written), None)
        if path is None:
            spelled = (name for each in written for name in _candidates(each, codec))
            path = next(filter(tree.store.has, spelled), None)
            if path is None and len(tree.files) > 1:
                finder = finder or ImageFinder(tree.files)
                path = finder.find(row.path, row.split, beside=folder, surely=True)
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


def rows_of(text: str, name: str, part: str = "") -> tuple[list[Row], tuple[str, ...]]:
    """Every row of a CSV, of `part` where it has no column for that, and what was understood on the way.

    Raises DataError with the line that is wrong. `name` is what messages call the table.
    """
    names, delimiter, first = header_of(text)
    refuse_twice(names, name)
    columns = columns_of(names, name, where=" in its first line")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    path, label, split = (names.index(column) if column else -1 for column in columns[:3])
    least = max(path, label, split) + 1
    rows = []
    try:
        for _ in range(first):
            next(reader, None)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            cells += [""] * (least - len(cells))
            own = None if split < 0 else cells[split].strip().lower()
            where = f"'{name}' line {reader.line_num}"
            rows.append(row_of(cells[path].strip(), cells[label].strip(), own, where, part))
    except csv.Error as error:
        raise DataError(f"'{name}' line {reader.line_num} is not CSV: {error}.") from None
    refuse_captions(rows, columns, name)
    return rows, columns.notes


def header_of(text: str) -> tuple[list[str], str, int]:
    """(the columns of a CSV, what separates them, how many lines stand before the first row)."""
    said = _SEPARATOR.match(text)
    text = text[said.end() :] if said else text.lstrip("\ufeff")
    first = re.split(r"[\r\n]", text, maxsplit=1)[0].strip()
    delimiter = said[1] if said else max(",;\t", key=first.count)
    columns = [cell.strip().strip('"').strip().lower() for cell in first.split(delimiter)]
    return columns, delimiter, 2 if said else 1
