"""Markup that is safe by construction: plain text is escaped wherever it meets a tag, only `Html` passes as it is."""

import re
from html import escape

_VOID = {"meta", "img", "br"}  # elements without an end tag
# Control characters, which HTML forbids, and direction overrides, which let a file name pass for another.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """One element; `class_` is class, other underscores become hyphens, an attribute of None is left out."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{text(value)}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening) if name in _VOID else Html(f"{opening}{join(inside)}</{name}>")


def join(parts: object) -> Html:
    """Parts one after the other; those that are not markup are escaped, None is nothing, a list is its own parts."""
    if parts is None:
        return Html("")
    if isinstance(parts, Html):
        return parts
    if isinstance(parts, list | tuple):
        return Html("".join(join(part) for part in parts))
    return text(parts)


def text(value: object) -> Html:
    """`value` as escaped text, fit for elements and attributes."""
    return Html(escape(clean(str(value)), quote=True))


def clean(value: str) -> str:
    r"""`value` as UTF-8 can hold it: bytes of a file name that are not UTF-8 become \xNN, unseen characters a mark."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a half pair that no file name brought here
        data = value.encode("utf-8", "backslashreplace")
    return _UNSEEN.sub("\ufffd", data.decode("utf-8", "backslashreplace"))


def table(
    head: list[object], rows: list[list[object]], *, text_columns: set[int] | None = None, class_: str = ""
) -> Html:
    """A table whose columns are numbers, right-aligned, but for those in `text_columns` (the first one if not given)."""
    text_columns = {0} if text_columns is None else text_columns

    def line(kind: str, cells: list[object]) -> Html:
        return tag(
            "tr", [tag(kind, cell, class_=None if i in text_columns else "number") for i, cell in enumerate(cells)]
        )

    top = tag("thead", line("th", head)) if head else None
    body = tag("table", top, tag("tbody", [line("td", row) for row in rows]), class_=class_ or None)
    return tag("div", body, class_="scroll")
