"""Images that broke: each is named once, and all are counted at the end."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from convnext.data.store import printable
from convnext.engine.records import warn
from convnext.errors import number_of


def note_skipped(broken: Iterable[tuple[str, str]], skipped: dict[str, str]) -> None:
    """Log each of the `broken` images, (path, reason), once, and keep it with its reason."""
    for path, reason in broken:
        if path not in skipped:
            skipped[path] = reason
            warn(f"Skipped '{printable(path)}': {reason}")


def say_skipped(skipped: Mapping[str, str], out: Path) -> None:
    """How many images, path -> reason, the run in `out` had to do without; nothing where it had them all."""
    if skipped:
        were = "was left out; it is" if len(skipped) == 1 else "were left out; they are"
        warn(f"{number_of(len(skipped), 'image')} could not be read and {were} listed in '{out / 'data.json'}'.")
