"""Which files of a folder or zip are the tables of its images, and of which part: by their names, places and columns."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from convnext.data.arrow import ENDINGS
from convnext.data.codecs import image_suffixes
from convnext.data.formats.columns import BOXES, LABEL, labelled, not_read, objects_in, path_column
from convnext.data.formats.csv_table import header_of, marks_in_text
from convnext.data.formats.named_columns import has_columns, named_column
from convnext.data.formats.records import JSON, JSON_LINES, TEXT_TABLES, columns_at, is_label_json, records_at
from convnext.data.formats.several import in_columns, may_be_marked
from convnext.data.formats.shown import LOOKS, Shown
from convnext.data.formats.table import columns_in
from convnext.data.parts import PARTS, part_of, part_of_folder, part_of_name, wraps
from convnext.data.source import GUESSED, NamedColumns
from convnext.data.store import Tree, printable
from convnext.data.written import decoded
from convnext.errors import DataError
from convnext.extras import MissingPackage

TYPED = JSON_LINES | ENDINGS
TABLES = TEXT_TABLES | TYPED
_BESIDE = ("metadata", "_classes")  # beside images, as the `datasets` library and Roboflow call it
_TO_FILL_IN = "submission"  # in the name of Kaggle's table of made-up answers
_COLUMNS = 2  # at least: the image, and what is said of it
_SHOWN = 3  # tables in a note
_LOOKS = 10  # tables that explain why there are no classes
_CACHES = ("cache-", "tmp")  # of what was computed from the data


def tables_at(tree: Tree) -> list[str]:
    """The files at the top of a tree that may be tables."""
    top = [number for number, prefix in enumerate(tree.files.prefixes) if not prefix]
    files = tree.files.take(np.isin(tree.files.prefix, top) & tree.files.ending_in(TABLES | {JSON}))
    return [file for file in files if _ending(file) != JSON or _labels_images(tree, file)]


def tables_of(tree: Tree, named: NamedColumns = GUESSED) -> dict[str, str]:
    """The tables to read -> the part that their name says, and others like them -> '-'.

    Where a person names columns, those that have them.

    Those called metadata beside the images, else tables at the top, else Parquet and Arrow files wherever they are. Only
    those whose columns are an image and its label, beside class folders in these very words: others that lie beside the
    images are left alone, but for those that are all parts of the same images. One table says itself
    what is in it, as does one with a column `split`; of several, train.csv and test.csv are the parts.
    Raises DataError where the files belong to several data sets, or no table has the columns that are named.
    """
    if named and not named.kept:
        return _with_columns(tree, named)
    texts = not _in_classes(tree)
    about = {file: _columns(tree, file) for file in metadata_of(tree)}
    beside = [file for file, own in about.items() if labelled(own, texts=texts) or (texts and _marked(tree, file, own))]
    if beside:
        return {file: part_of(file) for file in beside}
    columns = _texts_at(tree)
    loose = not _in_classes(tree)
    found = [file for file, own in columns.items() if {"path", "label"} <= set(own) or (loose and labelled(own))]
    found = found or [file for file, own in columns.items() if loose and _marked(tree, file, own)]
    found = found or (naming(tree, columns) if loose or _in_pieces(tree) else _of_parts(tree, columns))
    if found:
        return _parted(found, [file for file in found if "split" in columns[file]])
    return shards_of(tree)


def _with_columns(tree: Tree, named: NamedColumns) -> dict[str, str]:
    """The tables with all columns that a person names."""
    beside = metadata_of(tree)
    about = {file: _columns(tree, file) for file in dict.fromkeys([*beside, *tables_at(tree)])}
    found = [file for file, columns in about.items() if has_columns(columns, named)]
    if found:
        inside = [file for file in found if file in beside]
        return {file: part_of(file) for file in inside} if inside else _parted(found, [])
    if not about:
        option = next(iter(named.given)).replace("_", "-")
        raise DataError(
            f"--{option} names a column of a table, and there is no table. Leave it out, or name the table."
        )
    first, columns = max(about.items(), key=lambda each: len(each[1]))
    for which in ("label", "path", "group"):
        named_column(which, named, columns, first)  # which says what is missing
    raise DataError(f"no table has all of {', '.join(map(repr, named.given.values()))}. Name the table.")


def passed_over(tree: Tree) -> tuple[str, ...]:
    """A note where tables at the top speak of the images whose folders say the classes."""
    found = naming(tree, _texts_at(tree))
    if not found:
        return ()
    shown = ", ".join(f"'{printable(file)}'" for file in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    names, it = ("name", "one") if len(found) > 1 else ("names", "it")
    return (
        f"{shown}{more} {names} images too: the folders say the classes. Give {it} in place of the folder to go by {it}.",
    )


def _texts_at(tree: Tree) -> dict[str, list[str]]:
    """The tables at the top that are text -> their columns."""
    files = (file for file in tables_at(tree) if _ending(file) not in ENDINGS and _TO_FILL_IN not in file.lower())
    return {file: _columns(tree, file) for file in files}


def unread(tree: Tree, name: str) -> str:
    """What the first table of a tree has that is not read from one, as a sentence with the way out; '' for nothing."""
    files = list(tree.files.take(tree.files.ending_in(TABLES - ENDINGS)))[:_LOOKS]
    return next(filter(None, (not_read(_columns(tree, file), f"{name}/{printable(file)}") for file in files)), "")


def metadata_of(tree: Tree) -> list[str]:
    """The tables that lie beside the images of their folder, called metadata or _classes."""
    files = tree.files.take(tree.files.ending_in(TABLES))
    return [file for file in files if os.path.splitext(file.rsplit("/", 1)[-1])[0].lower() in _BESIDE]


def shards_of(tree: Tree, *, annotated: bool = False) -> dict[str, str]:
    """Parquet and Arrow files with images and labels (or, `annotated`, objects) -> their part, '-' for one left out.

    Where the tree has images of its own such a file is one table among others: at the top, and with paths.
    Raises DataError where the files belong to several data sets, MissingPackage where nothing but them is there and
    pyarrow is not installed.
    """
    images = bool(tree.files.ending_in(image_suffixes()).any())
    files = list(tree.files.take(tree.files.ending_in(ENDINGS)))
    files = [file for file in files if not file.rsplit("/", 1)[-1].lower().startswith(_CACHES)]
    if images:
        files = [file for file in files if "/" not in file]
    try:
        files = [file for file in files if _is_shard(_columns(tree, file), annotated)] if images or annotated else files
    except MissingPackage:
        if not images:
            raise
        return {}
    if not files:
        return {}
    sets = Counter(_data_set(file) for file in files)
    if len(sets) > 1:
        first, second, *_ = (printable(folder) or "." for folder in sets)
        raise DataError(
            f"Parquet or Arrow files of several data sets lie in '{first}' and '{second}'. Name the folder of one of them."
        )
    parts = {file: part_of_name(file) or part_of(file) for file in files}
    known = any(parts.values())
    parts = {file: part if part or not known else "-" for file, part in parts.items()}
    tests = [file for file, part in parts.items() if part == "test"]
    if (
        tests
        and not annotated
        and (told := next((file for file, part in parts.items() if part in ("train", "val")), ""))
    ):
        common = set(_columns(tree, told))
        parts |= {
            file: "-" for file in tests if not _is_shard(own := _columns(tree, file), False) and not common <= {*own}
        }
    return parts


def _in_classes(tree: Tree) -> bool:
    """Whether images lie in folders whose names mean something, more than one."""
    images = np.unique(tree.files.prefix[tree.files.ending_in(image_suffixes())])
    within = [tree.files.prefixes[number].split("/")[:-1] for number in images.tolist()]
    return len({tuple(folder for folder in folders if not wraps(folder)) for folders in within} - {()}) > 1


def naming(tree: Tree, tables: Mapping[str, Sequence[str]]) -> list[str]:
    """Of tables at the top, file -> its columns, those that say something of the images, by what their cells are."""
    among, found = Shown(tree), []
    for file, columns in tables.items():
        if len(columns) < _COLUMNS or not_read(columns, file):
            continue
        try:
            names, values = columns_in(tree, file, LOOKS)
        except DataError:
            continue
        shows = path_column(names) or among.column(names, values)
        if shows and among.names(values(shows)):
            found.append(file)
    return found


def _of_parts(tree: Tree, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The tables beside class folders that say which of their images are the parts: train.csv and test.csv."""
    parts = {file: part for file in columns if (part := part_of_name(file))}
    if "train" not in parts.values() or len(set(parts.values())) < len(PARTS) - 1:
        return []
    found = naming(tree, {file: columns[file] for file in parts if labelled(columns[file])})
    return found if len(found) == len(parts) else []


