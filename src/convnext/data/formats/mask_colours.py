"""Legends: which class a colour means, from the files that tools write and people make, or proposed from the masks."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from convnext.data.colours import colour_text
from convnext.data.problems import whole, whole_of_text
from convnext.data.sample import IGNORE
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

LEGENDS = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "labels_class_dict.csv", "colormap.txt")
NOT_COUNTED = frozenset({"void", "ignore", "ignored", "__ignore__", "unlabeled", "unlabelled"})
_NAME_FIRST = re.compile(r"^(.*?)[,;:=\s]+(\d{1,3})[,;\s]+(\d{1,3})[,;\s]+(\d{1,3})\s*(?::.*)?$")
_NAME_LAST = re.compile(r"^(\d{1,3})[,;\s]+(\d{1,3})[,;\s]+(\d{1,3})[,;:=\s]+(\S.*)$")
_HEX_FIRST = re.compile(r"^#([0-9a-fA-F]{6})[,;:=\s]+(\S.*)$")
_HEX_LAST = re.compile(r"^(.*?)[,;:=\s]+#([0-9a-fA-F]{6})$")
_LONGEST = 1000  # letters of a line that are looked at
_VOC_BORDER = 224 << 16 | 224 << 8 | 192


class Legend(NamedTuple):
    """Colours and the class of each; two colours may mean one class."""

    colours: tuple[int, ...]
    names: tuple[str, ...]


def read_legend(text: str, name: str) -> Legend:
    """Lines of a class and its colour, in either order, or JSON. Raises DataError with what is wrong."""
    if text.lstrip().startswith(("{", "[")):
        try:
            found = _of_json(json_in(text.encode("utf-8", "surrogateescape")))
        except DataError as error:
            raise DataError(f"'{name}' cannot be read: {error}.") from None
        if found is None:
            raise DataError(f"'{name}' has no classes with colours, as {{\"cat\": [255, 0, 0]}}.")
        return found
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        pair = _of_line(line.strip()[:_LONGEST])
        if pair is not None:
            pairs.append(pair)
        elif line.strip() and not line.lstrip().startswith("#") and number > 1:
            raise DataError(f"line {number} of '{name}' is no class with its colour, as 'cat:255,0,0'.")
    return _legend(pairs, name)


def legend_of(tree: Tree) -> Legend | None:
    """What a file beside the masks says."""
    tables = {file.rsplit("/", 1)[-1].lower(): file for file in reversed(tree.files)}
    for known in LEGENDS:
        if known in tables:
            return read_legend(_text(tree.once.read(tables[known])), printable(tables[known]))
    if "classes.json" in tables:
        try:
            return _of_json(json_in(tree.once.read(tables["classes.json"])))
        except DataError:
            return None
    return None


def voc_legend(names: tuple[str, ...]) -> Legend:
    """Colours of Pascal VOC's palette for classes in this order, as labelme paints them."""
    colours = []
    for number in range(len(names)):
        channels = [0, 0, 0]
        for bit in range(24):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colours.append(channels[0] << 16 | channels[1] << 8 | channels[2])
    return Legend((*colours, _VOC_BORDER), (*names, "void"))


def labelled(legend: Legend) -> tuple[tuple[str, ...], tuple[int, ...], frozenset[int]]:
    """(class names, label of each value, values that are meant not to count); a value is a place in the colours."""
    names = tuple(dict.fromkeys(name for name in legend.names if name.lower() not in NOT_COUNTED))
    if not names:
        raise DataError("the legend of colours names no class that counts.")
    place = {name: number for number, name in enumerate(names)}
    values = [place.get(name, IGNORE) for name in legend.names]
    ignored = {number for number, label in enumerate(values) if label == IGNORE}
    return names, tuple(values + [IGNORE] * (256 - len(values))), frozenset(ignored | {IGNORE})


def proposal(colours: Counter[int]) -> str:
    """A legend of the colours that masks show, for a person to put names into."""
    order = sorted(colours, key=lambda colour: (colour != 0, -colours[colour], colour))
    total = sum(colours.values())
    lines = ["# class:red,green,blue   Put the right names in; 'void' does not count."]
    number = 0
    for colour in order:
        number += colour != 0
        lines += [
            f"# {colours[colour] / total:.1%} of the pixels",
            f"{f'class {number}' if colour else 'background'}:{colour_text(colour)}",
        ]
    return "\n".join(lines) + "\n"


