"""The columns of a table that a person names, and how columns are shown in messages."""

import re
from collections.abc import Iterable, Sequence

from convnext.data.source import NamedColumns
from convnext.errors import DataError, nearest

MOST_SHOWN, _LETTERS = 40, 60  # columns in a message, and letters of one


def named_column(which: str, named: NamedColumns, names: Sequence[str], name: str) -> str:
    """The column that a person names as `which`, 'label', 'path' or 'group', as it is written; '' where they name none.

    Raises DataError where the table does not have it.
    """
    wanted: str = getattr(named, which)
    if not wanted:
        return ""
    word = wanted.strip().lower()
    found = next((column for column in names if column == wanted), "")
    found = found or next((column for column in names if column.strip().lower() == word), "")
    if not found and not named.kept:
        raise DataError(
            f"'{name}' has no column '{wanted}' (--{which}-column).{nearest(word, names[:MOST_SHOWN])} It has "
            f"{shown_columns(names)}."
        )
    return found


def others(names: Iterable[str], column: str) -> list[str]:
    """The columns but one, whatever its case."""
    return [name for name in names if not column or name.strip().lower() != column.strip().lower()]


def other_than_path(name: str) -> str:
    """What a column is called in a table whose path is in another column."""
    return "other path" if name.strip().lower() == "path" else name


def has_columns(names: Iterable[str], named: NamedColumns) -> bool:
    """Whether a table with the columns `names` has all that a person names."""
    known = {name.strip().lower() for name in names}
    return all(word.strip().lower() in known for word in named.given.values())


def shown_columns(names: Sequence[str]) -> str:
    """The columns of a table in a message: not all of very many, and not all of a long one."""
    shown = ", ".join(name if len(name) <= _LETTERS else f"{name[:_LETTERS]}..." for name in names[:MOST_SHOWN])
    return f"{shown} and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else shown


def quoted(name: str) -> str:
    """A name as a shell takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"
