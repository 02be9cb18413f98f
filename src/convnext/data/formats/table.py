"""A table of images: a path or the image itself, a label, and a part if the images are split already.

CSV, JSON lines, Parquet and Arrow mean the same by the same columns (`columns`). Spreadsheets add a line `sep=;`, empty rows
at the end, and their own encoding (`written.decoded`).
"""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from convnext.data.arrow import ENDINGS, RowStore, Shard
from convnext.data.formats.columns import (
    PATH,
    SPLIT,
    Columns,
    Marks,
    Row,
    choices_in,
    classes_among,
    columns_of,
    part_said,
    path_column,
    path_in,
    refuse_captions,
    refuse_twice,
    row_of,
    shown_columns,
    with_names,
)
from convnext.data.formats.listing import PARTS, Listing
from convnext.data.formats.records import TEXT_TABLES, records_at
from convnext.data.formats.several import in_columns, marks_of, names_in, settled
from convnext.data.formats.shown import Shown
from convnext.data.names import Names
from convnext.data.parts import part_of_name
from convnext.data.source import Labels
from convnext.data.store import Store, Tree, printable
from convnext.data.written import as_bytes_were, composed, decoded, decomposed, local_path, one_each, spellings
from convnext.errors import DataError, number_of

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?(?:\r\n|\r|\n)", re.IGNORECASE)
_PROBED = 20  # rows that show whether paths lead anywhere
_WHOLE = re.compile(r"-?\d+\.0")
_UNLABELLED = "rows of the test part without a label"


def listing_of(
    tree: Tree,
    tables: dict[str, str],
    name: str,
    left_out: dict[str, int],
    labels: Labels | None = None,
    images: Tree | None = None,
) -> Listing:
    """Every image of the tables, as `tables_of` gives them. `name` is what messages call the source.

    `labels`: whether an image has one or several, None for what it looks like; `images`: where they lie, if elsewhere.
    Raises DataError when there is no row, or one is wrong.
    """
    rows, notes, shards, plural = list[Row](), list[str](), dict[str, Shard](), False
    whole, shown_in, lost = len(tree.files) == 1, tree if images is None else images, 0
    among = Shown(shown_in)
    for file, part in tables.items():
        shown = name if whole and name.endswith(printable(file)) else f"{name}/{printable(file)}"
        if part == "-":
            notes.append(f"Table '{printable(file)}' was not read: another one says what is in this data set.")
            continue
        if os.path.splitext(file)[1].lower() in TEXT_TABLES:
            text, codec = decoded(tree.once.read(file))
            own, more, called = rows_of(text, shown, part, labels, among)
            held = False
            notes += [f"'{shown}' is not UTF-8: its encoding was taken for {codec}."] if codec else []
        else:
            records, codec = records_at(tree, file, shown), ""
            own, more, called = records.rows(part, labels, among)
            held = records.shard is not None
            shards |= {file: records.shard} if records.shard is not None else {}
        if not own:
            raise DataError(f"'{shown}' has a header and no rows. Add one line for each image.")
        notes += more
        plural = plural or called
        if not held:
            own, moved, nowhere = _found(own, among, codec, file)
            lost += nowhere
            notes += [f"{number_of(moved, 'image')} of '{shown}' found by the end of the path."] if moved else []
        rows += own
    kept, understood = settled(rows, labels, plural=plural)
    if not kept:
        raise DataError(f"none of the {number_of(len(rows), 'image')} has a label. Name a table with labels.")
    if lost == len(rows):
        raise _nowhere(rows, name, apart=not any(file in shown_in.files for file in tables))
    bare = sum(row.split == "test" and not row.label and row.marks is None for row in rows)
    if bare and (kept[0].marks is None or all(row.split != "test" for row in kept)):
        left_out = left_out | {_UNLABELLED: bare}
    store = RowStore(shards, shown_in.store) if shards else shown_in.store
    return listing_of_rows(kept, store, left_out, (*shown_in.store.notes, *dict.fromkeys((*notes, *understood))))


