"""Class folders: `train/<class>/*` with `val/<class>/*`, or one folder of class folders."""

from collections import Counter
from dataclasses import replace

import numpy as np

from convnext.data.band_store import BandStore, band_of, first_files, found_bands, named, no_such_files, together_note
from convnext.data.codecs import endings_of_images, suffixes_in
from convnext.data.formats.class_words import unlabelled
from convnext.data.formats.listing import PARTS, Listing
from convnext.data.formats.lists import has_lists, listing_of_lists
from convnext.data.formats.table import listing_of
from convnext.data.formats.table_files import metadata_of, passed_over, tables_at, tables_of, unread
from convnext.data.formats.tags import listing_of_tags
from convnext.data.formats.texts import has_texts, listing_of_texts
from convnext.data.names import Names
from convnext.data.parts import part_of_folder, wraps
from convnext.data.source import GUESSED, Form, NamedColumns, Source
from convnext.data.store import Tree, printable
from convnext.data.written import one_each
from convnext.errors import DataError, nearest

_OUTSIDE = "images outside class folders"
_STAYS = ("train", "val", "valid", "validation", "test")  # alone at the top, others are stepped into
_FEWEST = 2  # folders that two neighbours have in common, to look like parts


def class_form(tree: Tree, named: NamedColumns = GUESSED) -> Form:
    """Whether folders, a table, lists or texts beside the images say which classes an image has.

    `named`: columns that a person names, which only a table has. Raises DataError where none has them.
    """
    if named:
        tables_of(tree, named)
        return "table"
    parts = _part_folders(tree, only=False)
    parted = parts is not None and any(_inside(tree, folder) for folder, part in parts.items() if part == "train")
    tables = tables_of(tree) if metadata_of(tree) or not parted else {}
    if tables and (not parted or set(tables) <= set(metadata_of(tree))):
        return "table"
    if not parted and has_lists(tree):
        return "lists"
    return "texts" if not parted and has_texts(tree) else "folders"


def listed(source: Source, *, only: bool = False) -> Listing:
    """Every labelled image of a source. `only`: a val part alone is welcome, as for evaluation.

    Raises DataError where there is none.
    """
    found = _listed(source, only=only)
    bands, said = source.bands, source.bands is not None
    if bands is None:
        bands = found_bands(found.paths, found.store)
    if not named(bands):
        return found
    places = np.array(first_files(found.paths, bands), np.int64)
    if said and not len(places):
        raise DataError(no_such_files(source.name, bands), found.said)
    others = len(found.paths) - sum(band_of(path, bands) is not None for path in found.paths)
    return replace(
        found, paths=found.paths.take(places), labels=found.labels[places], part=found.part[places],
        groups=None if found.groups is None else found.groups[places],
        store=BandStore(found.store, bands), notes=found.notes if said else (*found.notes, together_note(bands)),
        left_out=found.left_out | ({"of other bands": others} if others else {}),
    )  # fmt: skip


def _listed(source: Source, *, only: bool) -> Listing:
    """The same, still without regard to bands: each file is an image."""
    tree, name = source.tree, source.name
    if source.task != "classification":
        raise DataError(f"'{name}' is annotated for {source.task}. Name class folders, or a table of path and label.")
    if source.form == "tags":
        return listing_of_tags(source, _left_out(tree.files) if source.file is None else {})
    if source.file is not None:
        return listing_of(tree, {source.file: ""}, name, {}, source.labels, source.images, source.columns)
    if source.form == "lists":
        return listing_of_lists(tree, _left_out(tree.files), source.labels)
    if source.form == "texts":
        return listing_of_texts(tree, _left_out(tree.files), source.labels)
    parts = _part_folders(tree, only=only)
    tables = tables_of(tree, source.columns) if source.form == "table" else {}
    if tables:
        others = [file not in tables or tables[file] == "-" for file in tree.files]
        left_out = _left_out(tree.files.take(np.array(others, bool)))
        return listing_of(tree, tables, name, left_out, source.labels, named=source.columns)
    alone = [folder for folder in _tops(tree) if part_of_folder(folder) in ("val", "test") and _inside(tree, folder)]
    if parts is None and alone:
        raise DataError(
            f"'{name}' has a folder '{printable(alone[0])}' and no folder 'train'.{nearest('train', _tops(tree))} Rename "
            "the folder with the images to train on."
        )
    found = _from_folders(tree, name, parts or {})
    found = replace(found, notes=(*found.notes, *passed_over(tree)))
    return found.as_several() if source.labels == "multi" else found