def legend_at(path: str | Path, look: Callable[[], Counter[int]], name: str) -> Legend:
    """The legend in a file that the user names; where there is none, a proposal is written there, and refused with it."""
    file = Path(path)
    try:
        return read_legend(_text(file.read_bytes()), printable(str(path)))
    except FileNotFoundError:
        colours = look()
        require_few(colours, name)
    except OSError as error:
        raise DataError(f"'{printable(str(path))}' cannot be read: {error.strerror}.") from None
    try:
        file.write_text(proposal(colours), encoding="utf-8")
    except OSError as error:
        raise DataError(f"'{printable(str(path))}' cannot be written: {error.strerror}.") from None
    raise DataError(
        f"'{printable(str(path))}' was not there and now lists the {len(colours)} colours of the masks of '{name}'. "
        "Put the names of the classes in, and run this again."
    )


def require_few(colours: Counter[int], name: str) -> None:
    """Raise DataError where there are more colours than classes can be."""
    if len(colours) >= IGNORE:
        raise DataError(
            f"the masks of '{name}' show {len(colours):,} colours, more than the {IGNORE - 1} classes that can be told "
            "apart: they were resized with smoothing or saved as JPEG. Save them anew, without."
        )


def _of_line(line: str) -> tuple[str, int] | None:
    if found := _HEX_FIRST.match(line):
        return found[2].strip(" \"'"), int(found[1], 16)
    if line.startswith("#"):
        return None
    if found := _HEX_LAST.match(line):
        return found[1].strip(" \"'"), int(found[2], 16)
    if (found := _NAME_FIRST.match(line)) and found[1].strip():
        return found[1].strip(" \"'"), _colour(found.group(2, 3, 4))
    if found := _NAME_LAST.match(line):
        return found[4].strip(" \"'"), _colour(found.group(1, 2, 3))
    return None


def _colour(channels: Any) -> int:
    if isinstance(channels, str):
        found = re.fullmatch(r"#?([0-9a-fA-F]{6})", channels.strip())
        channels = bytes.fromhex(found[1]) if found else ()
    given = [whole(each) if whole(each) is not None else whole_of_text(each) for each in channels or ()]
    numbers = [-1 if each is None else each for each in given]
    if len(numbers) < 3 or not all(0 <= number <= 255 for number in numbers):
        raise DataError(f"{str(channels)[:40]} is no colour: three numbers from 0 to 255, as 255,0,0.")
    return numbers[0] << 16 | numbers[1] << 8 | numbers[2]


def _of_json(content: Any) -> Legend | None:
    """{"cat": [255, 0, 0]}, [{"name": "cat", "color": "#ff0000"}] or {"classes": [...], "colors": [...]}."""
    if isinstance(content, dict):
        inside = content.get("classes", content)
        colours = content.get("colours", content.get("colors", content.get("palette")))
        if isinstance(inside, list) and isinstance(colours, list) and len(inside) == len(colours):
            return _legend([(str(name), _colour(colour)) for name, colour in zip(inside, colours, strict=True)], "")
        content = inside
    if isinstance(content, dict) and content and all(_is_colour(value) for value in content.values()):
        return _legend([(str(name), _colour(value)) for name, value in content.items()], "")
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        rows = [
            (row.get("name", row.get("title", row.get("label"))), row.get("color", row.get("colour")))
            for row in content
        ]
        if all(isinstance(name, str) and _is_colour(colour) for name, colour in rows):
            return _legend([(str(name), _colour(colour)) for name, colour in rows], "")
    return None


def _is_colour(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()) is not None
    return isinstance(value, list) and len(value) in (3, 4) and all(isinstance(each, int) for each in value)


def _legend(pairs: list[tuple[str, int]], name: str) -> Legend:
    named: dict[int, str] = {}
    for word, colour in pairs:
        if named.setdefault(colour, word) != word:
            raise DataError(
                f"the colour {colour_text(colour)} means '{printable(named[colour])}' and '{printable(word)}'."
            )
    if not named:
        raise DataError(f"'{name}' has no line of a class with its colour, as 'cat:255,0,0'.")
    if len(named) >= IGNORE:
        raise DataError(f"{len(named)} colours are more than the {IGNORE - 1} that can be told apart.")
    return Legend(tuple(named), tuple(printable(word) for word in named.values()))


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "surrogateescape")
