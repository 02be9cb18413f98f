"""Images without labels, as a person names them: files, folders, globs and zips."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from convnext.data.codecs import plugin_for, suffixes_in
from convnext.data.formats.folders import endings_of_images
from convnext.data.labelled import Dataset, Entry
from convnext.data.store import MixedStore, ZipStore, is_zip, printable, require, tree_of
from convnext.errors import DataError


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
                raise DataError(
                    f"'{printable(match)}' holds no images; they end in {endings_of_images()}.{_reader(match)}"
                )
    if not found:
        raise DataError(
            f"No images to predict. Name a file, a folder, a glob or a zip; images end in {endings_of_images()}."
        )
    return Dataset((), tuple(Entry(path, -1) for path in found), MixedStore(zips))


def _images_at(path: str, zips: dict[str, ZipStore]) -> list[str]:
    if os.path.isfile(path) and not is_zip(Path(path)):
        return [path]
    tree = tree_of(Path(path))
    if isinstance(tree.store, ZipStore):
        zips[path] = tree.store
    suffixes = suffixes_in(ending for ending, _ in tree.files.endings())
    return [f"{path.rstrip('/')}/{name}" for name in tree.files.take(tree.files.ending_in(suffixes))]


def _reader(path: str) -> str:
    """The plugin that would read what is there."""
    files = tree_of(Path(path)).files
    endings = dict.fromkeys(os.path.splitext(name)[1] for name in files)
    found = [(ending, package) for ending in endings if (package := plugin_for(ending))]
    return f" `pip install {found[0][1]}` reads {found[0][0]}." if found else ""
