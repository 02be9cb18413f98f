"""What the columns of a table of images mean, whatever file it is in: the image, its class, its part, its objects."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from convnext.data.formats.mask_folders import MASK_WORDS
from convnext.data.formats.named_columns import MOST_SHOWN, named_column, quoted, shown_columns
from convnext.data.parts import PARTS, part_of_folder
from convnext.data.source import GUESSED, NamedColumns
from convnext.data.store import printable
from convnext.data.written import local_path
from convnext.errors import DataError, nearest

PATH = (
    "path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image_file", "image_name", "image",
    "img_path", "img", "picture", "photo", "jpg", "png", "url", "image_url", "uri", "image_id", "fname",
)  # fmt: skip
LABEL = ("label", "labels", "class", "class_name", "category", "target", "cls", "choice", "predictionstring")
PLURAL = ("labels", "tags", "classes", "categories", "choices")  # those that are no LABEL are taken where there is none
_SPLIT_BY = {
    "is_valid": ("train", "val"),
    "is_val": ("train", "val"),
    "is_test": ("train", "test"),
    "is_train": ("test", "train"),
}
SPLIT = ("split", "part", "subset", "partition", *_SPLIT_BY)
OBJECTS = ("objects", "annotations")
BOXES = frozenset({"bbox", "bboxes", "boxes", "box", "xmin", "x_min", "bbox_x", "x1"})
_MASKS = frozenset({*MASK_WORDS, "mask", "annotation", "segmentation", "segmentation_mask", "label_map"})
_LETTERS = 60  # of a cell in a message
_NO, _YES = ("0", "0.0", "false", "no"), ("1", "1.0", "true", "yes")
_PIXEL = re.compile(r"(pixel|px|p|x|f)?[_ ]?\d+(x\d+)?")  # a column of one pixel
_INDEX = re.compile(r"(unnamed: \d+|__index_level_\d+__)?")  # a column that pandas adds
_FRACTION = re.compile(r"[-+]?\d*\.\d*[1-9]\d*([eE][-+]?\d+)?|nan")
_TEXT = "text"  # a label where nothing else can be one and rows share it; else a caption


class Marks(NamedTuple):
    """What is said of an image that may have several classes: those it has, and those it has not."""

    yes: tuple[str, ...]
    no: tuple[str, ...] | None = None  # None: all others; of a class that is in neither nothing is known


class Row(NamedTuple):
    """One image of a table; `split` is 'train', 'val', 'test' or '', `label` '' where an image has none."""

    path: str
    label: str
    split: str
    marks: Marks | None = None  # where the table says for sure that an image may have several labels
    lack: str = ""  # why there must be a label, where there is none and images have one each
    group: str = ""  # what it has in common with others that stay in one part with it, '' for nothing


class Columns(NamedTuple):
    """Which column is what, as they are written; '' for none."""

    path: str
    label: str
    split: str
    notes: tuple[str, ...] = ()

    @property
    def plural(self) -> bool:
        """Whether the label's column is called as one of several labels is."""
        return self.label.strip().lower() in PLURAL


def columns_of(
    names: Sequence[str],
    name: str,
    *,
    path: str = "",
    labels: Iterable[str] = (),
    where: str = "",
    named: NamedColumns = GUESSED,
) -> Columns:
    """Which of the columns `names` is what. `name` is what messages call the table; `where` the names stand, for them too.

    `path`: known already, as a column of images is; `labels`: columns that are known to hold classes, for a table without
    any of the usual names; `named`: those that a person names. Raises DataError where a column is missing, or two could be
    meant.
    """
    known = {column.strip().lower(): column for column in reversed(names)}
    image = path or named_column("path", named, names, name) or _first(known, PATH)
    asked = named_column("label", named, names, name)
    label = asked or known.get("label", "")
    if not label:
        usual = ([known[word] for word in words if word in known and known[word] != image] for words in (LABEL, PLURAL))
        able = next(filter(None, usual), []) or list(labels)
        if len(able) > 1:
            raise DataError(
                f"'{name}' has columns {_listed(able)}, and any could be the label. Name the one that is meant: "
                f"--label-column {quoted(able[0])}."
            )
        label = able[0] if able else known.get(_TEXT, "")
    if (not image or not label or label not in (asked, known.get("label"))) and (reason := not_read(names, name)):
        raise DataError(reason)
    for wanted, found in (("path", image), ("label", label)):
        if not found:
            raise DataError(
                f"'{name}' has no column '{wanted}'{where} ({shown_columns(names)}).{nearest(wanted, names[:MOST_SHOWN])} "
                "It needs 'path' and 'label', and may have 'split'; --path-column and --label-column name others."
            )
    told = f"'{name}' has no column 'label': its column '{label}' was taken for that. --label-column names another."
    notes = () if asked or label.strip().lower() == "label" else (told,)
    return Columns(image, label, _first(known, SPLIT), notes)


