"""From what the user names on the command line to lists of labelled images.

Three layouts, each as a folder or inside a zip: `train/<class>/*` with `val/<class>/*`; one folder of class folders,
split here and always the same way; a CSV with the columns `path`, `label` and perhaps `split`.
"""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convnext.data.decode import image_suffixes
from convnext.data.formats.table import TEST_NAME, TRAIN_NAMES, VAL_NAMES, Row, is_table, rows_of
from convnext.data.store import FolderStore, MixedStore, Store, Tree, ZipStore, is_zip, printable, require, tree_of
from convnext.errors import DataError, nearest, number_of

_OUTSIDE = "images outside class folders"
_TEST = "images of the test part"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: a path that its dataset's store can read (`printable` shows it), and a label, -1 where unknown."""

    path: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """Images in a fixed order, and the class names that their labels index."""

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    store: Store


@dataclass(frozen=True)
class Splits:
    """The two parts of a data set, and the files that were found but left out, counted by ending."""

    train: Dataset
    val: Dataset
    left_out: dict[str, int] = field(default_factory=dict)
    val_share: float | None = None  # what was held out of data without a val part


@dataclass(frozen=True)
class _Layout:
    """What was recognised: rows of (path, class name, split), '' as split where the data has none."""

    rows: list[Row]
    classes: tuple[str, ...]  # also those whose folder is empty
    store: Store
    left_out: dict[str, int]

    def part(self, split: str) -> list[Row]:
        return [row for row in self.rows if row.split == split]

    @property
    def has_val(self) -> bool:
        return any(row.split == "val" for row in self.rows)


def open_splits(data: str | Path, *, val_share: float = 0.2, seed: int = 0) -> Splits:
    """The train and val images of `data`.

    Data without a val part is split by class: `val_share` of each, at least one of two, by a hash of (seed, path), so
    that the same files give the same split on every machine and in a zip. Raises DataError when nothing can be trained.
    """
    if not 0 <= val_share < 1:
        raise DataError(f"val_share = {val_share:g} must be at least 0 and less than 1.")
    name, layout = printable(str(data)), _recognise(Path(data))
    if layout.has_val:
        train, val = [row for row in layout.rows if row.split != "val"], layout.part("val")
    else:
        train, val = _split(layout.rows, val_share, seed)
    if not train:
        raise DataError(f"'{name}' has no images in its train part. Put them into train/<class>/.")
    found = {row.label for row in train}
    if len(found) < 2:
        raise DataError(
            f"'{name}' has images of one class only ('{printable(min(found))}'); training needs two or more. "
            "Add a second class folder."
        )
    return Splits(
        _dataset(train, layout.classes, layout.store),
        _dataset(val, layout.classes, layout.store),
        layout.left_out,
        None if layout.has_val else val_share,
    )


def open_labelled(
    data: str | Path, *, classes: tuple[str, ...] | None = None, split: Literal["train", "val"] = "val"
) -> Dataset:
    """Labelled images to evaluate on: the `split` part where `data` has parts, else all of it.

    `classes`, usually a checkpoint's, fixes the indices; a class it lacks raises DataError with the nearest one.
    """
    name, layout = printable(str(data)), _recognise(Path(data), only=True)
    rows = layout.part(split) if any(row.split for row in layout.rows) else layout.rows
    if not rows:
        raise DataError(f"'{name}' has no images in its {split} part. Name the folder that holds the class folders.")
    known = layout.classes if classes is None else classes
    unknown = sorted({row.label for row in rows} - set(known))
    if unknown:
        raise DataError(
            f"'{name}' has class '{printable(unknown[0])}', which the model does not know.{nearest(unknown[0], known)} "
            f"It knows {number_of(len(known), 'class', 'classes')}."
        )
    return _dataset(rows, known, layout.store)


def open_unlabelled(paths: Sequence[str]) -> Dataset:
    """Images to predict: files (whatever their ending), folders with all below, globs, zips; each once, in order."""
    zips: dict[str, ZipStore] = {}
    found: dict[str, None] = {}
    for path in paths:
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            require(Path(path))
        for match in matches:
            before = len(found)
            found |= dict.fromkeys(_images_at(match, zips))
            if len(matches) == 1 and len(found) == before and not os.path.isfile(match):
                raise DataError(f"'{printable(match)}' holds no images; they end in {_endings()}.")
    if not found:
        raise DataError(f"No images to predict. Name a file, a folder, a glob or a zip; images end in {_endings()}.")
    return Dataset((), tuple(Entry(path, -1) for path in found), MixedStore(zips))


def _images_at(path: str, zips: dict[str, ZipStore]) -> list[str]:
    if os.path.isfile(path) and not is_zip(Path(path)):
        return [path]
    tree = tree_of(Path(path))
    if isinstance(tree.store, ZipStore):
        zips[path] = tree.store
    return [f"{path.rstrip('/')}/{name}" for name in tree.files if _is_image(name)]


