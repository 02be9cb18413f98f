"""Class folders whose names could mean something else: parts, images and their masks, or sets that hold the classes."""

import re
from collections import Counter

from convnext.data.formats.listing import Listing
from convnext.data.formats.mask_folders import IMAGE_WORDS, MASK_WORDS
from convnext.data.names import Names
from convnext.data.parts import part_of_word
from convnext.data.store import printable
from convnext.errors import number_of

_SHOWN = 4  # names in a line
_NUMBERED = re.compile(r"([\s_.-]*\(?\d+\)?)+$")  # the end of a name
_OFTEN, _FEW_CLASSES = 2, 2  # images that begin so, and such beginnings
_MOSTLY = 0.5  # of the images


def doubtful_classes(listing: Listing) -> tuple[str, ...]:
    """A line for each way in which these folders may be no classes; they are taken for classes all the same."""
    lines = []
    names = [printable(name) for name in listing.classes]
    parts = [name for name in names if part_of_word(name)]
    pictured = [name for name in names if name.lower() in IMAGE_WORDS | MASK_WORDS]
    if parts and len(parts) == len(names):
        lines.append(
            f"The folders {_shown(names)} are taken for classes; by their names they could be parts of the data."
        )
    elif pictured and len(pictured) == len(names):
        lines.append(
            f"The folders {_shown(names)} are taken for classes; by their names they could be images and their masks. "
            "For those say --task segmentation."
        )
    inside = _inside(listing)
    if len(inside) == len(names) > 1 and len(set(inside.values())) == 1 and len(next(iter(inside.values()))) > 1:
        same = [printable(name) for name in sorted(next(iter(inside.values())))]
        lines.append(
            f"The folders {_shown(names)} are taken for classes, and each holds the same folders {_shown(same)}: if those "
            "are the classes, put their images together."
        )
    return tuple(lines)


def _inside(listing: Listing) -> dict[int, frozenset[str]]:
    """Label -> the folders in its folder; {} where images lie in the folder itself."""
    found: dict[int, set[str]] = {}
    pairs = zip(listing.paths.prefix.tolist(), listing.labels.tolist(), strict=True)
    for prefix, label in set(pairs):
        folders = listing.paths.prefixes[prefix].split("/")[:-1]
        place = next((at for at, folder in enumerate(folders) if printable(folder) == listing.classes[label]), -1)
        if place < 0 or len(folders) <= place + 1:
            return {}
        found.setdefault(label, set()).add(folders[place + 1])
    return {label: frozenset(folders) for label, folders in found.items()}


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more


def unlabelled(name: str, paths: Names) -> str:
    """That nothing says which classes the images of `name` have, the way out, and what their own names begin with."""
    return (
        f"'{name}' holds {number_of(len(paths), 'image')} directly, without class folders.{_begun(paths)} Put the images of "
        "each class into a folder with its name, or write a CSV of path and label."
    )


def _begun(paths: Names) -> str:
    """The classes that names of images may begin with, as 'cat.0.jpg', in a sentence; '' for none."""
    found = Counter(_NUMBERED.sub("", path.rsplit("/", 1)[-1].rpartition(".")[0]) for path in paths)
    often = [word for word, count in found.most_common() if word and count >= _OFTEN]
    if len(often) < _FEW_CLASSES or sum(found[word] for word in often) < _MOSTLY * len(paths):
        return ""
    shown = ", ".join(f"'{printable(word)}'" for word in often[:_SHOWN])
    return f" Their names begin with {shown}{', ...' if len(often) > _SHOWN else ''}: are these the classes?"
