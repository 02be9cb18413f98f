"""The images that a table may name: how a cell finds its image, and which column is the one that names them."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from convnext.data.formats.columns import path_column
from convnext.data.formats.files import ImageFinder, is_image
from convnext.data.names import Names
from convnext.data.store import FolderStore, Tree, tree_of
from convnext.errors import DataError

LOOKS = 50  # cells of a column that show what is in it


class Shown:
    """The images of a folder or a zip."""

    def __init__(self, tree: Tree):
        self.tree = tree
        self._around: Path | None = None
        if len(tree.files) == 1 and isinstance(tree.store, FolderStore):
            self._around = Path(tree.store.root or ".")

    @cached_property
    def _finder(self) -> ImageFinder:
        return ImageFinder(self.tree.files)

    @property
    def images(self) -> Names:
        """All of them."""
        return self._finder.images

    @property
    def listed(self) -> bool:
        """Whether the images are known without a look around."""
        return self._around is None

    def listed_around(self) -> Tree:
        """The folder in which a file lies that is its own tree."""
        return self.tree if self._around is None else tree_of(self._around)

    def find(self, cell: str, part: str = "", beside: str = "") -> str | None:
        """The image that a cell means, with its ending or without; None for none, and where nothing decides between several."""
        found = self._finder.find(cell, part, beside=beside, surely=True)
        return self._finder.find_stem(cell, part, surely=True) if found is None and not is_image(cell) else found

    def names(self, cells: Sequence[Any]) -> bool:
        """Whether cells name images: most of them, and each another one."""
        looked = [str(cell).strip() for cell in cells[:LOOKS] if isinstance(cell, str | int)]
        words = set(looked) - {""}
        if 2 * len(words) <= len(looked):  # numbers of classes, and not of images
            return False
        return 2 * len({image for word in words if (image := self._any(word))}) > len(words)

    def _any(self, word: str) -> str | None:
        """An image that a cell could mean, whichever of several."""
        try:
            return self._finder.find(word) or self._finder.find_stem(word)
        except DataError:  # a name that no file can have
            return None

    def column(self, names: Sequence[str], values: Callable[[str], Sequence[Any]]) -> str:
        """The column whose cells name images, '' where one is called as such a column is, or none does."""
        if path_column(names):
            return ""
        return next((name for name in names if name.strip() and self.names(values(name))), "")
