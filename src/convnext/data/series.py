"""Series of images, such as the frames of a video, that were divided between the parts: what is scored was nearly learnt.

An image's neighbour is the training image of the next number, in a folder that is called the same but for words of parts, and
otherwise of the same name; or of the same name before the mark that Roboflow puts between a name and the number of a copy.
"""

import bisect
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.decode import to_pillow
from convnext.data.parts import part_of_folder

_SIDE = 16  # of a miniature, in pixels
_ALIKE = 0.97  # correlation of two, from which on they show the same scene
_FLAT = 4.0  # std of grey values of 256, below which there is no scene
_LEAST, _SHARE, _TIMES = 3, 0.1, 4  # held-out images that are told: so many, of all, and of those alike by chance
_TRIES = 50  # images that are asked for one of another series
_NUMBER = re.compile(r"(\d+)(\D*)$")
_COPY = re.compile(r"\.rf\.[0-9a-f]+$")  # Roboflow's


class Shot(NamedTuple):
    """An image in a series, perhaps."""

    path: str
    label: object
    small: bytes  # as `miniature` makes it, b'' where it was not looked at
    digest: bytes  # of what the file holds: exact copies are told elsewhere


def miniature(pixels: NDArray[np.uint8]) -> bytes:
    """What (H, W, C) pixels show, in 256 bytes."""
    return to_pillow(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX).tobytes()


def series_line(train: Iterable[Shot], held: Iterable[Shot]) -> str:
    """That held-out images have their neighbours among those to train on; '' where they have not, or do not look like them.

    An image of another series, of the same class where there is one, tells how alike any two are.
    """
    learnt = [shot for shot in train if shot.small]
    numbered: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    of_label: dict[object, list[int]] = defaultdict(list)
    names = [_numbered(shot.path) for shot in learnt]
    for place, (shot, (name, number)) in enumerate(zip(learnt, names, strict=True)):
        numbered[name].append((number, place))
        of_label[shot.label].append(place)
    for rows in numbered.values():
        rows.sort()
    compared, chance, alike = 0, 0, list[tuple[str, str]]()
    for shot in held:
        name, number = _numbered(shot.path)
        near = numbered.get(name)
        if not shot.small or not near:
            continue
        compared += 1
        beside = [learnt[place] for place in _nearest(near, number)]
        found = [one for one in beside if one.digest != shot.digest and _likeness(shot, one) >= _ALIKE]
        alike += [(shot.path, found[0].path)] if found else []
        start = zlib.crc32(shot.path.encode("utf-8", "surrogateescape"))
        every = (of_label.get(shot.label, []), range(len(learnt)))
        some = (places[(start + step) % len(places)] for places in every for step in range(min(_TRIES, len(places))))
        other = next((place for place in some if names[place][0] != name), near[start % len(near)][1])
        chance += _likeness(shot, learnt[other]) >= _ALIKE
    if len(alike) < max(_LEAST, _SHARE * compared, _TIMES * chance):
        return ""
    first, second = (path.replace("\n", "\\n").replace("\r", "\\r") for path in alike[0])
    return (
        f"{len(alike):,} of {compared:,} held-out images look almost like the training image of the next number, as "
        f"{first} and {second}: frames of one video, or copies? That flatters the result. Put each series into one part, "
        "train/ or val/."
    )


def _numbered(path: str) -> tuple[tuple[str, str], int]:
    """((folders that say no part, and the name without its last number; what follows that), the number)."""
    folder, _, name = path.rpartition("/")
    whole = name.rpartition(".")[0] or name
    stem = _COPY.sub("", whole)
    found = _NUMBER.search(stem) if stem == whole else None  # copies of one image are one by their name
    if found is None:
        return (f"{_no_part(folder)}/{stem}", ""), 0
    return (f"{_no_part(folder)}/{stem[: found.start()]}", found[2]), int(found[1])


@cache
def _no_part(folder: str) -> str:
    return "/".join(word for word in folder.split("/") if not part_of_folder(word))


def _nearest(rows: Sequence[tuple[int, int]], number: int) -> list[int]:
    """The places of the neighbours on both sides."""
    at = bisect.bisect_left(rows, (number, -1))
    return [place for _, place in rows[max(0, at - 1) : at + 1]]


def _likeness(one: Shot, other: Shot) -> float:
    """The correlation of two miniatures, 0 where one shows nothing."""
    a, b = (np.frombuffer(shot.small, np.uint8).astype(np.float32) for shot in (one, other))
    a, b = a - a.mean(), b - b.mean()
    spread = min(a.std(), b.std())
    return float((a * b).mean() / (a.std() * b.std())) if spread >= _FLAT else 0.0
