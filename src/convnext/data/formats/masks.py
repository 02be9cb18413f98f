"""Segmentation: images, and beside each a map of the same size whose pixels hold the number of a class.

Maps are lossless images, grey or with a palette; the numbers count, whatever their colours.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from convnext.data.annotated import AnnotatedImage
from convnext.data.dataset import DenseDataset
from convnext.data.decode import decode_indices, image_suffixes
from convnext.data.formats.files import is_image
from convnext.data.parts import part_of
from convnext.data.problems import MISSING, NO_MAP, Problem, whole
from convnext.data.sample import IGNORE
from convnext.data.source import Source
from convnext.data.store import Store, Tree, printable
from convnext.errors import DataError

_IMAGES = {"images", "image", "imgs", "img", "pictures", "jpegimages", "leftimg8bit"}
_MAPS = {
    "labels",
    "label",
    "masks",
    "mask",
    "annotations",
    "annotation",
    "annots",
    "segmentationclass",
    "gt",
    "semantic",
}
_MAP_FOLDER_ENDS = ("annot", "_labels", "_masks", "_annotations")  # train/ with trainannot/
_MAP_NAME_ENDS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L")
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_ADE = "objectInfo150.txt"  # its table of classes: tab-separated, the names last
_ADE_CLASSES = 150


class _Meaning(NamedTuple):
    """What the values of the maps mean."""

    classes: tuple[str, ...] | None
    ignore_index: int | None
    reduce_zero_label: bool


def open_masks(
    source: Source,
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool | None = None,
) -> dict[str, DenseDataset]:
    """The data sets of images and maps, by part: 'train', 'val', 'test', 'all'.

    `ignore_index`: the value of pixels that do not count,
    beside 255. `reduce_zero_label`: 0 does not count and 1 is the first class, as in ADE20K. What is None is taken from
    classes.json, classes.txt or ADE20K's own table, else from the maps. Raises DataError when nothing can be read.
    """
    name, tree = source.name, source.tree
    problems: list[Problem] = []
    store: Store = tree.store
    if source.images is tree:
        pairs = paired(tree, problems)
    else:
        store = _TwoStores(source.store, tree.store)
        pairs = _paired_apart(source.images, tree, problems)
    if not pairs:
        raise DataError(f"'{name}' has no images with label maps: images/*.jpg and labels/*.png with the same names.")
    meaning = _meaning(tree, name, classes, ignore_index, reduce_zero_label)
    notes: list[str] = []
    maps = [semantic.removeprefix(_TwoStores.PREFIX) for _, semantic in pairs]
    names, values, ignored = _table(meaning, tree, maps, notes)
    entries: dict[str, list[AnnotatedImage]] = {}
    for place, (image, semantic) in enumerate(pairs, 1):
        entry = AnnotatedImage(image, place, semantic=semantic)
        entries.setdefault(part_of(image) or part_of(semantic) or "all", []).append(entry)
    return {
        part: DenseDataset(
            "segmentation", names, tuple(rows), store, (), values, ignored, tuple(problems), tuple(notes)
        )
        for part, rows in entries.items()
    }


def paired(tree: Tree, problems: list[Problem]) -> list[tuple[str, str]]:
    """(image, map) for every image of a tree that has one, in the order of the images."""
    if not tree.files.ending_in(_LOSSLESS).any():
        return []
    files = list(tree.files.take(tree.files.ending_in(image_suffixes())))
    maps = {file: keys for file in files if (keys := _map_keys(file))}
    lossy = {_stem(file) for file in files if not file.lower().endswith(_LOSSLESS)}
    beside = [file for file in files if file.lower().endswith(_LOSSLESS) and file not in maps and _stem(file) in lossy]
    maps |= {file: [_image_key(file)] for file in beside}
    images = {_image_key(file): file for file in files if file not in maps}
    found = {}
    for file, keys in maps.items():
        key = next((key for key in keys if key in images), None)
        if key is None:
            problems.append(Problem(MISSING, printable(file)))
        else:
            found[images[key]] = file
    if found:
        problems += [Problem(NO_MAP, printable(file)) for file in images.values() if file not in found]
    return sorted(found.items())


def has_masks(tree: Tree) -> bool:
    """Whether half of the images have a map, and the first map holds numbers instead of colours."""
    pairs = paired(tree, [])
    alone = int(tree.files.ending_in(image_suffixes()).sum()) - 2 * len(pairs)
    try:
        decode_indices(tree.once.read(pairs[0][1]))
    except DataError:
        return False
    return alone <= len(pairs)


def _paired_apart(shown: Tree, maps: Tree, problems: list[Problem]) -> list[tuple[str, str]]:
    """The same for two trees, by path without ending, else by name alone."""
    stems = {_stem(file): file for file in maps.files if file.lower().endswith(_LOSSLESS)}
    names = {stem.rsplit("/", 1)[-1]: file for stem, file in stems.items()}
    pairs = []
    for file in filter(is_image, shown.files):
        semantic = stems.get(_stem(file)) or names.get(_stem(file).rsplit("/", 1)[-1])
        if semantic is None:
            problems.append(Problem(NO_MAP, printable(file)))
        else:
            pairs.append((file, _TwoStores.PREFIX + semantic))
    return pairs


class _TwoStores:
    """Images in one place, maps in another."""

    PREFIX = "maps: "

    def __init__(self, images: Store, maps: Store):
        self.images, self.maps = images, maps

    def read(self, path: str) -> bytes:
        if path.startswith(self.PREFIX):
            return self.maps.read(path.removeprefix(self.PREFIX))
        return self.images.read(path)


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]


def _image_key(file: str) -> str:
    """Its path without ending, the folder that says 'images' as '*'."""
    words = _stem(file).split("/")
    place = next((place for place in reversed(range(len(words) - 1)) if words[place].lower() in _IMAGES), None)
    if place is not None:
        words[place] = "*"
    return "/".join(words)


def _map_keys(file: str) -> list[str]:
    """What the key of its image can be; [] when neither folder nor name says that it is a map."""
    if not file.lower().endswith(_LOSSLESS):
        return []
    words = _stem(file).split("/")
    ending = next((end for end in _MAP_NAME_ENDS if words[-1].endswith(end) and words[-1] != end), None)
    names = [words[-1]] + ([words[-1].removesuffix(ending)] if ending else [])
    for place in reversed(range(len(words) - 1)):
        folder = words[place].lower()
        if folder in _MAPS:
            before, behind = words[:place], words[place + 1 : -1]
            return ["/".join([*before, *star, *behind, name]) for star in (["*"], []) for name in names]
        for end in _MAP_FOLDER_ENDS:
            if folder.endswith(end) and folder != end:
                renamed = [*words[:place], words[place][: -len(end)], *words[place + 1 : -1]]
                return ["/".join([*renamed, name]) for name in names]
    return [_image_key("/".join([*words[:-1], names[1] + ".png"]))] if ending else []


def _meaning(
    tree: Tree, name: str, classes: Sequence[str] | None, ignore_index: int | None, reduce_zero_label: bool | None
) -> _Meaning:
    """The caller's arguments first, then what files beside the maps say."""
    tables = {file.rsplit("/", 1)[-1]: file for file in reversed(tree.files)}
    named, ignored, reduced = None, None, False
    if "classes.json" in tables:
        content = _json(tree.once.read(tables["classes.json"]), name)
        named = content.get("classes") if isinstance(content, dict) else content
        ignored = whole(content.get("ignore_index")) if isinstance(content, dict) else None
        reduced = isinstance(content, dict) and content.get("reduce_zero_label") is True
        if not isinstance(named, list) or not named:
            raise DataError(f"classes.json of '{name}' has no list of 'classes'.")
    elif "classes.txt" in tables:
        named = [line.strip() for line in _text(tree, tables["classes.txt"]).splitlines() if line.strip()]
    elif _ADE in tables:
        named = [row.split("\t")[-1].strip() for row in _text(tree, tables[_ADE]).splitlines()[1:] if row.strip()]
        reduced = len(named) == _ADE_CLASSES
    chosen = classes if classes is not None else named
    return _Meaning(
        None if chosen is None else tuple(printable(str(word)) for word in chosen),
        ignored if ignore_index is None else ignore_index,
        reduced if reduce_zero_label is None else reduce_zero_label,
    )


