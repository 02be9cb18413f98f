"""Lists of images in plain texts, as published data sets have them: a line for each image, with its class or without.

Lists with classes: ImageNet's and Places' val.txt, Oxford-IIIT Pet, FGVC-Aircraft. Lists that say the parts of class folders:
Food-101, DTD, SUN397. Texts of their own kind: CUB-200-2011 and NABirds, which number the images, and CelebA.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convnext.data.formats.columns import Marks, Row
from convnext.data.formats.listing import Listing
from convnext.data.formats.mask_folders import MASK_WORDS
from convnext.data.formats.several import settled
from convnext.data.formats.shown import Shown
from convnext.data.formats.signatures import may_be_classes
from convnext.data.formats.table import listing_of_rows
from convnext.data.parts import part_of_name, wraps
from convnext.data.source import Labels
from convnext.data.store import Tree, printable
from convnext.data.written import decoded
from convnext.errors import DataError

_ENDINGS = frozenset({".txt", ".lst"})
_MANY = 200  # texts, from which on they lie beside images
_HALF = 0.5  # of the images that lists must name where folders may be classes
_PROBED, _MOSTLY = 20, 0.9  # lines that show whether a text is a list, and the share of them that names images
_BETWEEN = re.compile(r"[\s,;]+")
_PART = re.compile(r"train[_-]?val|train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?", re.IGNORECASE)
_NO_CLASSES = re.compile(r"box|bound|part|attribute|segment|landmark|pose", re.IGNORECASE)  # in the name of a text
_CLASS_NAMES = frozenset(
    {"classes", "class_names", "classnames", "classname", "labels", "categories", "synsets", "synset_words"}
)
_DIGIT = re.compile(r"\d")
_NAMED = re.compile(r"(\d+)[\s,:]+(.+)")
_IMAGES, _CLASSES, _SPLIT = "images.txt", "image_class_labels.txt", "train_test_split.txt"  # CUB-200-2011
_ATTRIBUTES, _PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"  # CelebA
_OF_PARTITION = {"0": "train", "1": "val", "2": "test"}
_NOWHERE = "images that no list names"


class Text(NamedTuple):
    """A list."""

    file: str
    rows: tuple[tuple[str, str], ...]  # (image of the tree, what else is in its line)
    lines: int  # also of those that were not looked at

    @property
    def labelled(self) -> bool:
        """Whether every line says more than its image."""
        return bool(self.rows) and all(rest for _, rest in self.rows)


def has_lists(tree: Tree) -> bool:
    """Whether texts say which classes images have, or which parts of class folders they are."""
    return bool(_chosen(tree, _PROBED)) or any(read(tree) for read in _KNOWN.values())


def listing_of_lists(tree: Tree, left_out: Mapping[str, int], labels: Labels | None) -> Listing:
    """Every image that the lists name. Raises DataError where they name none, or a class is missing."""
    known = next(((said, rows) for said, read in _KNOWN.items() if (rows := read(tree))), None)
    chosen = {} if known else _chosen(tree, None)
    rows = known[1] if known else list(_rows(tree, chosen))
    if not rows:
        raise DataError("the lists name no image that is there. Name the folder that holds the lists and the images.")
    kept, notes = settled(rows, labels, plural=False)
    lost = len(_shown(tree).images) - len({row.path for row in rows})
    others = {ending: count for ending, count in left_out.items() if ending not in _ENDINGS}
    others |= {_NOWHERE: lost} if lost > 0 else {}
    said = known[0] if known else _said(chosen)
    return listing_of_rows(kept, tree.store, others, (*tree.store.notes, said, *notes))


def _shown(tree: Tree) -> Shown:
    """The images, without those in folders of masks."""
    folders = (prefix.lower().split("/") for prefix in tree.files.prefixes)
    plain = np.array([not {*words} & {*MASK_WORDS, "trimaps"} for words in folders], bool)
    kept = tree.files.take(plain[tree.files.prefix])
    return Shown(tree._replace(files=kept) if len(kept) else tree)


def _said(chosen: Mapping[str, Text]) -> str:
    what = "classes" if any(text.labelled for text in chosen.values()) else "parts"
    shown = [f"'{printable(file)}'" for file in chosen]
    files = f"{', '.join(shown[:-1])} and {shown[-1]} say" if len(shown) > 1 else f"{shown[0]} says"
    return f"{files} the {what} of the images."


def _rows(tree: Tree, chosen: Mapping[str, Text]) -> Iterator[Row]:
    labelled = any(text.labelled for text in chosen.values())
    pairs = [(file, image, rest) for file, text in chosen.items() for image, rest in text.rows]
    if not labelled:
        called = {(image, rest): _folder_class(image) for _, image, rest in pairs}
    else:
        known = {(image, rest): _label(rest) for _, image, rest in pairs if rest}
        names = _names(tree, known)
        called = {key: names.get(label, label) for key, label in known.items()}
    parts = {file: _part(file) for file in chosen}
    divided = len({*parts.values()}) > 1
    for file, image, rest in pairs:
        yield Row(image, printable(called.get((image, rest), "")), parts[file] if divided else "")


def _chosen(tree: Tree, most: int | None) -> dict[str, Text]:
    """file -> list, of those that go together; {} where there are none. `most`: lines that are looked at."""
    files = list(tree.files.take(tree.files.ending_in(_ENDINGS)))
    if not 0 < len(files) < _MANY:
        return {}
    among, groups = _shown(tree), defaultdict[tuple[str, str, str], dict[str, Text]](dict)
    for file in files:
        name = os.path.splitext(file.rsplit("/", 1)[-1])[0]
        if _NO_CLASSES.search(name) or name.lower() in _CLASS_NAMES:
            continue
        text = _read(tree, file, among, most)
        if text is None or not (text.labelled or all(_folder_class(image) for image, _ in text.rows)):
            continue
        bare = _PART.sub("", name).lower()
        number = "".join(filter(str.isdigit, bare))
        groups[file.rpartition("/")[0], bare.strip("0123456789_-. "), number][file] = text
    able = [found for group in groups.values() if (found := _parted(group))]
    found = max(able, key=_worth, default=dict[str, Text]())
    lines = sum(text.lines for text in found.values())
    return {} if may_be_classes(tree) and lines < _HALF * len(among.images) else found  # a few names are no list


def _parted(group: Mapping[str, Text]) -> dict[str, Text]:
    """The lists of a group that are all parts together, or the one that says classes; {} for no such."""
    parts = {file: _part(file) for file in group}
    twice = [file for file, part in parts.items() if part == "train" and re.search("train[_-]?val", file.lower())]
    if len({*parts.values()}) == 3 and list(parts.values()).count("train") > 1:  # train, val, and both together
        parts = {file: part for file, part in parts.items() if file not in twice}
    divided = "train" in parts.values() and len({*parts.values()} - {""}) > 1
    if divided:
        return {file: group[file] for file, part in parts.items() if part}
    sure = {file: text for file, text in group.items() if text.labelled}
    return dict(list(sure.items())[:1])


def _worth(found: Mapping[str, Text]) -> tuple[bool, bool, int, int]:
    """Of lists that could be meant: those with parts, with classes, with the most of these, with the most images."""
    rows = [row for text in found.values() for row in text.rows]
    labelled = any(text.labelled for text in found.values())
    return len(found) > 1, labelled, len({_label(rest) for _, rest in rows}), len(rows)


def _part(file: str) -> str:
    name = file.rsplit("/", 1)[-1]
    return "train" if re.search("train[_-]?val", name.lower()) else part_of_name(name)


def _read(tree: Tree, file: str, among: Shown, most: int | None) -> Text | None:
    """A text as a list; None where most of its lines name no image."""
    lines = [line.strip() for line in decoded(tree.once.read(file))[0].lstrip("\ufeff").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        return None
    some, part = lines[:: max(1, len(lines) // _PROBED)], _part(file)
    numbered = sum(bool(_DIGIT.search(_first(line)[0])) for line in some)
    if numbered < _MOSTLY * len(some):  # so that not every text asks for all images by name
        return None
    for apart in (_whole, _first):
        if sum(_image(among, apart(line)[0], part) is not None for line in some) < _MOSTLY * len(some):
            continue
        pairs = (apart(line) for line in lines[:most])
        found = tuple((image, rest) for word, rest in pairs if (image := _image(among, word, part)))
        return Text(file, found, len(lines))
    return None


def _whole(line: str) -> tuple[str, str]:
    return line, ""


def _first(line: str) -> tuple[str, str]:
    word, *rest = _BETWEEN.split(line, maxsplit=1)
    return word, rest[0].strip() if rest else ""


def _image(among: Shown, word: str, part: str) -> str | None:
    try:
        return among.find(word.lstrip("/"), part)
    except DataError:  # a name that no file can have
        return None


def _label(rest: str) -> str:
    """The class in what follows an image: the first of several numbers, else all of it."""
    words = rest.split()
    return words[0] if all(map(str.isdecimal, words)) and words else rest


def _folder_class(image: str) -> str:
    """The class that the folders of an image say: those that mean no part, nor images, nor the letter it begins with."""
    folders = [folder for folder in image.split("/")[:-1] if not wraps(folder)]
    letter = next((place for place, folder in enumerate(folders[:-1]) if len(folder) == 1), -1)
    return "/".join(folders[letter + 1 :])


def _names(tree: Tree, known: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """number -> the name of its class, by a text of names, else by the folders or the names of its images; {}: not known."""
    numbers = set(known.values())
    if not all(map(str.isdecimal, numbers)):
        return {}
    for file in tree.files.take(tree.files.ending_in(_ENDINGS)):
        if os.path.splitext(file.rsplit("/", 1)[-1])[0].lower() in _CLASS_NAMES:
            names = _numbered(decoded(tree.once.read(file))[0].splitlines(), numbers)
            if names:
                return names
    for word in (_folder_class, _stem):
        pairs = {(label, word(image)) for (image, _), label in known.items()}
        if all(name for _, name in pairs) and len(pairs) == len(numbers) == len({name for _, name in pairs}):
            return dict(pairs)
    return {}


def _numbered(lines: Sequence[str], numbers: set[str]) -> dict[str, str]:
    """number -> name as the lines have it, or by their order, from 0 or from 1; {} where they do not have all."""
    lines = [line.strip() for line in lines if line.strip()]
    pairs = [found for line in lines if (found := _NAMED.fullmatch(line))]
    if len(pairs) == len(lines):
        names = {number: name for number, name in (pair.groups() for pair in pairs)}
    else:
        first = 1 if "0" not in numbers and str(len(lines)) in numbers else 0
        names = {str(place): name for place, name in enumerate(lines, first)}
    return names if numbers <= set(names) and len({*names.values()}) == len(names) else {}


def _stem(image: str) -> str:
    return re.sub(r"[_-]?\d+$", "", os.path.splitext(image.rsplit("/", 1)[-1])[0])


def _by_number(tree: Tree) -> list[Row] | None:
    """The rows of CUB-200-2011's texts, which give each image a number; None where there are none."""
    texts = tree.files.take(tree.files.ending_in({".txt"}))
    folder = next((file[: -len(_CLASSES)] for file in texts if file.rsplit("/", 1)[-1] == _CLASSES), None)
    if folder is None or f"{folder}{_IMAGES}" not in tree.files:
        return None
    images, classes = (_table(tree, f"{folder}{name}") for name in (_IMAGES, _CLASSES))
    held = _table(tree, f"{folder}{_SPLIT}") if f"{folder}{_SPLIT}" in tree.files else {}
    among = _shown(tree)
    found = {number: image for number, path in images.items() if (image := _image(among, path, ""))}
    names = _names(tree, {(image, number): classes.get(number, "") for number, image in found.items()})
    parts = {"1": "train", "0": "test"}
    return [
        Row(image, printable(names.get(label, label)), parts.get(held.get(number, ""), ""))
        for number, image in found.items()
        if (label := classes.get(number))
    ]


