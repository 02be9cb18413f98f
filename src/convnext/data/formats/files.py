"""Finding the image that an annotation means, whatever folder it was moved to."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from convnext.data.codecs import image_suffixes, suffixes_in
from convnext.data.names import Names
from convnext.data.parts import part_of
from convnext.data.store import Tree, is_zip, printable, require, tree_of
from convnext.data.written import loose, spellings
from convnext.errors import DataError


class Finder(Protocol):
    """Whatever knows which image a name means."""

    def find(self, name: str, part: str = "", *, beside: str = "", surely: bool = False) -> str | None:
        """As `ImageFinder.find`."""
        ...


class ImageFinder:
    """The image files of a tree, by name."""

    def __init__(self, files: Names):
        self.images = image_files(files)

    def find(self, name: str, part: str = "", *, beside: str = "", surely: bool = False) -> str | None:
        """The file that `name`, as somebody wrote it, means; of several with that name the one nearest to it.

        `part`, 'train', 'val' or 'test', decides where several have one, then `beside`, the folder of the file that
        names the image. `surely`: None where nothing decides between several.
        """
        for spelling in spellings(name):
            folder, _, last = spelling.rpartition("/")
            files = self._by_name.get(last, ())
            if files and beside and f"{beside}/{spelling}" in files:
                return f"{beside}/{spelling}"
            if found := spelling if spelling in files else _nearest(files, folder, part, beside, surely):
                return found
        for spelling in spellings(name):
            folder, _, last = spelling.rpartition("/")
            if found := _nearest(self._by_loose_name.get(loose(last), ()), folder, part, beside, surely):
                return found
        return None

    def find_stem(self, stem: str, part: str = "", *, surely: bool = False) -> str | None:
        """As `find`, for a name without its ending."""
        folder, _, last = stem.rpartition("/")
        files = self._by_stem.get(last) or self._by_loose_stem.get(loose(last), [])
        return _nearest(files, folder, part, surely=surely)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: name)

    @cached_property
    def _by_loose_name(self) -> dict[str, list[str]]:
        return self._grouped(loose)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: os.path.splitext(name)[0])

    @cached_property
    def _by_loose_stem(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: loose(os.path.splitext(name)[0]))

    def _grouped(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.images:
            name = key(file.rsplit("/", 1)[-1])
            found.setdefault(name, []).append(file)
        return found


def _nearest(files: Sequence[str], folder: str, part: str, beside: str = "", surely: bool = False) -> str | None:
    """Of files with the right name: most folders in common from the end, then the right part, then the shortest."""
    folders = folder.split("/") if folder else []

    def order(file: str) -> tuple[int, bool, bool]:
        own = file.split("/")[:-1]
        common = 0
        while common < min(len(own), len(folders)) and loose(own[-1 - common]) == loose(folders[-1 - common]):
            common += 1
        return -common, part != "" and part_of(file) not in ("", part), not file.startswith(f"{beside}/")

    if len(files) < 2:
        return files[0] if files else None
    best = min(map(order, files))
    near = [file for file in files if order(file) == best]
    return None if surely and len(near) > 1 else min(near, key=lambda file: (len(file), file))


def image_files(files: Names) -> Names:
    """Those whose ending is an image's; arrays of NumPy only where nothing else is one."""
    return files.take(files.ending_in(suffixes_in(ending for ending, _ in files.endings())))


def is_image(file: str) -> bool:
    """Whether its ending is an image's."""
    return os.path.splitext(file)[1].lower() in image_suffixes()


def open_tree(path: str | Path, *, what: str) -> Tree:
    """The files of a folder or a zip. Raises DataError when there is none; `what` it should hold is for the message."""
    path = Path(path)
    require(path)
    if not path.is_dir() and not is_zip(path):
        raise DataError(f"'{printable(str(path))}' is one file. Name a folder or a zip with {what}.")
    return tree_of(path)