def _table(
    meaning: _Meaning, tree: Tree, maps: list[str], notes: list[str]
) -> tuple[tuple[str, ...], tuple[int, ...], frozenset[int]]:
    """(class names, label of each value, values that are meant not to count)."""
    first = 1 if meaning.reduce_zero_label else 0
    ignored = {IGNORE, *({0} if first else ()), *({meaning.ignore_index} - {None})}
    names = meaning.classes
    if names is None:
        seen = _values(tree, maps)
        if seen == {0, IGNORE} and meaning.ignore_index is None and not first:
            notes.append("The maps hold 0 and 255 alone: taken for background and foreground.")
            values = (0, *[IGNORE] * 254, 1)
            return ("background", "foreground"), values, frozenset()
        names = tuple(str(value) for value in range(first, max(seen - ignored, default=-1) + 1))
        notes.append("Classes have no names, only numbers: no classes.json or classes.txt was found.")
        if not names:
            raise DataError("the maps hold no class: every pixel is one that does not count.")
    if len(names) > IGNORE:
        raise DataError(f"{len(names)} classes are more than the {IGNORE} that a map of 8 bits can hold.")
    values = tuple(
        IGNORE if value in ignored or not 0 <= value - first < len(names) else value - first for value in range(256)
    )
    return names, values, frozenset(value for value in ignored if value is not None)


def _values(tree: Tree, maps: list[str]) -> set[int]:
    """Every value of all maps; those that cannot be read are named when their image is."""

    def look(path: str) -> set[int]:
        try:
            return set(np.unique(decode_indices(tree.once.take(path))).tolist())
        except (DataError, OSError):
            return set()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return set().union(*pool.map(look, maps))


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError(f"classes.json of '{name}' is not JSON ({error}).") from None


def _text(tree: Tree, file: str) -> str:
    return tree.once.read(file).decode("utf-8-sig", "surrogateescape")
