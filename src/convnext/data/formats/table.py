"""A CSV of images: a header with the columns `path` and `label`, and `split` if the images are split already."""

import csv
import io
from typing import NamedTuple

from convnext.data.store import printable
from convnext.errors import DataError, nearest

TRAIN_NAMES = ("train",)
VAL_NAMES = ("val", "valid", "validation")
TEST_NAME = "test"  # held out where there is no val part, else left alone


class Row(NamedTuple):
    """One image of the table; `split` is 'train', 'val', 'test' or '' where the table has no such column."""

    path: str
    label: str
    split: str


def is_table(text: str) -> bool:
    """Whether the first line names both columns, so that other CSV files beside the images are left alone."""
    return {"path", "label"} <= set(_header(text)[0])


def rows_of(text: str, name: str) -> list[Row]:
    """Every row, or DataError with the line that is wrong. `name` is what messages call the table."""
    columns, delimiter = _header(text)
    for wanted in ("path", "label"):
        if wanted not in columns:
            raise DataError(
                f"'{name}' has no column '{wanted}' in its first line ({', '.join(columns)})."
                f"{nearest(wanted, columns)} "
                "It needs 'path' and 'label', and may have 'split'."
            )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    next(reader)
    try:
        return [
            _row(dict(zip(columns, cells, strict=False)), f"'{name}' line {reader.line_num}")
            for cells in reader
            if cells
        ]
    except csv.Error as error:
        raise DataError(f"'{name}' line {reader.line_num} is not CSV: {error}.") from None


def _header(text: str) -> tuple[list[str], str]:
    first = text.lstrip("\ufeff").split("\n", 1)[0].strip()
    delimiter = max(",;\t", key=first.count)
    return [cell.strip().strip('"').lower() for cell in first.split(delimiter)], delimiter


def _row(cells: dict[str, str], where: str) -> Row:
    path, label = cells.get("path", "").strip(), cells.get("label", "").strip()
    if not path or not label:
        raise DataError(f"{where} has no {'path' if not path else 'label'}. Give it one or remove the line.")
    split = cells.get("split", "").strip().lower()
    known = (*TRAIN_NAMES, *VAL_NAMES, TEST_NAME)
    if "split" in cells and split not in known:
        raise DataError(f"{where}: split '{split}' is not 'train', 'val' or 'test'.{nearest(split, known)}")
    return Row(path, printable(label), "val" if split in VAL_NAMES else split)