def _table(tree: Tree, file: str) -> dict[str, str]:
    """The first word of each line -> the rest."""
    lines = (line.strip().split(maxsplit=1) for line in decoded(tree.once.read(file))[0].splitlines())
    return {words[0]: words[1] for words in lines if len(words) > 1}


def _attributes(tree: Tree) -> list[Row] | None:
    """The rows of CelebA's texts: a line with the names of the attributes, and 1 or -1 of each for an image."""
    texts = tree.files.take(tree.files.ending_in({".txt"}))
    file = next((file for file in texts if file.rsplit("/", 1)[-1] == _ATTRIBUTES), None)
    if file is None:
        return None
    lines = decoded(tree.once.read(file))[0].splitlines()
    names, among = tuple(map(printable, lines[1].split())) if len(lines) > 1 else (), _shown(tree)
    folder = file[: -len(_ATTRIBUTES)]
    held = _table(tree, f"{folder}{_PARTITION}") if f"{folder}{_PARTITION}" in tree.files else {}
    rows = []
    for line in lines[2:]:
        word, *marks = line.split() or [""]
        if len(marks) == len(names) and (image := _image(among, word, "")):
            has = tuple(name for name, mark in zip(names, marks, strict=True) if mark == "1")
            rows.append(Row(image, "", _OF_PARTITION.get(held.get(word, "").strip(), ""), Marks(has)))
    return rows


_KNOWN: dict[str, Callable[[Tree], list[Row] | None]] = {  # what is said of them -> how they are read
    f"'{_IMAGES}' and '{_CLASSES}' say the classes of the images.": _by_number,
    f"'{_ATTRIBUTES}' says the classes of the images.": _attributes,
}
