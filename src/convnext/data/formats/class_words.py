"""Class folders whose names could mean something else: parts, images and their masks, or sets that hold the classes."""

from convnext.data.formats.listing import Listing
from convnext.data.formats.mask_folders import IMAGE_WORDS, MASK_WORDS
from convnext.data.parts import part_of_word
from convnext.data.store import printable

_SHOWN = 4  # names in a line


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