def path_column(names: Iterable[str]) -> str:
    """The first column that is called as one of images is; '' for none."""
    return next((name for name in names if name.strip().lower() in PATH), "")


def classes_among(names: Sequence[str], values: Callable[[str], Sequence[Any]]) -> Iterator[str]:
    """The columns that can be the label of a table without any of the usual names: their values come again.

    Not those of one value, of fractions, or of lists.
    """
    for name in names:
        word = name.strip().lower()
        if word in {*PATH, *SPLIT, *BOXES} or _INDEX.fullmatch(word):
            continue
        cells = [cell for cell in values(name) if cell is not None and str(cell).strip()]
        if all(isinstance(cell, str | int | float) for cell in cells):
            texts = {str(cell).strip() for cell in cells}
            if 1 < len(texts) <= len(cells) // 2 and not any(map(_FRACTION.fullmatch, texts)):
                yield name


def with_names(columns: Columns, names: Sequence[str], values: Callable[[str], Sequence[Any]], name: str) -> Columns:
    """The same, of labels that are numbers with the names of these classes where another column has them."""
    word = columns.label.strip().lower()
    twins = {f"{word}_name", f"{word}name", f"{word}_names", "class_name", "classname", "label_name", "category_name"}
    for other in names:
        if other.strip().lower() not in twins - {word}:
            continue
        numbers, called = ([str(cell).strip() for cell in values(column)] for column in (columns.label, other))
        pairs = set(zip(numbers, called, strict=True))
        same = len(pairs) == len({number for number, _ in pairs}) == len({text for _, text in pairs})
        if same and all(number.isdecimal() and text and not text.isdecimal() for number, text in pairs):
            note = f"'{name}': its column '{other}' has the names of the classes that '{columns.label}' counts."
            return columns._replace(label=other, notes=(note,))
    return columns


def part_said(column: str, cell: str) -> str:
    """The part that a cell of a column of parts says, in the words of `row_of`; of is_valid and its like 1 and 0 say it."""
    parts = _SPLIT_BY.get(column.strip().lower())
    if parts is None:
        return cell
    return parts[0] if cell in _NO else parts[1] if cell in _YES else cell


def refuse_twice(names: Sequence[str], name: str) -> None:
    """Raise DataError where a column that is needed is there twice."""
    for column in ("path", "label", "split"):
        if names.count(column) > 1:
            raise DataError(f"'{name}' has two columns '{column}'. Remove one, or give it another name.")


def labelled(names: Sequence[str], *, texts: bool = False) -> bool:
    """Whether a table with these columns says which class an image has. `texts`: a column `text` may do so."""
    known = {name.strip().lower() for name in names}
    labels = (*LABEL, *PLURAL, *([_TEXT] if texts else []))
    return any(word in known for word in PATH) and any(word in known for word in labels) and not known & BOXES


def objects_in(names: Iterable[str]) -> str:
    """The column of objects, '' for none."""
    return _first({name.strip().lower(): name for name in names}, OBJECTS)


def row_of(
    path: str, label: str, split: str | None, where: str, part: str = "", *, marks: Marks | None = None, group: str = ""
) -> Row:
    """One row of texts; `split` None: there is no such column, and `part` is what the file's name says.

    An image of the test part may be without a label. Raises DataError where something is missing; `where` names the row.
    """
    found = part if split is None else part_of_folder(split)
    if not path:
        raise DataError(f"{where} has no path. Give it one or remove the line.")
    lack = f"{where} has no label. Give it one or remove the line." if not label and found != "test" else ""
    if split is not None and not found:
        raise DataError(
            f"{where}: split '{split[:_LETTERS]}' is not 'train', 'val' or 'test'.{nearest(split[:_LETTERS], PARTS)}"
        )
    path = local_path(path, where) if ":" in path else path
    return Row(path, printable(label), found, marks, "" if marks else lack, group)