def inside_wrappers(tree: Tree, named: NamedColumns = GUESSED) -> Tree:
    """Step into a single top folder that only wraps the data, as zips often have it.

    `named`: columns that a person names; the folder of their table is the data.
    """
    while True:
        tops = _tops(tree)
        if named and tables_at(tree):
            return tree
        if len(tops) > 1:  # beside it may lie what holds no images
            holding = {folder.split("/")[0] for folder in _folders_with_images(tree)}
            inside = tree.below(next(iter(holding))) if len(holding) == 1 else tree
            if inside is tree or "train" in map(part_of_folder, tops) or not _parted(inside):
                return tree
            tops = list(holding)
        if len(tops) != 1 or tops[0].lower() in _STAYS or (tables_at(tree) and tables_of(tree)) or has_lists(tree):
            return tree
        inside = tree.below(tops[0])
        if "" in _folders_with_images(tree) or not (inside.folders or tables_at(inside)):
            return tree
        tree = inside


def _parted(tree: Tree) -> bool:
    return "train" in map(part_of_folder, _holding_folders(tree))


def _part_folders(tree: Tree, *, only: bool) -> dict[str, str] | None:
    """Folder -> part, where there is one to train on or, with `only`, one to evaluate on.

    A folder of images called train or valid among others of images is a class.
    """
    said = {folder: part for folder in _tops(tree) if (part := part_of_folder(folder))}
    images = _folders_with_images(tree)
    flat = {folder for folder in said if folder in images and not _inside(tree, folder)}
    classes_beside = any(folder in images for folder in _tops(tree) if folder not in said)
    words = set(said.values())
    if classes_beside and flat == set(said) and ("train" not in words or words == {"train"}):
        return None
    evaluated = only and any(_inside(tree, folder) for folder, part in said.items() if part in ("val", "test"))
    if "train" not in words and not evaluated and not (said and flat == set(_tops(tree)) and len(words) > 1):
        return None
    return {_base(tree, folder, list(said)): part for folder, part in said.items()}


def _base(tree: Tree, folder: str, parts: list[str]) -> str:
    """Where the class folders of a part begin: train/train and seg_train/seg_train are one folder."""
    images = _folders_with_images(tree)
    below = folder
    while below not in images and len(inside := _inside(tree, below)) == 1:
        same_word = part_of_folder(inside[0]) == part_of_folder(folder)
        if not same_word and not (wraps(inside[0]) and all(_inside(tree, part) == inside for part in parts)):
            break
        below = f"{below}/{inside[0]}"
    return below


def _tops(tree: Tree) -> list[str]:
    return [folder for folder in tree.folders if "/" not in folder]


def _inside(tree: Tree, folder: str) -> list[str]:
    """Names of the folders in one folder."""
    start = len(folder) + 1
    return [name[start:] for name in tree.folders if name.startswith(folder + "/") and "/" not in name[start:]]


def _holding_folders(tree: Tree) -> list[str]:
    """The folders of the top that hold folders: looked for once, as there may be as many as classes."""
    holding = {folder.split("/")[0] for folder in tree.folders if folder.count("/") == 1}
    return [folder for folder in _tops(tree) if folder in holding]


def _folders_with_images(tree: Tree) -> set[str]:
    """The folders that images lie in; '' for the top."""
    which = np.unique(tree.files.prefix[tree.files.ending_in(_suffixes(tree.files))])
    return {tree.files.prefixes[number].removesuffix("/") for number in which.tolist()}


