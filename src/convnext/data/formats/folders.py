"""Class folders: `train/<class>/*` with `val/<class>/*`, or one folder of class folders."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from convnext.data.decode import image_suffixes
from convnext.data.formats.table import TEST_NAME, TRAIN_NAMES, VAL_NAMES, is_table, rows_of
from convnext.data.labelled import Dataset, Entries
from convnext.data.names import Names
from convnext.data.source import Form, Source
from convnext.data.store import Store, Tree, printable
from convnext.errors import DataError, nearest, number_of

PARTS = ("", "train", "val", "test")  # '' where the data has no parts
_OUTSIDE = "images outside class folders"
_TEST = "images of the test part"


@dataclass(frozen=True)
class Listing:
    """Every labelled image of a source."""

    paths: Names
    labels: np.ndarray  # (N,) int32 into `classes`
    part: np.ndarray  # (N,) int8 into PARTS
    classes: tuple[str, ...]  # also those whose folder is empty
    store: Store
    left_out: dict[str, int]

    def in_part(self, *names: str) -> np.ndarray:
        """(N,) bool."""
        return np.isin(self.part, [PARTS.index(name) for name in names])

    def dataset(self, chosen: np.ndarray, classes: tuple[str, ...] | None = None) -> Dataset:
        """The images that `chosen`, a bool for each, names. Labels index `classes`, None: its own, of which all are known."""
        labels = self.labels[chosen]
        if classes is not None and classes != self.classes:
            place = {name: number for number, name in enumerate(classes)}
            labels = np.array([place.get(name, -1) for name in self.classes], np.int32)[labels]
        return Dataset(classes or self.classes, Entries(self.paths.take(chosen), labels), self.store)


def class_form(tree: Tree) -> Form:
    """Whether folders or a table say which class an image has."""
    return "table" if _part_folders(tree, only=False) is None and table_of(tree) is not None else "folders"


def listed(source: Source, *, only: bool = False) -> Listing:
    """Every labelled image of a source. `only`: a val part alone is welcome, as for evaluation.

    Raises DataError where there is none.
    """
    tree, name = source.tree, source.name
    if source.task != "classification":
        raise DataError(f"'{name}' is annotated for {source.task}. Name class folders, or a CSV of path and label.")
    if source.file is not None:
        return _from_table(tree, source.file, name, {})
    parts = _part_folders(tree, only=only)
    if parts is None and source.form == "table":
        table = table_of(tree)
        assert table is not None, "the form says that there is one"
        return _from_table(tree, table, f"{name}/{printable(table)}", _left_out(tree.files))
    val = _folder(tree, (*VAL_NAMES, TEST_NAME))
    if parts is None and val is not None and _has_classes(tree, val):
        tops = [folder for folder in tree.folders if "/" not in folder]
        raise DataError(
            f"'{name}' has a folder '{val}' and no folder 'train'.{nearest('train', tops)} Rename the folder with the "
            "images to train on."
        )
    return _from_folders(tree, name, parts or {})


def inside_wrappers(tree: Tree) -> Tree:
    """Step into a single top folder that only wraps the data, as zips often have it."""
    while True:
        tops = [folder for folder in tree.folders if "/" not in folder]
        if len(tops) != 1 or tops[0].lower() in (*TRAIN_NAMES, *VAL_NAMES, TEST_NAME) or _tables(tree):
            return tree
        inside = tree.below(tops[0])
        if any(prefix == "" for prefix in _prefixes_with_images(tree)) or not (inside.folders or _tables(inside)):
            return tree
        tree = inside


def table_of(tree: Tree) -> str | None:
    """The first CSV at the top that has paths and labels, so that others beside the images are left alone."""
    return next((file for file in _tables(tree) if is_table(_text(tree.once.read(file)))), None)


def _part_folders(tree: Tree, *, only: bool) -> dict[str, str] | None:
    """Folder -> part where there is a folder to train on or, with `only`, one to evaluate on."""
    train, val = _folder(tree, TRAIN_NAMES), _folder(tree, (*VAL_NAMES, TEST_NAME))
    if train is None and not (only and val is not None and _has_classes(tree, val)):
        return None
    return {folder: part for folder, part in ((train, "train"), (val, "val")) if folder}


def _folder(tree: Tree, names: tuple[str, ...]) -> str | None:
    tops = {folder.lower(): folder for folder in tree.folders if "/" not in folder}
    return next((tops[name] for name in names if name in tops), None)


def _has_classes(tree: Tree, folder: str) -> bool:
    return any(name.startswith(folder + "/") for name in tree.folders)


def _tables(tree: Tree) -> list[str]:
    top = [number for number, prefix in enumerate(tree.files.prefixes) if not prefix]
    return list(tree.files.take(np.isin(tree.files.prefix, top) & tree.files.ending_in({".csv"})))


def _prefixes_with_images(tree: Tree) -> set[str]:
    which = np.unique(tree.files.prefix[tree.files.ending_in(image_suffixes())])
    return {tree.files.prefixes[number] for number in which.tolist()}


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "surrogateescape")


def _from_table(tree: Tree, file: str, name: str, left_out: dict[str, int]) -> Listing:
    rows = rows_of(_text(tree.once.read(file)), name)
    if not rows:
        raise DataError(f"'{name}' has a header and no rows. Add one line for each image.")
    number: dict[str, int] = {}
    labels = np.array([number.setdefault(row.label, len(number)) for row in rows], np.int32)
    classes = sorted(number)
    order = np.empty(len(number), np.int32)
    order[[number[label] for label in classes]] = np.arange(len(classes))
    part = np.array([PARTS.index(row.split) for row in rows], np.int8)
    paths, test = Names.of(row.path for row in rows), part == PARTS.index("test")
    kept = np.ones(len(rows), bool)
    if (part == PARTS.index("val")).any():
        kept = ~test
        left_out = left_out | ({_TEST: int(test.sum())} if test.any() else {})
    else:
        part[test] = PARTS.index("val")
    labels = order[labels][kept]
    seen = np.unique(labels)
    if len(seen) < len(classes):  # some are in the test part alone
        classes, labels = [classes[label] for label in seen], np.searchsorted(seen, labels).astype(np.int32)
    return Listing(paths.take(kept), labels, part[kept], tuple(classes), tree.store, left_out)


def _from_folders(tree: Tree, name: str, parts: dict[str, str]) -> Listing:
    """Images of class folders below `parts` (folder name -> part), or at the top when there are none."""
    depth = 1 if parts else 0
    named = {printable(folder.split("/")[depth]) for folder in tree.folders if _is_class(folder, parts)}
    number = {label: place for place, label in enumerate(sorted(named))}
    outside, test = 0, 0
    images = tree.files.ending_in(image_suffixes())
    count = np.bincount(tree.files.prefix[images], minlength=len(tree.files.prefixes)).tolist()
    part = np.full(len(count), -1, np.int8)  # of each folder that images lie in; -1: they are left out
    labels = np.zeros(len(count), np.int32)
    for place, prefix in enumerate(tree.files.prefixes):
        folders = prefix.split("/")[:-1]
        split = parts.get(folders[0]) if parts and folders else ""
        if parts and len(folders) > depth and folders[0].lower() == TEST_NAME and TEST_NAME not in parts:
            test += count[place]
        elif split is None or len(folders) <= depth:
            outside += count[place]
        else:
            part[place], labels[place] = PARTS.index(split), number[printable(folders[depth])]
    left_out = _left_out(tree.files) | ({_OUTSIDE: outside} if outside else {})
    left_out |= {_TEST: test} if test else {}
    kept = images & (part >= 0)[tree.files.prefix] if count else images
    if not kept.any():
        raise DataError(_no_images(tree, name, outside, left_out))
    paths = tree.files.take(kept)
    return Listing(paths, labels[paths.prefix], part[paths.prefix], tuple(sorted(named)), tree.store, left_out)


def _is_class(folder: str, parts: dict[str, str]) -> bool:
    names = folder.split("/")
    return len(names) == 2 and names[0] in parts if parts else len(names) == 1


def _no_images(tree: Tree, name: str, outside: int, left_out: dict[str, int]) -> str:
    if not tree.files and not tree.folders:
        return f"'{name}' is empty. It should hold one folder of images for each class."
    if outside:
        return (
            f"'{name}' holds {number_of(outside, 'image')} directly, without class folders. "
            "Put the images of each class into a folder with its name."
        )
    others = ", ".join(f"{count} {ending}" for ending, count in sorted(left_out.items()))
    return f"'{name}' holds no images{f' (only {others})' if others else ''}; they end in {endings_of_images()}."


def _left_out(files: Names) -> dict[str, int]:
    endings: Counter[str] = Counter()
    for ending, count in files.endings():
        if count and ending.lower() not in image_suffixes():
            endings[ending.lower() or "no ending"] += count
    return dict(sorted(endings.items()))


def endings_of_images() -> str:
    """The endings that are read, for messages."""
    return " ".join(sorted(image_suffixes()))
