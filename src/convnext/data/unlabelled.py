"""Images without labels, as a person names them: files, folders, globs, zips and shards."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from convnext.data.codecs import plugin_for, suffixes_in
from convnext.data.formats.folders import endings_of_images
from convnext.data.formats.shards import has_shards, open_shards
from convnext.data.labelled import Dataset, Entry
from convnext.data.store import MixedStore, TreeStore, ZipStore, is_zip, printable, require, tree_of
from convnext.errors import DataError


def open_unlabelled(paths: Sequence[str | os.PathLike[str]]) -> Dataset:
    """Images to predict: files (whatever their ending), folders with all below, globs, zips, shards; each once, in order."""
    packs: dict[str, TreeStore] = {}
    found: dict[str, None] = {}
    for given in paths:
        path = os.fspath(given)
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            require(Path(path))
        for match in matches:
            before = len(found)
            found |= dict.fromkeys(_images_at(match, packs))
            if len(matches) == 1 and len(found) == before and not os.path.isfile(match):
                raise DataError(
                    f"'{printable(match)}' holds no images; they end in {endings_of_images()}.{_reader(match)}"
                )
    if not found:
        raise DataError(
            f"No images to predict. Name a file, a folder, a glob or a zip; images end in {endings_of_images()}."
        )
    return Dataset((), tuple(Entry(path, -1) for path in found), MixedStore(packs))


def _images_at(path: str, packs: dict[str, TreeStore]) -> list[str]:
    if os.path.isfile(path) and not is_zip(Path(path)):
        return [path]
    tree = open_shards(path).images if has_shards(path) else tree_of(Path(path))
    if isinstance(tree.store, ZipStore) or has_shards(path):
        packs[path.rstrip("/")] = tree.store
    suffixes = suffixes_in(ending for ending, _ in tree.files.endings())
    return [f"{path.rstrip('/')}/{name}" for name in tree.files.take(tree.files.ending_in(suffixes))]


def _reader(path: str) -> str:
    """The plugin that would read what is there."""
    files = tree_of(Path(path)).files
    endings = dict.fromkeys(os.path.splitext(name)[1] for name in files)
    found = [(ending, package) for ending in endings if (package := plugin_for(ending))]
    return f" `pip install {found[0][1]}` reads {found[0][0]}." if found else ""