def _from_folders(tree: Tree, name: str, parts: dict[str, str]) -> Listing:
    """Images of class folders below `parts` (folder -> part), or at the top when there are none."""
    within = not parts and _parts_within(tree)
    called = one_each(printable(label) for folder in tree.folders if (label := _class_at(folder, parts)) is not None)
    number = {label: place for place, label in enumerate(sorted(set(called.values())))}
    outside = 0
    images = tree.files.ending_in(_suffixes(tree.files))
    count = np.bincount(tree.files.prefix[images], minlength=len(tree.files.prefixes)).tolist()
    part = np.full(len(count), -1, np.int8)  # of each folder that images lie in; -1: they are left out
    labels = np.zeros(len(count), np.int32)
    for place, prefix in enumerate(tree.files.prefixes):
        base = _base_of(prefix, parts)
        folders = prefix.split("/")[:-1] if base is None else prefix[len(base) + 1 :].split("/")[:-1]
        if not folders or (parts and base is None):
            outside += count[place]
        else:
            split = parts[base] if base is not None else part_of_folder(folders[1]) if within else ""
            part[place], labels[place] = PARTS.index(split), number[called[printable(folders[0])]]
    left_out = _left_out(tree.files) | ({_OUTSIDE: outside} if outside else {})
    kept = images & (part >= 0)[tree.files.prefix] if count else images
    if not kept.any():
        raise DataError(_no_images(tree, name, outside, left_out))
    paths = tree.files.take(kept)
    notes = () if parts or within else _alike(tree)
    return Listing(
        paths, labels[paths.prefix], part[paths.prefix], tuple(sorted(number)), tree.store, left_out,
        (*tree.store.notes, *notes), _only_test(tree, parts, called),
    )  # fmt: skip


def _base_of(prefix: str, parts: dict[str, str]) -> str | None:
    return next((base for base in parts if prefix.startswith(base + "/")), None)


def _class_at(folder: str, parts: dict[str, str]) -> str | None:
    """The class whose folder this is."""
    base = _base_of(folder, parts)
    if parts and base is None:
        return None
    name = folder if base is None else folder[len(base) + 1 :]
    return None if "/" in name else name


def _parts_within(tree: Tree) -> bool:
    """Whether it is the class folders that hold the parts: cat/train/*, cat/val/*, dog/train/*, ..."""
    held = [folder.split("/") for folder in _folders_with_images(tree)]
    parts = [part_of_folder(words[1]) if len(words) > 1 else "" for words in held]
    return bool(parts) and all(parts) and "train" in parts and len(set(parts)) > 1


def _only_test(tree: Tree, parts: dict[str, str], called: dict[str, str]) -> frozenset[str]:
    """The classes whose folders lie in the test part alone."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for folder in tree.folders:
        if (label := _class_at(folder, parts)) is not None:
            found[parts.get(_base_of(folder, parts) or "") == "test"].add(called[printable(label)])
    return frozenset(found[True] - found[False])


def _alike(tree: Tree) -> tuple[str, ...]:
    """A note where class folders hold the same folders, as parts do."""
    tops = _holding_folders(tree)
    inside = [set(_inside(tree, folder)) for folder in tops[:2]]
    images = _folders_with_images(tree)
    if len(tops) < 2 or len(inside[0]) < _FEWEST or inside[0] != inside[1] or images & set(tops[:2]):
        return ()
    first, second = (printable(folder) for folder in tops[:2])
    return (
        f"Folders '{first}' and '{second}' hold the same folders ({', '.join(map(printable, sorted(inside[0])[:3]))}) and "
        "were taken for classes. If they are parts, call them train and val.",
    )


def _no_images(tree: Tree, name: str, outside: int, left_out: dict[str, int]) -> str:
    if not tree.files and not tree.folders:
        return f"'{name}' is empty. It should hold one folder of images for each class."
    if outside:
        return unread(tree, name) or unlabelled(name, tree.files.take(tree.files.ending_in(_suffixes(tree.files))))
    others = ", ".join(f"{count} {ending}" for ending, count in sorted(left_out.items()))
    return f"'{name}' holds no images{f' (only {others})' if others else ''}; they end in {endings_of_images()}."


def _left_out(files: Names) -> dict[str, int]:
    endings: Counter[str] = Counter()
    known = _suffixes(files)
    for ending, count in files.endings():
        if count and ending.lower() not in known:
            endings[ending.lower() or "no ending"] += count
    return dict(sorted(endings.items()))


def _suffixes(files: Names) -> frozenset[str]:
    return suffixes_in(ending for ending, _ in files.endings())
