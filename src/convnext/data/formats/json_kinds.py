"""Which tool wrote a JSON file, by the keys that it holds: told from its bytes, before anybody reads it as JSON."""

import os
from collections.abc import Container, Iterator

from convnext.data.codecs import image_suffixes
from convnext.data.problems import DAMAGED, Problem
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

_KEYS: dict[str, tuple[bytes, ...]] = {  # the surest first; all of a row must be there
    "panoptic": (b'"segments_info"', b'"annotations"'),
    "coco": (b'"images"', b'"annotations"', b'"categories"'),
    "labelme": (b'"shapes"', b'"imagePath"'),
    "via": (b'"regions"', b'"file_attributes"'),
    "supervisely": (b'"geometryType"', b'"objects"'),
    "datumaro": (b'"items"', b'"categories"', b'"annotations"'),
    "fiftyone": (b'"labels"', b'"bounding_box"'),
    "cityscapes": (b'"imgHeight"', b'"polygon"'),
    "superannotate": (b'"instances"', b'"metadata"', b'"className"'),
    "labelbox": (b'"data_row"', b'"projects"'),
    "label studio": (b'"annotations"', b'"result"', b'"data"'),
    "label studio min": (b'"annotation_id"', b'"annotator"'),
    "createml": (b'"coordinates"', b'"annotations"', b'"image'),
    "bdd": (b'"box2d"', b'"labels"'),
}
_ONE_IMAGE = frozenset({"labelme", "supervisely", "cityscapes", "superannotate"})  # a file for each image
_SMALL = 1_000_000  # bytes of a file that may as well be kept
_TAIL = 100  # bytes that show whether a file is whole
_SEEN = 3  # files, after which a folder is known to hold more of their kind


def json_kind(data: bytes) -> str:
    """The row of the table that a file answers to, or ''."""
    return next((kind for kind, keys in _KEYS.items() if all(key in data for key in keys)), "")


class Sidecars:
    """Files beside images, one for each: of very many, the first few tell that no list of images is among them."""

    def __init__(self, tree: Tree):
        self._tree = tree
        self._seen: dict[str, int] = {}  # folder -> files that are no list of images
        self._ones: set[str] = set()  # folders with a file that is known to be of one image
        self._stems: set[str] | None = None

    def see(self, file: str, kind: str) -> None:
        """A file of the tree that was read, and its kind."""
        folder = file.rpartition("/")[0]
        self._seen[folder] = self._seen.get(folder, 0) + (kind != "coco")
        self._ones |= {folder} if kind in _ONE_IMAGE else set()

    def is_one(self, file: str) -> bool:
        """Whether a file lies among such and is called as an image is. Without images, those of known tools are."""
        folder, _, name = file.rpartition("/")
        if self._seen.get(folder, 0) < _SEEN:
            return False
        if self._stems is None:
            images = self._tree.files.take(self._tree.files.ending_in(image_suffixes()))
            names = (image.rsplit("/", 1)[-1] for image in images)
            self._stems = {stem for name in names for stem in (name, os.path.splitext(name)[0])}
        named = os.path.splitext(name)[0].partition("___")[0] in self._stems
        return named or (not self._stems and folder in self._ones)


def survey(tree: Tree, leave: Container[str] = ()) -> Iterator[tuple[str, str]]:
    """(file, kind) of the JSON files of a tree but for those in `leave`; of files beside images the first few.

    What is read is kept for whoever opens it, but for large files of no kind.
    """
    sidecars = Sidecars(tree)
    for file in tree.files.take(tree.files.ending_in({".json"})):
        if file in leave or file in tree.once.passed_over or sidecars.is_one(file):
            continue
        data = tree.once.read(file)
        kind = json_kind(data)
        sidecars.see(file, kind)
        if len(data) > _SMALL and not kind and data[-_TAIL:].rstrip()[-1:] in (b"}", b"]"):  # such as captions
            tree.once.pass_over(file)
        yield file, kind


def damaged_json(tree: Tree, leave: Container[str] = ()) -> list[Problem]:
    """The JSON files of a tree whose kind cannot be told because they are cut off or no JSON, but for those in `leave`.

    Of files beside images the first few. To be asked before the others are taken.
    """
    flaws = [
        (file, flaw_of(tree.once.read(file))) for file, kind in survey(tree, leave) if not kind and _kept(tree, file)
    ]
    return [Problem(DAMAGED, printable(file), why) for file, why in flaws if why]


def flaw_of(data: bytes) -> str:
    """Why a file is no JSON, '' where it is."""
    try:
        json_in(data)
    except DataError as error:
        return str(error)
    return ""


def _kept(tree: Tree, file: str) -> bool:
    return file not in tree.once.passed_over


def json_files(tree: Tree, kind: str) -> list[str]:
    """The JSON files of a tree that are of a kind; of files beside images the first few."""
    return [file for file, own in survey(tree) if own == kind]