def _recognise(data: Path, *, only: bool = False) -> _Layout:
    """Find the layout. `only`: a val part alone is welcome, as for evaluation."""
    require(data)
    name = printable(str(data))
    if data.is_file() and not is_zip(data):
        if data.suffix.lower() != ".csv":
            raise DataError(f"'{name}' is one file. Name a folder, a CSV of path and label, or a zip.")
        return _from_table(data.read_bytes(), name, FolderStore(str(data.parent)), {})
    tree = _descend(tree_of(data))
    tops = {folder.lower(): folder for folder in tree.folders if "/" not in folder}
    train = next((tops[split] for split in TRAIN_NAMES if split in tops), None)
    val = next((tops[split] for split in (*VAL_NAMES, TEST_NAME) if split in tops), None)
    if train is not None or (only and val is not None and _has_classes(tree, val)):
        return _from_folders(tree, name, {part: split for part, split in ((train, "train"), (val, "val")) if part})
    table = next((file for file in _tables(tree) if is_table(_text(tree.store.read(file)))), None)
    if table is not None:
        return _from_table(tree.store.read(table), f"{name}/{printable(table)}", tree.store, _left_out(tree.files))
    if val is not None and _has_classes(tree, val):
        raise DataError(
            f"'{name}' has a folder '{val}' and no folder 'train'.{nearest('train', tops)} Rename the folder with the "
            "images to train on."
        )
    return _from_folders(tree, name, {})


def _descend(tree: Tree) -> Tree:
    """Step into a single top folder that only wraps the data, as zips often have it."""
    while True:
        tops = [folder for folder in tree.folders if "/" not in folder]
        if len(tops) != 1 or tops[0].lower() in (*TRAIN_NAMES, *VAL_NAMES, TEST_NAME) or _tables(tree):
            return tree
        inside = tree.below(tops[0])
        if any(_is_image(file) for file in tree.files if "/" not in file) or not (inside.folders or _tables(inside)):
            return tree
        tree = inside


def _has_classes(tree: Tree, folder: str) -> bool:
    return any(name.startswith(folder + "/") for name in tree.folders)


def _tables(tree: Tree) -> list[str]:
    return [file for file in tree.files if "/" not in file and file.lower().endswith(".csv")]


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "surrogateescape")


def _from_table(data: bytes, name: str, store: Store, left_out: dict[str, int]) -> _Layout:
    rows = rows_of(_text(data), name)
    if not rows:
        raise DataError(f"'{name}' has a header and no rows. Add one line for each image.")
    if any(row.split == "val" for row in rows):
        kept = [row for row in rows if row.split != TEST_NAME]
        left_out = left_out | ({_TEST: len(rows) - len(kept)} if len(kept) < len(rows) else {})
    else:
        kept = [row._replace(split="val") if row.split == TEST_NAME else row for row in rows]
    rows = kept
    return _Layout(rows, tuple(sorted({row.label for row in rows})), store, left_out)


def _from_folders(tree: Tree, name: str, parts: dict[str, str]) -> _Layout:
    """Rows from class folders: below `parts` (folder name -> split), or at the top when there are none."""
    depth = 1 if parts else 0
    classes = {printable(folder.split("/")[depth]) for folder in tree.folders if _class_depth(folder, parts)}
    rows, outside, test = [], 0, 0
    for file in tree.files:
        if not _is_image(file):
            continue
        folders = file.split("/")[:-1]
        split = parts.get(folders[0]) if parts and folders else ""
        if parts and len(folders) > depth and folders[0].lower() == TEST_NAME and TEST_NAME not in parts:
            test += 1
        elif split is None or len(folders) <= depth:
            outside += 1
        else:
            rows.append(Row(file, printable(folders[depth]), split))
    left_out = _left_out(tree.files) | ({_OUTSIDE: outside} if outside else {})
    left_out |= {_TEST: test} if test else {}
    if not rows:
        raise DataError(_no_images(tree, name, outside, left_out))
    return _Layout(rows, tuple(sorted(classes)), tree.store, left_out)


def _class_depth(folder: str, parts: dict[str, str]) -> bool:
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
    return f"'{name}' holds no images{f' (only {others})' if others else ''}; they end in {_endings()}."


def _left_out(files: Sequence[str]) -> dict[str, int]:
    endings = Counter(os.path.splitext(file)[1].lower() or "no ending" for file in files if not _is_image(file))
    return dict(sorted(endings.items()))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in image_suffixes()


def _endings() -> str:
    return " ".join(sorted(image_suffixes()))


def _split(rows: list[Row], val_share: float, seed: int) -> tuple[list[Row], list[Row]]:
    def order(row: Row) -> bytes:
        key = f"{seed}:{row.path}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(key, digest_size=16).digest()

    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row.label, []).append(row)
    chosen: set[str] = set()
    for members in by_class.values():
        count = min(len(members) - 1, max(1, round(len(members) * val_share))) if val_share else 0
        chosen |= {row.path for row in sorted(members, key=order)[:count]}
    return [row for row in rows if row.path not in chosen], [row for row in rows if row.path in chosen]


def _dataset(rows: list[Row], classes: tuple[str, ...], store: Store) -> Dataset:
    index = {name: number for number, name in enumerate(classes)}
    return Dataset(classes, tuple(Entry(row.path, index[row.label]) for row in rows), store)
