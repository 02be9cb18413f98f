"""Images without labels, as a person names them: files, folders, globs, zips, shards, tables and annotations."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext.data.annotated_forms import ANNOTATED
from convnext.data.arrow import ENDINGS
from convnext.data.codecs import endings_of_images, image_suffixes, plugin_for, suffixes_in
from convnext.data.formats.folders import listed
from convnext.data.formats.records import is_label_json
from convnext.data.formats.shards import has_shards, open_shards
from convnext.data.formats.signatures import unread, unread_file
from convnext.data.formats.table import images_named
from convnext.data.formats.table_files import TABLES
from convnext.data.labelled import Dataset, Entry
from convnext.data.opening import open_parts, recognise
from convnext.data.store import (
    FolderStore,
    MixedStore,
    Store,
    Tree,
    ZipStore,
    is_zip,
    printable,
    require,
    tree_of,
    tree_of_file,
)
from convnext.errors import DataError

_LISTS = frozenset({".json", ".xml", ".yaml", ".yml"})  # files of annotations, which name images


def open_unlabelled(paths: Sequence[str | os.PathLike[str]]) -> Dataset:
    """Images to predict: files (whatever their ending), folders with all below, globs, zips, shards; each once, in order.

    A table, labelled or not, and a file of annotations stand for the images that they name or hold. Raises DataError where
    there is none.
    """
    packs: dict[str, Store] = {}
    found: dict[str, None] = {}
    for given in paths:
        path = os.fspath(given)
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            require(Path(path))
        for match in matches:
            before = len(found)
            try:
                found |= dict.fromkeys(_images_at(match, packs))
            except DataError:
                if len(paths) == len(matches) == 1 or not os.path.isfile(match):
                    raise
                found[match] = None  # one of many files, which is named as what cannot be read
            if len(matches) == 1 and len(found) == before and not os.path.isfile(match):
                raise DataError(
                    f"'{printable(match)}' holds no images; they end in {endings_of_images()}.{_reader(match)}"
                )
    if not found:
        raise DataError(
            f"No images to predict. Name a file, a folder, a glob or a zip; images end in {endings_of_images()}."
        )
    return Dataset((), tuple(Entry(path, -1) for path in found), MixedStore(packs))


@dataclass(frozen=True)
class _Within:
    """What a store has in one of its folders, or tables."""

    store: Store
    prefix: str

    def read(self, path: str) -> bytes:
        return self.store.read(self.prefix + path)


def _images_at(path: str, packs: dict[str, Store]) -> list[str]:
    if os.path.isfile(path) and not is_zip(Path(path)):
        return _named_by(path, packs)
    tree = open_shards(path).images if has_shards(path) else tree_of(Path(path))
    if isinstance(tree.store, ZipStore) or has_shards(path):
        packs[path.rstrip("/")] = tree.store
    suffixes = suffixes_in(ending for ending, _ in tree.files.endings())
    images = tree.files.take(tree.files.ending_in(suffixes))
    if len(images):
        return [f"{path.rstrip('/')}/{name}" for name in images]
    rows = [row for file in tree.files.take(tree.files.ending_in(ENDINGS)) for row in _rows(tree, file, path, packs)]
    if not rows and (known := unread(tree)):
        raise DataError(f"'{printable(path)}': {known}")
    return rows


def _rows(tree: Tree, file: str, path: str, packs: dict[str, Store]) -> list[str]:
    """The images of one table of a folder that has no others."""
    whole = f"{path.rstrip('/')}/{file}"
    return _placed(whole, file, *images_named(tree, file, printable(whole)), packs)


def _named_by(path: str, packs: dict[str, Store]) -> list[str]:
    """The images that one file names or holds; the file itself where it is no list."""
    ending = os.path.splitext(path)[1].lower()
    if ending in image_suffixes():
        return [path]
    tree = tree_of_file(Path(path))
    file = tree.files[0]
    if ending in TABLES or (ending == ".json" and is_label_json(tree.once.read(file))):
        return _placed(path, file, *images_named(tree, file, printable(path)), packs)
    if ending in _LISTS:
        source = recognise(path)
        if source.form in ANNOTATED:
            names = [entry.path for part in open_parts(source).values() for entry in part.entries]
            return _placed(path, file, names, source.store, packs)
        listing = listed(source)
        return _placed(path, file, list(listing.paths), listing.store, packs)
    if known := unread_file(tree):
        raise DataError(known)
    return [path]


def _placed(path: str, file: str, names: list[str], store: Store, packs: dict[str, Store]) -> list[str]:
    """What images are called here that the `file` at `path` names: their own paths where they are files of a folder."""
    if isinstance(store, FolderStore):
        return [os.path.join(store.root, name) for name in names]
    prefix = f"{file}/"
    held = all(name.startswith(prefix) for name in names)
    packs[path] = _Within(store, prefix) if held else store
    return [f"{path}/{name.removeprefix(prefix) if held else name}" for name in names]


def _reader(path: str) -> str:
    """The plugin that would read what is there."""
    files = tree_of(Path(path)).files
    endings = dict.fromkeys(os.path.splitext(name)[1] for name in files)
    found = [(ending, package) for ending in endings if (package := plugin_for(ending))]
    return f" `pip install {found[0][1]}` reads {found[0][0]}." if found else ""
