"""Finding the image that an annotation means, whatever folder it was moved to."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from convnext.data.decode import image_suffixes
from convnext.data.formats.table import TRAIN_NAMES, VAL_NAMES
from convnext.data.names import Names
from convnext.data.store import Tree, is_zip, printable, require, tree_of
from convnext.errors import DataError

PARTS = ("train", "val", "test")


class ImageFinder:
    """The image files of a tree, by name."""

    def __init__(self, files: Names):
        self.images = files.take(files.ending_in(image_suffixes()))

    def find(self, name: str, part: str = "") -> str | None:
        """The file that `name`, with or without folders, means; of several with that name the one nearest to it.

        `part`, 'train' or 'val', decides where both have one.
        """
        name = name.replace("\\", "/").removeprefix("./")
        words = name.split("/")
        files = self._by_name.get(words[-1], ())
        return name if name in files else _nearest(files, words[:-1], part)

    def find_stem(self, stem: str, part: str = "") -> str | None:
        """As `find`, for a name without its ending."""
        words = stem.split("/")
        return _nearest(self._by_stem.get(words[-1], ()), words[:-1], part)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: name)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: os.path.splitext(name)[0])

    def _grouped(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.images:
            name = key(file.rsplit("/", 1)[-1])
            found.setdefault(name, []).append(file)
        return found


def _nearest(files: Sequence[str], folders: list[str], part: str) -> str | None:
    """Of files with the right name: most folders in common from the end, then the right part, then the shortest."""

    def order(file: str) -> tuple[int, bool, int, str]:
        own = file.split("/")[:-1]
        common = 0
        while common < min(len(own), len(folders)) and own[-1 - common] == folders[-1 - common]:
            common += 1
        return -common, part != "" and part_of(file) not in ("", part), len(file), file

    return min(files, key=order) if files else None


def part_of(path: str) -> str:
    """'train', 'val' or 'test' when a folder of `path` is called so, as train2017 or training, else ''."""
    for folder in path.split("/")[:-1]:
        if part := part_of_word(folder):
            return part
    return ""


def part_of_name(name: str) -> str:
    """The same for words of a file's name, as instances_val2017.json; the last that says so decides."""
    words = name.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("-", "_").split("_")
    return next((part for part in map(part_of_word, reversed(words)) if part), "")


def part_of_word(word: str) -> str:
    """The part that one word means, or ''."""
    bare = word.lower().rstrip("0123456789")
    if bare in (*TRAIN_NAMES, "training"):
        return "train"
    return "test" if bare == "test" else "val" if bare in VAL_NAMES else ""


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
