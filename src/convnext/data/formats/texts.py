"""Images with a text beside each that names its classes, one a line or with commas, ';' or '|' between them.

An empty text says that the image has no class. Images without a text are left out: nothing is said of them.
"""

import re

from convnext.data.codecs import image_suffixes
from convnext.data.formats.columns import Marks, Row
from convnext.data.formats.listing import Listing
from convnext.data.formats.several import settled
from convnext.data.formats.signatures import is_number, may_be_classes
from convnext.data.formats.table import listing_of_rows
from convnext.data.formats.yolo import Labels as Texts
from convnext.data.parts import part_of
from convnext.data.source import Labels
from convnext.data.store import Tree, printable
from convnext.data.written import decoded
from convnext.errors import DataError

_BETWEEN = re.compile(r"[\r\n,;|]")
_LOOKS = 50  # images that show whether texts lie beside them
_WITHOUT = "images without a text of labels"


def has_texts(tree: Tree) -> bool:
    """Whether images lie in no class folders, and most of them have a text of words."""
    texts = Texts(tree)
    if not texts.files or may_be_classes(tree):
        return False
    images = tree.files.take(tree.files.ending_in(image_suffixes()))
    some = [texts.of(image) for image in images[:: max(1, len(images) // _LOOKS)]]
    found = [file for file in some if file]
    if 2 * len(found) <= len(some):
        return False
    first = next(filter(None, (_names(tree, file) for file in found)), ())
    return any(not is_number(word) for name in first for word in name.split())


def listing_of_texts(tree: Tree, left_out: dict[str, int], labels: Labels | None) -> Listing:
    """Every image with a text. Raises DataError where there is none, or the texts are no labels."""
    texts, rows, without = Texts(tree), list[Row](), 0
    for image in tree.files.take(tree.files.ending_in(image_suffixes())):
        file = texts.of(image)
        without += file is None
        if file is not None:
            rows.append(Row(image, "", part_of(image), Marks(tuple(dict.fromkeys(_names(tree, file))))))
    if not rows:
        raise DataError("there is no text beside an image. Write one for each, with the names of its classes.")
    kept, notes = settled(rows, labels, plural=True)
    left_out = {ending: count for ending, count in left_out.items() if ending != ".txt"}
    left_out |= {_WITHOUT: without} if without else {}
    said = f"The text beside each image names its classes, as '{printable(texts.of(kept[0].path) or '')}'."
    return listing_of_rows(kept, tree.store, left_out, (*tree.store.notes, said, *notes))


def _names(tree: Tree, file: str) -> tuple[str, ...]:
    text = decoded(tree.once.read(file))[0].lstrip("\ufeff")
    return tuple(name for piece in _BETWEEN.split(text) if (name := printable(piece.strip())))
