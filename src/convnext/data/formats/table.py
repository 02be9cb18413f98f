"""A table of images: a path or the image itself, a label, and a part if the images are split already.

CSV, JSON lines, Parquet and Arrow mean the same by the same columns (`columns`).
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convnext.data.arrow import ENDINGS, RowStore, Shard
from convnext.data.formats.columns import Row, path_column, path_in, row_of
from convnext.data.formats.csv_table import cells_in, rows_of
from convnext.data.formats.listing import PARTS, Listing
from convnext.data.formats.named_columns import named_column, shown_columns
from convnext.data.formats.records import TEXT_TABLES, records_at
from convnext.data.formats.several import marks_of, names_in, settled
from convnext.data.formats.shown import Shown
from convnext.data.names import Names
from convnext.data.parts import part_of_name
from convnext.data.source import GUESSED, Labels, NamedColumns
from convnext.data.store import Store, Tree, printable
from convnext.data.written import as_bytes_were, composed, decoded, decomposed, local_path, one_each, spellings
from convnext.errors import DataError, number_of

_PROBED = 20  # rows that show whether paths lead anywhere
_UNLABELLED = "rows of the test part without a label"


def listing_of(
    tree: Tree,
    tables: dict[str, str],
    name: str,
    left_out: dict[str, int],
    labels: Labels | None = None,
    images: Tree | None = None,
    named: NamedColumns = GUESSED,
) -> Listing:
    """Every image of the tables, as `tables_of` gives them. `name` is what messages call the source.

    `labels`: whether an image has one or several, None for what it looks like; `images`: where they lie, if elsewhere;
    `named`: the columns that a person names. Raises DataError when there is no row, or one is wrong.
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
            own, more, called = rows_of(text, shown, part, labels, among, named)
            held = False
            notes += [f"'{shown}' is not UTF-8: its encoding was taken for {codec}."] if codec else []
        else:
            records, codec = records_at(tree, file, shown), ""
            own, more, called = records.rows(part, labels, among, named)
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
    paths, groups = Names.of(row.path for row in rows), _numbered(rows)
    trained = [row for row in rows if row.split != "test"]
    if rows[0].marks is not None:
        called = one_each(names_in(rows))
        classes, labels, absent = marks_of(rows, called)
        only_test = frozenset(classes) - {called[name] for name in names_in(trained)}
        return Listing(paths, labels, part, classes, store, left_out, notes, only_test, absent, groups)
    called = one_each(row.label for row in rows)
    classes = tuple(sorted({*called.values()}))
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[called[row.label]] for row in rows], np.int32)
    only_test = frozenset(classes) - {called[row.label] for row in trained}
    return Listing(paths, labels, part, classes, store, left_out, notes, only_test, groups=groups)


def _numbered(rows: list[Row]) -> np.ndarray | None:
    """(N,) int32: a number for each group of the rows, 0 for those of none; None where there are no groups."""
    number = {"": 0}
    found = np.array([number.setdefault(row.group, len(number)) for row in rows], np.int32)
    return found if len(number) > 1 else None


def _nowhere(rows: list[Row], name: str, *, apart: bool) -> DataError:
    """That none of the images that a table names is there; `apart`: where a person says that they are."""
    way = "Name the folder that they are in" if apart else "Where they are elsewhere, add --images DIR"
    return DataError(
        f"none of the {len(rows):,} images that '{name}' names is there; the first is '{printable(rows[0].path)}'. {way}."
    )


def around(tree: Tree, file: str, named: NamedColumns = GUESSED) -> Tree:
    """Where the images of a table that was named alone lie: its own tree, or its folder where its paths lead nowhere.

    `named`: the columns that a person names.
    """
    among = Shown(tree)
    if among.listed:
        return tree
    try:
        if os.path.splitext(file)[1].lower() in ENDINGS and records_at(tree, file, file).held:
            return tree
        names, values = columns_in(tree, file, _PROBED)
        column = named_column("path", named, names, file) or path_column(names)
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


def columns_in(tree: Tree, file: str, most: int | None = None) -> tuple[list[str], Callable[[str], list[Any]]]:
    """The columns of a table, of a CSV in small letters, and what gives their cells; of a CSV those of `most` rows alone.

    Raises DataError where it is no table.
    """
    if os.path.splitext(file)[1].lower() not in TEXT_TABLES:
        records = records_at(tree, file, file)
        return records.columns, records.values
    return cells_in(decoded(tree.once.read(file))[0], file, most)
