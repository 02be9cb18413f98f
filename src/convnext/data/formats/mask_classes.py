"""From the values of masks to classes: names from files, known sets of numbers, or what the values look like."""

from collections.abc import Sequence
from typing import NamedTuple

from convnext.data.formats.mask_values import Held
from convnext.data.sample import IGNORE
from convnext.errors import DataError

BINARY = 2  # classes, up to which 0 and 255 may be meant
_SPARSE = 4  # times as many numbers as values that occur
_LEAST_SPARSE = 16  # numbers, below which those that do not occur are classes without pixels
_MIDDLE = 128  # of a smoothed edge between 0 and 255
_MANY_EDGES = 16  # values that are nowhere areas, beyond which masks were smoothed

CITYSCAPES = (  # the 19 classes that count, in the order of their train ids, with their own ids (Cordts et al. 2016)
    ("road", 7), ("sidewalk", 8), ("building", 11), ("wall", 12), ("fence", 13), ("pole", 17), ("traffic light", 19),
    ("traffic sign", 20), ("vegetation", 21), ("terrain", 22), ("sky", 23), ("person", 24), ("rider", 25), ("car", 26),
    ("truck", 27), ("bus", 28), ("train", 31), ("motorcycle", 32), ("bicycle", 33),
)  # fmt: skip

VOC = (  # the classes of Pascal VOC 2007 to 2012 in the order of its masks' numbers, from 1 (Everingham et al. 2010)
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Coding(NamedTuple):
    """How the pixels of masks become labels."""

    classes: tuple[str, ...]
    values: tuple[int, ...]  # the label of each value 0 to 255; IGNORE: not counted
    ignored: frozenset[int]  # values that are meant not to count
    colours: tuple[int, ...] = ()  # whose places are the values
    notes: tuple[str, ...] = ()


def of_cityscapes(masks: Sequence[str]) -> Coding | None:
    """The 19 classes of Cityscapes where the names of all masks say so: ..._labelIds.png or ..._labelTrainIds.png."""
    stems = [mask.rsplit(".", 1)[0] for mask in masks]
    names = tuple(name for name, _ in CITYSCAPES)
    if all(stem.endswith("_labelTrainIds") for stem in stems):
        values = [value if value < len(names) else IGNORE for value in range(256)]
        return Coding(names, tuple(values), frozenset({IGNORE}))
    if not all(stem.endswith("_labelIds") for stem in stems):
        return None
    place = {number: label for label, (_, number) in enumerate(CITYSCAPES)}
    void = frozenset({IGNORE, *(number for number in range(34) if number not in place)})
    note = "The masks hold the ids of Cityscapes: the 19 classes that its benchmark counts are kept."
    return Coding(names, tuple(place.get(value, IGNORE) for value in range(256)), void, (), (note,))


def of_voc(masks: Sequence[str], files: Sequence[str]) -> Coding | None:
    """The classes of Pascal VOC where this is that very data set: it has a list of images for each of them.

    Other data in folders of the same names keep their own classes.
    """
    lists = {file.rsplit("/", 1)[-1] for file in files if file.lower().rpartition("/")[0].endswith("imagesets/main")}
    inside = all("/segmentationclass/" in f"/{mask.lower()}" for mask in masks)
    if not inside or not all(f"{name}_train.txt" in lists for name in VOC):
        return None
    names = ("background", *VOC)
    values = tuple(value if value < len(names) else IGNORE for value in range(256))
    return Coding(names, values, frozenset({IGNORE}))


def names_by_value(text: str) -> list[str]:
    """The names in a table of pixel value and class, a number's own where it has none; [] for another table."""
    rows = [[cell.strip() for cell in line.split(",", 1)] for line in text.splitlines() if line.strip()]
    if len(rows) < BINARY or [cell.lower() for cell in rows[0]] != ["pixel value", "class"]:
        return []
    named = {int(row[0]): row[-1] for row in rows[1:] if row[0].isdecimal() and int(row[0]) < IGNORE}
    return [named.get(value, str(value)) for value in range(max(named, default=-1) + 1)]


def coding_of_values(
    names: tuple[str, ...] | None, ignore_index: int | None, reduce_zero: bool, seen: Held | None, name: str
) -> Coding:
    """Labels of masks that hold numbers. `seen`: what all masks hold, None where files say what the numbers are."""
    first = 1 if reduce_zero else 0
    ignored = frozenset({IGNORE, *({0} if first else ()), *({ignore_index} - {None})})
    notes: list[str] = []
    if seen is not None and ignore_index is None and not first and _is_binary(seen):
        return _binary(seen, names)
    numbers: Sequence[int] = range(first, first + len(names)) if names is not None else ()
    if names is None:
        assert seen is not None
        numbers = _numbers(seen, ignored, first, name, notes)
        names = tuple(map(str, numbers))
        notes.append("Classes have no names, only numbers: no classes.json or classes.txt was found.")
        if not names:
            raise DataError("the maps hold no class: every pixel is one that does not count.")
    if len(names) > IGNORE:
        raise DataError(f"{len(names)} classes are more than the {IGNORE} that a map of 8 bits can hold.")
    place = {number: label for label, number in enumerate(numbers)}
    values = tuple(IGNORE if value in ignored else place.get(value, IGNORE) for value in range(256))
    return Coding(names, values, frozenset(value for value in ignored if value is not None), (), tuple(notes))


def _is_binary(seen: Held) -> bool:
    return seen.seen == {0, IGNORE} or seen.soft


def _binary(seen: Held, names: tuple[str, ...] | None) -> Coding:
    """0 and 255, or nearer to one of them where edges were smoothed."""
    if names is None:
        names = ("background", "foreground")
    elif len(names) == 1:
        names = ("background", *names)
    note = "The maps hold 0 and 255 alone: taken for background and foreground."
    values: tuple[int, ...] = (0, *[IGNORE] * 254, 1)
    if seen.soft:
        note = (
            "The masks hold 0 and 255, and values between them only along edges: taken for background and foreground, "
            f"from {_MIDDLE} on for foreground."
        )
        values = (*[0] * _MIDDLE, *[1] * (256 - _MIDDLE))
    if names != ("background", "foreground"):
        note = note.replace("background and foreground", f"'{names[0]}' and '{names[1]}'").replace(
            "for foreground", f"for '{names[1]}'"
        )
    return Coding(names, values, frozenset(), (), (note,))


def _numbers(seen: Held, ignored: frozenset[int], first: int, name: str, notes: list[str]) -> Sequence[int]:
    """The values that are classes: all up to the highest, or those that occur where they lie far apart."""
    found = sorted(seen.seen - ignored)
    edges = seen.edges - ignored
    if len(edges) >= _MANY_EDGES and len(edges) > 2 * (len(found) - len(edges)):
        raise DataError(
            f"the masks of '{name}' hold {len(found)} values, {len(edges)} of them only along edges: they were resized "
            "with smoothing. Resize them with the nearest neighbour, or name the classes in a classes.txt: other "
            "values do not count then."
        )
    top = max(found, default=-1) + 1
    if top < max(_LEAST_SPARSE, _SPARSE * len(found)):
        return range(first, top)
    shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    notes.append(f"The masks hold {len(found)} values far apart ({shown}): each is a class, numbers between are none.")
    if IGNORE in seen.seen:
        notes.append(f"Pixels of {IGNORE} do not count.")
    return found
