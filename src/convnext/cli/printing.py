"""What the verbs print, on stdout: names in it can neither act on a terminal nor forge a line."""

from collections.abc import Iterable
from typing import Any

from convnext.errors import on_lines, on_one_line
from convnext.files import to_json


def show(text: str | Iterable[str]) -> None:
    """Print a text of several lines, or lines of which each is one, whatever the names in it hold."""
    print(on_lines(text) if isinstance(text, str) else "\n".join(map(on_one_line, text)), flush=True)


def show_json(value: Any) -> None:
    """Print a result for programs, on one line."""
    print(to_json(value), flush=True)