def images_named(tree: Tree, file: str, name: str) -> tuple[list[str], Store]:
    """The images of one table, whatever it says of them, and where they are read; `name`: what messages call it.

    Raises DataError where it names none, or none of them is there.
    """
    shown_in, codec = around(tree, file), ""
    among = Shown(shown_in)
    if os.path.splitext(file)[1].lower() in TEXT_TABLES:
        codec = decoded(tree.once.read(file))[1]
        names, values = columns_in(tree, file)
    else:
        records = records_at(tree, file, name)
        if records.shard is not None:
            return list(records.paths), RowStore({file: records.shard}, tree.store)
        names, values = records.columns, records.values
    column = path_column(names) or among.column(names, values)
    if not column:
        raise DataError(f"'{name}' names no images ({shown_columns(names)}). Call the column of their paths 'path'.")
    cells = enumerate(values(column), 1)
    rows = [
        row_of(path_in(cell, where), "", None, where) for place, cell in cells if (where := f"'{name}' row {place}")
    ]
    found, _, lost = _found(rows, among, codec, file)
    if lost == len(rows):
        raise _nowhere(rows, name, apart=False)
    return [row.path for row in found], shown_in.store


def listing_of_rows(rows: list[Row], store: Store, left_out: dict[str, int], notes: tuple[str, ...]) -> Listing:
    """The listing of rows as `several.settled` gives them: all with a label, or all with marks."""
    part = np.array([PARTS.index(row.split) for row in rows], np.int8)
    paths = Names.of(row.path for row in rows)
    trained = [row for row in rows if row.split != "test"]
    if rows[0].marks is not None:
        called = one_each(names_in(rows))
        classes, labels, absent = marks_of(rows, called)
        only_test = frozenset(classes) - {called[name] for name in names_in(trained)}
        return Listing(paths, labels, part, classes, store, left_out, notes, only_test, absent)
    called = one_each(row.label for row in rows)
    classes = tuple(sorted({*called.values()}))
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[called[row.label]] for row in rows], np.int32)
    only_test = frozenset(classes) - {called[row.label] for row in trained}
    return Listing(paths, labels, part, classes, store, left_out, notes, only_test)


def _nowhere(rows: list[Row], name: str, *, apart: bool) -> DataError:
    """That none of the images that a table names is there; `apart`: where a person says that they are."""
    way = "Name the folder that they are in" if apart else "Where they are elsewhere, add --images DIR"
    return DataError(
        f"none of the {len(rows):,} images that '{name}' names is there; the first is '{printable(rows[0].path)}'. {way}."
    )


def around(tree: Tree, file: str) -> Tree:
    """Where the images of a table that was named alone lie: its own tree, or its folder where its paths lead nowhere."""
    among = Shown(tree)
    if among.listed or os.path.splitext(file)[1].lower() in ENDINGS:
        return tree
    try:
        names, values = columns_in(tree, file, _PROBED)
        column = path_column(names)
        paths = [str(cell).strip() for cell in values(column)[:_PROBED]] if column else []
        rows = [Row(local_path(path, file), "", "") for path in paths if path]
    except DataError:  # which is told when the rows are read
        return tree
    lost = _looked_up(rows, among, "", file, by_name=False)[2]
    return tree if column and lost < len(rows) else among.listed_around()


def _found(rows: list[Row], among: Shown, codec: str, table: str) -> tuple[list[Row], int, int]:
    """The rows with their images' stored names, how many of them only the end of their path gave away, and how many nothing.

    The paths of a `table` count from its folder, where they lead to a file. A path that is nowhere stays as it is written,
    and is named when it is read.
    """
    return _looked_up(rows, among, codec, table, by_name=among.listed)


def _looked_up(rows: list[Row], among: Shown, codec: str, table: str, *, by_name: bool) -> tuple[list[Row], int, int]:
    tree, folder = among.tree, table.rpartition("/")[0]
    found, moved, lost = list[Row](), 0, 0
    for row in rows:
        written = [f"{folder}/{row.path}", row.path] if folder and not row.path.startswith("/") else [row.path]
        path = next(filter(tree.store.has, written), None)
        if path is None:
            spelled = (name for each in written for name in _candidates(each, codec))
            path = next(filter(tree.store.has, spelled), None)
            if path is None and by_name:
                path = among.find(row.path, row.split or part_of_name(table), folder)
            if path is None:
                path = next(filter(tree.store.has, _ends(row.path)), None)
                moved += path is not None
            lost += path is None
        found.append(row if path in (None, row.path) else row._replace(path=path or row.path))
    return found, moved, lost


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


