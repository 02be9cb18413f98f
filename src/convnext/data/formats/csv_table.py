"""A table of images as CSV: its lines as rows, whatever separates the cells.

Spreadsheets add a line `sep=;`, empty rows at the end, and their own encoding (`written.decoded`).
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

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
    refuse_captions,
    refuse_twice,
    row_of,
    with_names,
)
from convnext.data.formats.named_columns import named_column, other_than_path, others
from convnext.data.formats.several import in_columns
from convnext.data.formats.shown import Shown
from convnext.data.source import GUESSED, Labels, NamedColumns
from convnext.errors import DataError

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?(?:\r\n|\r|\n)", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")  # WordNet's number of a class
_WHOLE = re.compile(r"-?\d+\.0")


def rows_of(
    text: str, name: str, part: str, labels: Labels | None, among: Shown, named: NamedColumns = GUESSED
) -> tuple[list[Row], tuple[str, ...], bool]:
    """Every row of a CSV, of `part` where it has no column for that; what was understood on the way; and whether the
    label's column is called as one of several labels is. `among`: the images that it may name; `named`: the columns that a
    person names.

    Raises DataError with the line that is wrong. `name` is what messages call the table.
    """
    written, delimiter, first = head_of(text)
    names = [column.lower() for column in written]
    refuse_twice(names, name)
    lines = list(_lines_of(text, name, delimiter, first))
    notes: tuple[str, ...] = ()
    asked, together, shows = (named_column(which, named, names, name) for which in ("label", "group", "path"))
    if not shows and (shows := among.column(names, _cells(names, lines))):
        notes = (f"'{name}': its column '{shows}' names the images.",)
    if shows:
        place = names.index(shows)
        names, written = (list(map(other_than_path, columns)) for columns in (names, written))
        names[place] = written[place] = shows = "path"
    values, least = _cells(names, lines), 1 if labels == "multi" else 2
    marked = None if asked else in_columns(others(written, together), _cells(written, lines), least=least)
    if marked is None:
        able = () if asked else classes_among(others(names, together), values)
        columns = columns_of(names, name, path=shows, labels=able, where=" in its first line", named=named)
        columns = columns if asked else with_names(columns, names, values, name)
    else:
        image, divided = (next((word for word in words if word in names), "") for words in (PATH, SPLIT))
        columns = Columns(image, "", divided, marked[1])
    path, label, split, group = (names.index(column) if column else -1 for column in (*columns[:3], together))
    least = max(path, label, split, group) + 1
    rows = []
    for place, (number, cells) in enumerate(lines):
        cells += [""] * (least - len(cells))
        own = None if split < 0 else part_said(columns.split, cells[split].strip().lower())
        said = "" if label < 0 else cells[label].strip()
        marks = choices_in(said) if marked is None else marked[0][place]
        where, same = f"'{name}' line {number}", "" if group < 0 else cells[group].strip()
        rows.append(row_of(cells[path].strip(), said, own, where, part, marks=marks, group=same))
    if all(_WHOLE.fullmatch(row.label) for row in rows if row.label):  # numbers that pandas wrote beside an empty cell
        rows = [row._replace(label=row.label.removesuffix(".0")) for row in rows]
    if columns.label == "predictionstring":
        rows = [row._replace(label=synset_of(row.label, name)) for row in rows]
    refuse_captions(rows, columns, name)
    return rows, (*notes, *columns.notes), columns.plural


def synset_of(cell: str, name: str) -> str:
    """The class in ImageNet's 'n01440764 30 20 400 300 ...', a box for each object of it.

    Raises DataError for other boxes.
    """
    words = cell.split()
    synsets = set(words[::5])
    if cell and (len(words) % 5 or len(synsets) > 1 or not _SYNSET.fullmatch(words[0])):
        raise DataError(
            f"'{name}' has boxes (column 'PredictionString'), which are not read from such a table. Write COCO JSON."
        )
    return words[0] if words else ""


def marks_in_text(text: str, name: str) -> tuple[list[Marks], tuple[str, ...]] | None:
    """What columns of 1 and 0 of a CSV say, as `several.in_columns` has it."""
    written, delimiter, first = head_of(text)
    return in_columns(written, _cells(written, list(_lines_of(text, name, delimiter, first))))


def cells_in(text: str, name: str, most: int | None) -> tuple[list[str], Callable[[str], list[Any]]]:
    """The columns of a CSV in small letters, and what gives the cells of one, of `most` rows alone where that is a number."""
    names, delimiter, first = header_of(text)
    return names, _cells(names, list(islice(_lines_of(text, name, delimiter, first), most)))


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
