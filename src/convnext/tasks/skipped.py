"""Images that broke: each is named once, and all are counted at the end."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from convnext.data.store import printable
from convnext.engine.records import warn
from convnext.errors import number_of

_NAMED: ContextVar[set[str] | None] = ContextVar("named", default=None)  # paths, while `named_once` is on


@contextmanager
def named_once(known: Iterable[str]) -> Iterator[None]:
    """Inside, an image that broke is logged once, however many passes meet it, and not at all where it is `known`."""
    before = _NAMED.set(set(known))
    try:
        yield
    finally:
        _NAMED.reset(before)


def note_skipped(broken: Iterable[tuple[str, str]], skipped: dict[str, str]) -> None:
    """Log each of the `broken` images, (path, reason), once, and keep it with its reason."""
    named = _NAMED.get()
    for path, reason in broken:
        if path in skipped:
            continue
        skipped[path] = reason
        if named is None or path not in named:
            warn(f"Skipped '{printable(path)}': {reason}")
        if named is not None:
            named.add(path)


def say_skipped(skipped: Mapping[str, str], out: Path) -> None:
    """How many images, path -> reason, the run in `out` had to do without; nothing where it had them all."""
    if skipped:
        were = "was left out; it is" if len(skipped) == 1 else "were left out; they are"
        warn(f"{number_of(len(skipped), 'image')} could not be read and {were} listed in '{out / 'data.json'}'.")
