"""The little of YAML that a YOLO data.yaml uses: `key: value`, lists in brackets or by dashes, and maps of numbers.

Not a YAML reader: what it does not know it leaves out, and the caller misses the key.
"""

import re
from collections.abc import Iterator

Value = str | list[str] | dict[str, str]

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0abtnvfre \"/\\N_])")
_SIGNS = dict(zip("0abtnvfreN_", "\0\a\b\t\n\v\f\r\x1b\x85\xa0", strict=True))
_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\[^\\]")  # in double quotes that is no YAML, and common


def read_yaml(text: str) -> dict[str, Value]:
    """Top-level keys with a text, a list of texts, or a map of texts below them."""
    found: dict[str, Value] = {}
    lines = [line for line in map(_without_comment, text.splitlines()) if line.strip() not in ("", "---", "...")]
    place = 0
    while place < len(lines):
        line, place = lines[place], place + 1
        key, colon, rest = line.partition(":")
        if not colon or line[0] in " \t-":
            continue
        rest = rest.strip()
        if rest[:1] in ("[", "{"):
            end, pieces = {"[": "]", "{": "}"}[rest[0]], [rest]
            while not pieces[-1].endswith(end) and place < len(lines):  # brackets may run over several lines
                pieces.append(lines[place].strip())
                place += 1
            found[_bare(key)] = _inline(" ".join(pieces))
        elif rest:
            found[_bare(key)] = _bare(rest)
        else:
            below = []
            while place < len(lines) and (lines[place][0] in " \t" or lines[place].startswith("- ")):
                below.append(lines[place].strip())
                place += 1
            found[_bare(key)] = _block(below)
    return found


def _block(lines: list[str]) -> Value:
    if all(line.startswith("-") for line in lines):
        return [_bare(line[1:]) for line in lines]
    return dict(_pair(line) for line in lines)


def _inline(text: str) -> Value:
    items = _split(text.strip()[1:-1])
    return [_bare(item) for item in items] if text[0] == "[" else dict(_pair(item) for item in items)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return _bare(key), _bare(value)


def _split(text: str) -> list[str]:
    """At commas that stand outside quotes."""
    items, quote, start = [], "", 0
    for place, character, _, escaped in _signs(text):
        if character in "'\"" and (not quote or quote == character) and not (quote == '"' and escaped):
            quote = "" if quote else character
        elif character == "," and not quote:
            items.append(text[start:place])
            start = place + 1
    return [item for item in (*items, text[start:]) if item.strip()]


def _without_comment(line: str) -> str:
    quote = ""
    for place, character, before, escaped in _signs(line):
        if (
            character in "'\""
            and (not quote or quote == character)
            and (quote or before in ":[{,-")
            and not (quote == '"' and escaped)
        ):
            quote = "" if quote else character
        elif character == "#" and not quote and (place == 0 or line[place - 1] in " \t"):
            return line[:place].rstrip()
    return line.rstrip()


def _bare(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        inside = text[1:-1]
        if text[0] == "'":
            return inside.replace("''", "'")
        return inside if _WINDOWS_PATH.match(inside) else _ESCAPE.sub(_sign, inside)
    return text


def _sign(escape: re.Match[str]) -> str:
    code = escape[1]
    if code[0] in "xuU":
        return chr(min(int(code[1:], 16), 0x10FFFF))
    return _SIGNS.get(code, code)


def _signs(text: str) -> Iterator[tuple[int, str, str, bool]]:
    """(place, character, the last before it that is no space, whether an odd number of backslashes stands before it)."""
    before, escaped = "", False
    for place, character in enumerate(text):
        yield place, character, before, escaped
        escaped = character == "\\" and not escaped
        before = before if character.isspace() else character