def text_of(value: object, where: str, what: str, names: Sequence[str] = ()) -> str:
    """A value of a table as text, '' for none. `names`: of classes, for numbers that count them from 0, -1 for none.

    Raises DataError for several values, and for fractions: those are no classes.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
        if not names:
            return str(number)
        if not -1 <= number < len(names):
            raise DataError(f"{where}: {what} {number} is none of the {len(names)} classes that the file names.")
        return names[number] if number >= 0 else ""
    if isinstance(value, float):
        raise DataError(f"{where}: {what} {value:g} is a fraction. Classes are names or whole numbers.")
    kind = "several values" if isinstance(value, list | tuple | dict) else f"{type(value).__name__}"
    raise DataError(f"{where}: {what} is {kind}, and one name or number is read. Give each image one {what}.")


def marks_in(value: object, where: str, names: Sequence[str] = ()) -> Marks | None:
    """What a list of labels says; None for any other value. `names`: as of `text_of`. Raises what that raises."""
    if not isinstance(value, list | tuple):
        return None
    return Marks(tuple(dict.fromkeys(filter(None, (printable(text_of(one, where, "label", names)) for one in value)))))


def choices_in(cell: str) -> Marks | None:
    """The labels in a cell as Label Studio writes several, {"choices": [...]}; None for any other."""
    if not cell.startswith("{"):
        return None
    try:
        said = msgspec.json.decode(cell, type=dict[str, Any]).get("choices")
    except msgspec.MsgspecError:
        return None
    names = said if isinstance(said, list) else []
    return Marks(tuple(dict.fromkeys(name for name in names if isinstance(name, str)))) if names else None


def path_in(value: object, where: str) -> str:
    """The path that a value of a table says: a text, or a struct {'path', 'bytes'}."""
    if isinstance(value, Mapping):
        if value.get("bytes"):
            raise DataError(f"{where} holds its image as text. Save the images as files and name these.")
        value = value.get("path")
    if isinstance(value, list | tuple):
        raise DataError(
            f"{where} holds the pixels of its image as lists of numbers. Save the images as files and name these."
        )
    return text_of(value, where, "path")


def class_names(feature: Any) -> tuple[str, ...]:
    """The names that the `datasets` library noted for a column of numbers, or of lists of them; () for none."""
    if isinstance(feature, list) and len(feature) == 1:  # as it noted lists at first
        return class_names(feature[0])
    if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        return class_names(feature["feature"])
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def refuse_captions(rows: Sequence[Row], columns: Columns, name: str) -> None:
    """Raise DataError where the texts that were taken for labels are nearly all different."""
    if columns.label.strip().lower() == _TEXT and 2 * len({row.label for row in rows}) > len(rows):
        raise DataError(
            f"'{name}' has no column 'label', and its '{columns.label}' are captions: nearly every image has another. "
            "Add a column 'label'."
        )


def not_read(names: Iterable[str], name: str) -> str:
    """What a table has that is not read from one, and the way out; '' for nothing of the kind."""
    known = {column.strip().lower(): column for column in names}
    if boxed := _first(known, sorted(BOXES)):
        return (
            f"'{name}' has boxes (column '{boxed}'), which are not read from such a table. Write COCO JSON, or a column "
            "'objects' with bbox and categories."
        )
    pixels = [known[word] for word in known if _PIXEL.fullmatch(word)]
    if "pixels" in known or len(pixels) > MOST_SHOWN:
        return (
            f"'{name}' holds the pixels of its images as numbers (column '{known.get('pixels') or pixels[0]}'). Save them as "
            "PNG, into a folder for each class."
        )
    asked = (word for word in known if word not in LABEL)
    masks = [known[word] for word in asked if word.removesuffix("_file_name").removesuffix("_path") in _MASKS]
    if masks:
        return (
            f"'{name}' names a mask for each image (column '{masks[0]}'), which is not read from a table. Put the images "
            "into images/ and the masks, with the same names, into masks/."
        )
    return ""


def _first(known: Mapping[str, str], words: Iterable[str]) -> str:
    return next((known[word] for word in words if word in known), "")


def _listed(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:MOST_SHOWN]]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
