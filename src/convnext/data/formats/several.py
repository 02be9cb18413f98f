"""Whether the images of a table have one label each or several, and what is then said of each class.

Several labels stand in one cell, with a separator; in a list; or in a column for each class, as 1 and 0.
Axes: N rows, K classes.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from convnext.data.formats.columns import BOXES, LABEL, PATH, PLURAL, SPLIT, Marks, Row
from convnext.data.labelled import UNKNOWN
from convnext.data.source import Labels
from convnext.data.store import printable
from convnext.errors import DataError, number_of

_SEPARATORS = (";", "|")
_LOOSE = {",": 1, " ": 2}  # separators that names may hold -> how many times as many cells as labels there must be
_MARK = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1),
    **dict.fromkeys(("0", "0.0", "false", "no"), 0),
    **dict.fromkeys(("-1", "-1.0"), -1),
    **dict.fromkeys(("", "nan", "none", "null", "na"), None),
}
_LEAST = 2  # columns of marks, without which a table of them is not known
_MOST = 2**32  # marks that a process can be asked to hold
_FEW, _WORDS = 5, 3  # classes and words of a name, from which on they may be sentences
_SHOWN = 6  # names in a line


def settled(rows: Sequence[Row], wish: Labels | None, *, plural: bool) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of one label each, none with marks, or of several, all with marks; and what was understood on the way.

    Rows of a test part without labels are left out: where images have several, a part without any.

    `wish`: what a person says, None for what the rows look like; `plural`: the label's column is called so.
    Raises DataError for a row without a label where there is one each, or with several where the wish is one.
    """
    rows = list(rows)
    sure = any(row.marks is not None for row in rows)
    cells = [row.label for row in rows if row.marks is None]
    separator = "" if wish == "single" else _separator(cells, wish == "multi", plural)
    if wish != "multi" and not sure and not separator:
        return _one_each(rows), _doubts(rows, plural) if wish is None else ()
    if not any(row.label or row.marks for row in rows if row.split == "test"):
        rows = [row for row in rows if row.split != "test"]
    marked = [row if row.marks else row._replace(marks=_pieces(row.label, separator)) for row in rows]
    _refuse_captions(marked)
    if wish != "multi" and (alone := _alone(marked)) is not None:
        said = "Every image has exactly one label, so that one label each is learnt. For several say --labels multi."
        return alone, () if wish else (said,)
    if wish == "single":
        many = next(row for row in marked if row.marks and len(row.marks.yes) != 1)
        raise DataError(
            f"'{printable(many.path)}' has {number_of(len(many.marks.yes if many.marks else ()), 'label')}, and one for each "
            "image is wanted (labels = single). Give it one, or train with --labels multi."
        )
    merged, notes = _merged(marked)
    if separator:
        shown = {" ": "spaces", ",": "commas"}.get(separator, f"'{separator}'")
        notes = (f"Labels are split at {shown}. If they are one name each, say --labels single.", *notes)
    return merged, notes


def marks_of(rows: Sequence[Row], called: Mapping[str, str]) -> tuple[tuple[str, ...], np.ndarray, int]:
    """(the classes, (N, K) int8 marks, the mark of a class that these rows do not know); `called`: name -> class.

    Raises DataError for more marks than memory has room for.
    """
    classes = tuple(sorted({*called.values()}))
    if len(rows) * len(classes) > _MOST:
        raise DataError(
            f"{len(rows):,} images with {len(classes):,} classes are too many marks. Leave rare classes out of the table."
        )
    number_of_class = {name: number for number, name in enumerate(classes)}
    place = {name: number_of_class[whole] for name, whole in called.items()}
    out = np.zeros((len(rows), len(classes)), np.int8)
    listed = [row.marks or Marks(()) for row in rows]
    for row, marks in enumerate(listed):
        if marks.no is not None:
            out[row] = UNKNOWN
            out[row, [place[name] for name in marks.no]] = 0
        out[row, [place[name] for name in marks.yes]] = 1
    return classes, out, UNKNOWN if any(marks.no is not None for marks in listed) else 0


def names_in(rows: Iterable[Row]) -> Iterable[str]:
    """Every class that rows with marks name."""
    for row in rows:
        if row.marks:
            yield from row.marks.yes
            yield from row.marks.no or ()


def in_columns(
    names: Sequence[str], values: Callable[[str], Sequence[Any]], *, least: int = _LEAST
) -> tuple[list[Marks], tuple[str, ...]] | None:
    """What columns of 1 and 0, one for each class, say of every row, and what was understood; None where there are none.

    `values`: column -> its values. An empty cell says nothing. -1 says no where it stands in place of 0, else nothing;
    and where no cell says no, an empty one does.
    """
    if not may_be_marked(names):
        return None
    about = {*PATH, *SPLIT}
    found: dict[str, list[int | None]] = {}
    other: list[str] = []
    for name in names:
        if name.strip().lower() in about or not name.strip():
            continue
        words = [_word(value) for value in values(name)]
        if all(word in _MARK for word in words) and any(_MARK[word] is not None for word in words):
            found[name] = [_MARK[word] for word in words]
        else:
            other.append(name)
    if len(found) < least:
        return None
    seen = {mark for column in found.values() for mark in column}
    meaning: dict[int | None, int] = {1: 1, 0: 0, -1: UNKNOWN if 0 in seen else 0, None: UNKNOWN}
    notes = [f"Columns {_some(list(found))} are taken for classes: 1 is yes, {'0' if 0 in seen else '-1'} no."]
    if not seen & {0, -1}:
        meaning[None] = 0
        notes = [f"Columns {_some(list(found))} are taken for classes: 1 is yes, an empty cell no."]
    elif None in seen or {0, -1} <= seen:
        what = " and ".join([*(["-1"] if {0, -1} <= seen else []), *(["an empty cell"] if None in seen else [])])
        notes[0] = f"{notes[0][:-1]}; {what} says nothing, and does not count."
    if other:
        plural = len(other) > 1
        left = f"{_some(other)} {'are' if plural else 'is'} left alone: {'they hold' if plural else 'it holds'}"
        notes.append(f"Column{'s' if plural else ''} {left} other values than 1 and 0.")
    columns = [(printable(name.strip()), [meaning[mark] for mark in column]) for name, column in found.items()]
    rows = [
        Marks(*(tuple(name for name, marks in columns if marks[row] == mark) for mark in (1, 0)))
        for row in range(len(columns[0][1]))
    ]
    return rows, tuple(notes)