def rows_of(
    text: str, name: str, part: str, labels: Labels | None, among: Shown
) -> tuple[list[Row], tuple[str, ...], bool]:
    """Every row of a CSV, of `part` where it has no column for that; what was understood on the way; and whether the
    label's column is called as one of several labels is. `among`: the images that it may name.

    Raises DataError with the line that is wrong. `name` is what messages call the table.
    """
    written, delimiter, first = head_of(text)
    names = [column.lower() for column in written]
    refuse_twice(names, name)
    lines = list(_lines_of(text, name, delimiter, first))
    notes: tuple[str, ...] = ()
    if shows := among.column(names, _cells(names, lines)):
        notes = (f"'{name}': its column '{shows}' names the images.",)
        place = names.index(shows)
        names[place] = written[place] = "path"
    marked, values = _marked(written, lines, 1 if labels == "multi" else 2), _cells(names, lines)
    if marked is None:
        columns = columns_of(names, name, labels=classes_among(names, values), where=" in its first line")
        columns = with_names(columns, names, values, name)
    else:
        image, divided = (next((word for word in words if word in names), "") for words in (PATH, SPLIT))
        columns = Columns(image, "", divided, marked[1])
    path, label, split = (names.index(column) if column else -1 for column in columns[:3])
    least = max(path, label, split) + 1
    rows = []
    for place, (number, cells) in enumerate(lines):
        cells += [""] * (least - len(cells))
        own = None if split < 0 else part_said(columns.split, cells[split].strip().lower())
        said = "" if label < 0 else cells[label].strip()
        marks = choices_in(said) if marked is None else marked[0][place]
        rows.append(row_of(cells[path].strip(), said, own, f"'{name}' line {number}", part, marks=marks))
    if all(_WHOLE.fullmatch(row.label) for row in rows if row.label):  # numbers that pandas wrote beside an empty cell
        rows = [row._replace(label=row.label.removesuffix(".0")) for row in rows]
    refuse_captions(rows, columns, name)
    return rows, (*notes, *columns.notes), columns.plural


def marks_in_text(text: str, name: str) -> tuple[list[Marks], tuple[str, ...]] | None:
    """What columns of 1 and 0 of a CSV say, as `several.in_columns` has it."""
    written, delimiter, first = head_of(text)
    return _marked(written, list(_lines_of(text, name, delimiter, first)), 2)


def columns_in(tree: Tree, file: str, most: int | None = None) -> tuple[list[str], Callable[[str], list[Any]]]:
    """The columns of a table, of a CSV in small letters, and what gives their cells; of a CSV those of `most` rows alone.

    Raises DataError where it is no table.
    """
    if os.path.splitext(file)[1].lower() not in TEXT_TABLES:
        records = records_at(tree, file, file)
        return records.columns, records.values
    text = decoded(tree.once.read(file))[0]
    names, delimiter, first = header_of(text)
    return names, _cells(names, list(islice(_lines_of(text, file, delimiter, first), most)))


def _marked(
    written: list[str], lines: list[tuple[int, list[str]]], least: int
) -> tuple[list[Marks], tuple[str, ...]] | None:
    return in_columns(written, _cells(written, lines), least=least)


def _cells(names: list[str], lines: list[tuple[int, list[str]]]) -> Callable[[str], list[str]]:
    """column -> its cells."""
    where = {column: place for place, column in reversed(list(enumerate(names)))}

    def values(column: str) -> list[str]:
        return [cells[where[column]] if len(cells) > where[column] else "" for _, cells in lines]

    return values


def _lines_of(text: str, name: str, delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """(number of its line, cells) of each row of a CSV that is not empty, after the `first` lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for _ in range(first):
            next(reader, None)
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"'{name}' line {reader.line_num} is not CSV: {error}.") from None


def header_of(text: str) -> tuple[list[str], str, int]:
    """(the columns of a CSV in small letters, what separates them, how many lines stand before the first row)."""
    columns, delimiter, first = head_of(text)
    return [column.lower() for column in columns], delimiter, first


def head_of(text: str) -> tuple[list[str], str, int]:
    """As `header_of`, with the columns as they are written."""
    said = _SEPARATOR.match(text)
    text = text[said.end() :] if said else text.lstrip("\ufeff")
    first = re.split(r"[\r\n]", text, maxsplit=1)[0].strip()
    delimiter = said[1] if said else max(",;\t", key=first.count)
    columns = [cell.strip().strip('"').strip() for cell in first.split(delimiter)]
    return columns, delimiter, 2 if said else 1