def _in_pieces(tree: Tree) -> bool:
    """Whether the folders of images are pieces of one: part_1 and part_2."""
    images = np.unique(tree.files.prefix[tree.files.ending_in(image_suffixes())])
    names = {tree.files.prefixes[number].rstrip("/").rsplit("/", 1)[-1] for number in images.tolist()}
    stems = {re.sub(r"[\d_. -]+$", "", name) for name in names}
    return len(stems) == 1 and stems != {""} and names != stems


def _labels_images(tree: Tree, file: str) -> bool:
    """Whether a JSON is a table."""
    return file not in tree.once.passed_over and is_label_json(tree.once.read(file))


def _marked(tree: Tree, file: str, columns: list[str]) -> bool:
    """Whether a table has a column of 1 and 0 for each class."""
    if not may_be_marked(columns):
        return False
    try:
        if _ending(file) in TEXT_TABLES:
            return marks_in_text(decoded(tree.once.read(file))[0], file) is not None
        held = records_at(tree, file, file)
        return in_columns(held.columns, held.values) is not None
    except DataError:
        return False


def _data_set(file: str) -> str:
    """The folders of a file that are no parts: another set of the same images lies elsewhere."""
    return "/".join(folder for folder in file.split("/")[:-1] if not part_of_folder(folder))


def _columns(tree: Tree, file: str) -> list[str]:
    """The names of a table's columns in small letters."""
    if _ending(file) in TEXT_TABLES:
        return header_of(decoded(tree.once.read(file))[0])[0]
    return [name.strip().lower() for name in columns_at(tree, file)]


def _is_shard(columns: list[str], annotated: bool) -> bool:
    if annotated:
        return objects_in(columns) != ""
    return bool(set(columns) & set(LABEL)) and not set(columns) & BOXES


def _parted(tables: list[str], split: list[str]) -> dict[str, str]:
    if len(tables) < 2:
        return dict.fromkeys(tables, "")
    parts = {file: part_of_name(file) for file in tables}
    plain = [file for file in tables if not parts[file]]
    if not any(parts.values()) or (plain and plain[0] in split):
        chosen = plain[0]
        return {file: "" if file == chosen else "-" for file in tables}
    if plain and "train" not in parts.values():
        parts[plain[0]] = "train"
    return {file: part or "-" for file, part in parts.items()}


def _ending(file: str) -> str:
    return os.path.splitext(file)[1].lower()
