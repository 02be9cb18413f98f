"""Blocks of code as a page has room for them: a terminal is wider than a column of text.

A comment behind a command that is too long stands above it, and a table that a command prints scrolls, where other text wraps.
"""

import re
from pathlib import Path

WIDEST = 78  # letters of a line of code that a page shows without wrapping it
_BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BEHIND = re.compile(r"^(\S.*?)\s{2,}(# .*)$|^(\S.*?) (# .*)$")
_COLUMNS = re.compile(r"\S {3,}\S.*\S {2,}\S")


def fit(out: Path) -> None:
    """Rewrite the blocks of every page in the folder `out`."""
    for page in sorted(out.rglob("*.md")):
        text = page.read_text("utf-8")
        page.write_text(_BLOCK.sub(_fitted, text), "utf-8")


def _fitted(found: re.Match[str]) -> str:
    kind, lines = found[1], found[2].splitlines()
    if kind == "bash" and any(len(line) > WIDEST and _BEHIND.match(line) for line in lines):
        lines = [part for line in lines for part in _apart(line)]
    if kind == "text" and sum(len(line) > WIDEST and bool(_COLUMNS.search(line)) for line in lines) > 2:
        return "``` { .text .columns }\n" + "".join(f"{line}\n" for line in lines) + "```"
    return f"```{kind}\n" + "".join(f"{line}\n" for line in lines) + "```"


def _apart(line: str) -> list[str]:
    """The comment of a command, then the command."""
    found = _BEHIND.match(line)
    if not found:
        return [line]
    return [found[2] or found[4], found[1] or found[3]]
