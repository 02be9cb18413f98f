"""Annotated images of which each band is a file of its own: a listing in which all files of an image are one.

scene_B02.tif and scene_B03.tif, or scene/B02.tif and scene/B03.tif, are called scene.tif there. Annotations may call the
image so, with another ending, as people name the colour image on which they drew, or by any of its bands.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from convnext.data.band_store import (
    BandStore,
    band_of,
    first_files,
    found_bands,
    named,
    no_such_files,
    together_note,
    without_band,
)
from convnext.data.dataset import DenseDataset
from convnext.data.formats.files import ImageFinder, image_files
from convnext.data.names import Names
from convnext.data.source import Source
from convnext.data.store import Tree, TreeStore
from convnext.errors import DataError

Parts = dict[str, DenseDataset]


class BandTreeStore(BandStore):
    """The files of a tree, where some paths are those of images of many files."""

    store: TreeStore

    def __init__(self, store: TreeStore, bands: Sequence[str], firsts: Mapping[str, str]):
        super().__init__(store, bands)
        self.firsts = firsts  # path of an image -> that of the file of its first band

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the files."""
        return self.store.notes

    def has(self, path: str) -> bool:
        """Whether there is such a file, or such an image."""
        return path in self.firsts or self.store.has(path)

    def below(self, prefix: str) -> "BandTreeStore":
        """The same, with paths counted from the folder `prefix`."""
        inside = {
            name[len(prefix) :]: first[len(prefix) :]
            for name, first in self.firsts.items()
            if name.startswith(prefix) and first.startswith(prefix)
        }
        return BandTreeStore(self.store.below(prefix), self.bands, inside)

    def read(self, path: str) -> bytes:
        """All bands of an image, or a file."""
        first = self.firsts.get(path)
        return self.store.read(path) if first is None else super().read(first)


class BandFinder(ImageFinder):
    """The images of such a tree, by their names, or those of their bands or of a colour image."""

    def __init__(self, files: Names, bands: Sequence[str]):
        super().__init__(files)
        self.bands = tuple(bands)

    def find(self, name: str, part: str = "", *, beside: str = "", surely: bool = False) -> str | None:
        """As for every finder."""
        whole = without_band(name.replace("\\", "/"), self.bands)
        return super().find(whole, part, beside=beside, surely=surely) or self.find_stem(
            os.path.splitext(whole)[0], part
        )


def finder_of(tree: Tree) -> ImageFinder:
    """Who finds the images of a tree by the names that annotations call them."""
    return (
        BandFinder(tree.files, tree.store.bands) if isinstance(tree.store, BandTreeStore) else ImageFinder(tree.files)
    )


def bands_of_tree(tree: Tree) -> tuple[str, ...]:
    """The bands that the names of all its images speak of; () where they speak of none."""
    return found_bands(image_files(tree.files), tree.store)


def as_shown(tree: Tree) -> Tree | None:
    """The same tree with an image in place of its files, where the names of all of them speak of bands."""
    bands = bands_of_tree(tree)
    return of_bands(tree, bands) if bands else None


def of_bands(tree: Tree, bands: Sequence[str]) -> Tree | None:
    """The same tree with an image in place of its files, one for each of `bands`; None where there is none."""
    shown = list(image_files(tree.files))
    firsts = {without_band(shown[place], bands): shown[place] for place in first_files(shown, bands)}
    if not firsts:
        return None
    apart = {file for file in shown if band_of(file, bands) is not None}
    files = Names.of(sorted({*firsts, *(file for file in tree.files if file not in apart)}))
    return tree._replace(files=files, store=BandTreeStore(tree.store, bands, firsts))


def opened(source: Source, opens: Callable[[Source], Parts]) -> Parts:
    """The parts of annotated images by `opens`, whose bands may be files.

    They are where a person names bands so. Where nobody names any, and all names of files speak of bands, they are unless
    several files of an image are annotated, each for itself.
    """
    if source.form == "masks":  # which finds its images by itself
        return opens(source)
    if named(source.bands or ()):
        return opens(_banded(source, source.bands or ()))
    bands = bands_of_tree(source.images) if source.bands is None else ()
    if not bands:
        return opens(source)
    try:
        each = opens(source)
        if len({band_of(entry.path, bands) for part in each.values() for entry in part.entries}) > 1:
            return each
    except DataError:  # the names of the files are not those of images
        pass
    found = opens(_banded(source, bands))
    return {part: replace(data, notes=(*data.notes, together_note(bands))) for part, data in found.items()}


def _banded(source: Source, bands: Sequence[str]) -> Source:
    shown = of_bands(source.images, bands)
    if shown is None:
        raise DataError(no_such_files(source.name, bands))
    return replace(source, images=shown, tree=shown if source.tree is source.images else source.tree)