def may_be_marked(names: Sequence[str]) -> bool:
    """Whether columns of these names may be an image and marks: no label is among them."""
    known = {name.strip().lower() for name in names}
    if not known & {*PATH} or known & {*LABEL, *PLURAL, *BOXES}:
        return False
    return len(known - {*PATH, *SPLIT}) > 0


def _one_each(rows: list[Row]) -> list[Row]:
    if lack := next((row.lack for row in rows if row.lack), ""):
        raise DataError(lack)
    return [row for row in rows if row.label]


def _separator(cells: Sequence[str], asked: bool, plural: bool) -> str:
    """What stands between the labels of a cell, '' where each is one label.

    A name may hold such a sign itself: then there are more pieces than names. Commas and spaces are taken where the column
    is called so, or a person says so.
    """
    for sign, share in {**dict.fromkeys(_SEPARATORS, 1), **_LOOSE}.items():
        loose = sign in _LOOSE
        if (loose and not (asked or plural)) or not any(sign in cell for cell in cells):
            continue
        whole = {cell for cell in cells if cell}
        pieces = {piece for cell in whole for piece in _pieces(cell, sign).yes}
        if (not loose and (asked or plural)) or share * len(pieces) <= len(whole):
            return sign
    return ""


def _doubts(rows: Sequence[Row], plural: bool) -> tuple[str, ...]:
    """A note where a name holds what may be a separator, and one where rows give an image several labels."""
    names = dict.fromkeys(row.label for row in rows)
    held = next((name for name in names if any(sign in name for sign in _SEPARATORS)), "")
    if not held and plural:  # 'car person', where others are 'car' alone
        pairs = ((name, sign) for name in names for sign in _LOOSE if sign in name)
        held = next((name for name, sign in pairs if any(piece in names for piece in _pieces(name, sign).yes)), "")
    first: dict[str, str] = {}
    torn = dict.fromkeys(row.path for row in rows if first.setdefault(row.path, row.label) != row.label)
    notes = [f"'{held}' is taken for the name of one class. For several say --labels multi."] if held else []
    if torn:
        many = f"{number_of(len(torn), 'image')} {'is' if len(torn) == 1 else 'are'} listed with several labels"
        notes.append(f"{many}: {_some([*torn])}. If that is meant, say --labels multi.")
    return tuple(notes)


def _pieces(cell: str, separator: str) -> Marks:
    pieces = cell.split(separator) if separator else [cell]
    return Marks(tuple(dict.fromkeys(piece.strip() for piece in pieces if piece.strip())))


def _alone(rows: Sequence[Row]) -> list[Row] | None:
    """The rows with one label each, where every image has exactly one and everything is known; else None."""
    every = {*names_in(rows)}
    for row in rows:
        known = row.marks and (row.marks.no is None or len(row.marks.no) + 1 == len(every))
        if not known or row.marks is None or len(row.marks.yes) != 1:
            return None
    return [row._replace(label=row.marks.yes[0], marks=None) for row in rows if row.marks]


def _merged(rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...]]:
    """Each image once: labels of several rows are put together, and where they contradict each other nothing is known."""
    found: dict[tuple[str, str], Row] = {}
    together, torn = dict[str, None](), dict[str, None]()
    for row in rows:
        known = found.setdefault((row.path, row.split), row)
        if known is row or known.marks == row.marks or known.marks is None or row.marks is None:
            continue
        first, second = known.marks, row.marks
        yes = tuple(dict.fromkeys((*first.yes, *second.yes)))
        if first.no is None or second.no is None:
            marks = Marks(yes)
        else:
            no = tuple(dict.fromkeys((*first.no, *second.no)))
            torn |= dict.fromkeys([row.path] if {*yes} & {*no} else [])
            marks = Marks(
                *(tuple(name for name in some if name not in others) for some, others in ((yes, no), (no, yes)))
            )
        together[row.path] = None
        found[row.path, row.split] = known._replace(marks=marks)
    notes = []
    if together:
        notes.append(
            f"{number_of(len(together), 'image')} in several rows with other labels, put together: {_some([*together])}."
        )
    if torn:
        notes.append(f"Where these rows contradict each other, nothing counts as known: {_some([*torn])}.")
    return list(found.values()), tuple(notes)


def _refuse_captions(rows: Sequence[Row]) -> None:
    """Raise DataError where what was taken for labels are sentences, nearly all different."""
    often = Counter(name for row in rows if row.marks and row.marks.no is None for name in row.marks.yes)
    once = [name for name, count in often.items() if count == 1]
    wordy = sum(len(name.split()) >= _WORDS for name in once)
    if len(often) > _FEW and 2 * len(once) > len(often) and 2 * wordy > len(once):
        raise DataError(
            f"the labels look like sentences: {len(once):,} of {len(often):,} occur once, as '{once[0][:40]}'. Give names of "
            "classes, with ';' between them."
        )


def _word(value: object) -> str:
    return "" if value is None else str(value).strip().lower()


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"'{re.sub(' +', ' ', printable(name.strip()))[:40]}'" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown
