"""Tables with typed values, JSON lines, Parquet and Arrow: their columns, and where their images are."""

import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from convnext.data.arrow import ENDINGS, ArrowFile, Shard
from convnext.data.codecs import image_suffixes
from convnext.data.formats.columns import (
    PATH,
    SPLIT,
    Columns,
    Row,
    class_names,
    classes_among,
    columns_of,
    labelled,
    marks_in,
    part_said,
    path_in,
    refuse_captions,
    row_of,
    text_of,
    with_names,
)
from convnext.data.formats.named_columns import named_column, other_than_path, others
from convnext.data.formats.several import in_columns, may_be_marked
from convnext.data.formats.shown import Shown
from convnext.data.source import GUESSED, Labels, NamedColumns
from convnext.data.store import FolderStore, Tree, ZipStore, printable
from convnext.data.written import decoded
from convnext.errors import DataError, number_of

JSON = ".json"  # a table where `is_label_json` says so
JSON_LINES = frozenset({".jsonl", ".ndjson"})
TEXT_TABLES = frozenset({".csv", ".tsv"})
_HELD = (
    "image",
    "img",
    "picture",
    "photo",
    "bytes",
    "image_bytes",
    "img_bytes",
    "image_data",
    "data",
    "content",
    "jpg",
    "png",
)
_NAMED = re.compile(
    rb'\s*(?:\xef\xbb\xbf)?\s*\{\s*"(?:[^"\\]|\\.)+?\.(\w{2,5})"\s*:\s*["\[{]'
)  # an image and its labels
_FIFTYONE = re.compile(rb'\s*\{\s*"(?:classes|labels)"\s*:')  # its labels.json of images in classes
_RECORDS = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*\[\s*\{")
_HEAD = 4096  # bytes in which the first row begins
_FILES = 120  # letters of an image's own name that are kept


@dataclass(frozen=True)
class Records:
    """A table. `values(column)` are those of every row."""

    name: str  # what messages call it
    columns: list[str]
    values: Callable[[str], list[Any]]
    unit: str  # 'line' or 'row', as messages count them
    numbers: Sequence[int]  # of each row, for messages
    held: str = ""  # the column that holds images, where one does
    paths: Sequence[str] = ()  # of these images: 'file/row-name'
    shard: Shard | None = None
    features: dict[str, Any] | None = None  # what the `datasets` library noted
    notes: tuple[str, ...] = ()

    def where(self, place: int) -> str:
        """What messages call a row."""
        return f"'{self.name}' {self.unit} {self.numbers[place]}"

    def names_of(self, column: str) -> tuple[str, ...]:
        """Names of the classes that a column counts, () where they are not known."""
        return class_names((self.features or {}).get(column))

    def images(self, column: str) -> list[str]:
        """The path of each row's image, '' where there is none."""
        if self.held:
            return list(self.paths)
        return [path_in(value, self.where(place)) for place, value in enumerate(self.values(column))]

    def rows(
        self, part: str, labels: Labels | None, among: Shown, named: NamedColumns = GUESSED
    ) -> tuple[list[Row], tuple[str, ...], bool]:
        """Every row, of `part` where the table does not say it itself; what was understood on the way; and whether the
        label's column is called as one of several labels is. `among`: the images that it may name; `named`: the columns that a
        person names.

        Raises DataError where a row is wrong.
        """
        if shows := named_column("path", named, self.columns, self.name):
            if self.held and shows != self.held:
                raise DataError(f"'{self.name}' holds its images, in column '{self.held}'. Leave out --path-column.")
            if self.held:
                return self.rows(part, labels, among, replace(named, path=""))
            return self._renamed(shows).rows(part, labels, among, replace(named, path=""))
        if not self.held and (shows := among.column(self.columns, self.values)):
            note = f"'{self.name}': its column '{shows}' names the images."
            return self._renamed(shows, note).rows(part, labels, among, named)
        asked, together = (named_column(which, named, self.columns, self.name) for which in ("label", "group"))
        counted = [asked] if asked else [name for name in self.columns if self.names_of(name)]
        marked = None
        if not counted:
            about = self.columns if not self.held else ["path", *(name for name in self.columns if name != self.held)]
            about = others(about, together)
            marked = in_columns(about, self.values, least=1 if labels == "multi" else 2)
        if marked is None:
            able: Iterable[str] = counted or classes_among(
                [name for name in others(self.columns, together) if name != self.held], self.values
            )
            columns = columns_of(self.columns, self.name, path=self.held, labels=able, named=named)
            columns = columns if counted else with_names(columns, self.columns, self.values, self.name)
        else:
            known = {name.strip().lower(): name for name in reversed(self.columns)}
            image, split_by = (next((known[word] for word in words if word in known), "") for words in (PATH, SPLIT))
            columns = Columns(self.held or image, "", split_by, marked[1])
        names = self.names_of(columns.label) if columns.label else ()
        values = self.values(columns.label) if columns.label else [None] * len(self.numbers)
        paths, splits = self.images(columns.path), self.values(columns.split) if columns.split else None
        split_names = self.names_of(columns.split)
        same = self.values(together) if together else [None] * len(self.numbers)
        found = []
        for place, (path, value) in enumerate(zip(paths, values, strict=True)):
            where = self.where(place)
            split = None if splits is None else text_of(splits[place], where, "split", split_names).lower()
            split = split and part_said(columns.split, split)
            marks = marks_in(value, where, names) if marked is None else marked[0][place]
            label = "" if marks else text_of(value, where, "label", names)
            row = row_of("held" if self.held else path, label, split, where, part, marks=marks)
            row = row if same[place] is None else row._replace(group=str(same[place]).strip())
            found.append(row._replace(path=path) if self.held else row)
        refuse_captions(found, columns, self.name)
        return found, (*columns.notes, *self.notes), columns.plural

    def _renamed(self, shows: str, *notes: str) -> "Records":
        """The same where the column `shows` is called 'path'."""
        columns = ["path" if name == shows else other_than_path(name) for name in self.columns]
        return replace(
            self, columns=columns, notes=(*notes, *self.notes),
            values=lambda column: self.values(shows if column == "path" else column),
        )  # fmt: skip


def is_label_json(data: bytes) -> bool:
    """Whether a JSON says which labels images have: an object of images, or a list of records with an image and labels."""
    if _FIFTYONE.match(data) and re.search(rb'"labels"\s*:\s*\{', data):
        return b'"bounding_box"' not in data
    named = _NAMED.match(data)
    if named:
        return f".{named[1].decode().lower()}" in image_suffixes() and b'"regions"' not in data[:_HEAD]
    if not _RECORDS.match(data):
        return False
    try:
        first = _of_json(data, "it").columns
    except DataError:
        return False
    return labelled(first) or may_be_marked(first)


def records_at(tree: Tree, file: str, name: str) -> Records:
    """The typed table in `file` of a tree. Raises DataError where it is damaged, MissingPackage where pyarrow is not there."""
    ending = os.path.splitext(file)[1].lower()
    if ending in ENDINGS:
        return _of_arrow(tree, file, name)
    if ending == JSON:
        return _of_json(tree.once.read(file), name)
    return _of_lines(tree.once.read(file), name)


def columns_at(tree: Tree, file: str) -> list[str]:
    """The names of a typed table's columns, of JSON lines those of the first; [] where that cannot be told."""
    try:
        if os.path.splitext(file)[1].lower() in ENDINGS | {JSON}:
            return records_at(tree, file, file).columns
        data = tree.once.read(file)
        line = next((line for line in decoded(_head(data))[0].split("\n") if line.strip()), "")
        row = msgspec.json.decode(line)
        return list(row) if isinstance(row, dict) else []
    except (msgspec.MsgspecError, ValueError, RecursionError, DataError):
        return []


def _head(data: bytes) -> bytes:
    """The first lines of a file, not more of a long one than its columns need."""
    end = data.find(b"\n", _HEAD)
    return data if end < 0 else data[: end + 1]


def _of_lines(data: bytes, name: str) -> Records:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    text, codec = decoded(data)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DataError(f"'{name}' line {number} is not JSON ({error}). Each line is one object.") from None
        if not isinstance(row, dict):
            raise DataError(f'\'{name}\' line {number} is no JSON object, as {{"path": ..., "label": ...}}.')
        rows.append(row)
        numbers.append(number)
    if not rows:
        raise DataError(f'\'{name}\' has no rows. Write a line for each image, as {{"path": ..., "label": ...}}.')
    columns = list(dict.fromkeys(key for row in rows for key in row))
    notes = (f"'{name}' is not UTF-8: its encoding was taken for {codec}.",) if codec else ()
    return Records(name, columns, lambda column: [row.get(column) for row in rows], "line", numbers, notes=notes)


def _of_json(data: bytes, name: str) -> Records:
    """A list of objects, a row each; or an object of images, each with its labels or with an object of them."""
    text, codec = decoded(data)
    try:
        held = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"'{name}' is not JSON ({error}).") from None
    more: tuple[str, ...] = ()
    if isinstance(held, dict) and {*held} <= {"classes", "labels"} and isinstance(held.get("labels"), dict):
        whole = held["labels"]
        held = [{"path": path, "label": said} for path, cell in whole.items() if (said := _of_fiftyone(cell, held))]
        lost = number_of(len(whole) - len(held), "image")
        more = (
            (f"{lost} of '{name}' without a label {'is' if len(whole) - len(held) == 1 else 'are'} left out.",)
            if len(held) < len(whole)
            else ()
        )
    elif isinstance(held, dict):
        held = [{"path": path, **(said if isinstance(said, dict) else {"labels": said})} for path, said in held.items()]
    if not isinstance(held, list) or not held or not all(isinstance(row, dict) for row in held):
        raise DataError(f'\'{name}\' is no list of objects, as {{"path": ..., "labels": [...]}}.')
    columns = list(dict.fromkeys(key for row in held for key in row))
    notes = (f"'{name}' is not UTF-8: its encoding was taken for {codec}.",) if codec else ()
    numbers = range(1, len(held) + 1)
    return Records(
        name, columns, lambda column: [row.get(column) for row in held], "record", numbers, notes=(*notes, *more)
    )


def _of_fiftyone(cell: object, held: dict[str, Any]) -> object:
    """What FiftyOne says of an image: a name, a number of its `classes`, an object with a label, or a list of these."""
    if isinstance(cell, list):
        return [_of_fiftyone(one, held) for one in cell]
    value = cell.get("label") if isinstance(cell, dict) else cell
    names = held.get("classes")
    if isinstance(value, int) and isinstance(names, list) and 0 <= value < len(names):
        return names[value]
    return value if isinstance(value, str) or value is None else str(value)


def _of_arrow(tree: Tree, file: str, name: str) -> Records:
    store = tree.store
    source: Any = os.path.join(store.root, file) if isinstance(store, FolderStore) else io.BytesIO(store.read(file))
    table = ArrowFile(source, file, name)
    held = _held(table)
    more: dict[str, Any] = {}
    if held:
        if isinstance(store, ZipStore):
            raise DataError(f"'{name}' holds images and lies in a zip, where its rows cannot be read apart. Unzip it.")
        if not isinstance(store, FolderStore):
            raise DataError(f"'{name}' holds its images, and shards are made of files. Train on the table itself.")
        shown = table.values(held, "path") if "path" in table.fields(held) else [None] * table.rows
        more = {"held": held, "shard": Shard(os.path.join(os.path.abspath(store.root), file), held, table.starts)}
        more["notes"] = tuple(filter(None, (table.note(held),)))
        more["paths"] = [_place(file, row, path) for row, path in enumerate(shown)]
    return Records(name, table.columns, table.values, "row", range(1, table.rows + 1), features=table.features, **more)


def _place(file: str, row: int, path: object) -> str:
    """What an image in a row is called."""
    last = printable(str(path)).replace("\\", "/").rsplit("/", 1)[-1][-_FILES:] if path else ""
    return f"{file}/{row}-{last}" if last else f"{file}/{row}"  # one folder for them all: `Names` keeps few of those


def _held(table: ArrowFile) -> str:
    """The column of images, '' for none. Raises DataError where two could be meant."""
    sure = [name for name in table.columns if _shows(table, name)]
    able = sure or [name for name in table.columns if table.holds(name, "binary")]
    usual = [name for word in _HELD for name in able if name.lower() == word]
    if len(sure) > 1 and usual:
        other = next(name for name in sure if name != usual[0])
        raise DataError(
            f"'{table.name}' has images in two columns, '{usual[0]}' and '{other}', as data for segmentation have; those "
            "are not read from a table. Save them as files, in images/ and masks/ with the same names."
        )
    if not usual and len(able) > 1:
        raise DataError(
            f"'{table.name}' has images in columns '{able[0]}' and '{able[1]}'. Call the one that is meant 'image'."
        )
    return (usual or able or [""])[0]


def _shows(table: ArrowFile, column: str) -> bool:
    """Whether a column surely holds images: by what the `datasets` library noted, or as its struct of bytes and path."""
    feature = table.features.get(column)
    kind = feature.get("_type") if isinstance(feature, dict) else None
    return kind == "Image" or (kind is None and "bytes" in table.fields(column))
