"""Series of images, such as the frames of a video: divided between the parts, what is scored was nearly learnt.

Where the data have parts, series that lie in both are told; where the parts are drawn, series are found before and stay whole.
An image's neighbour is the training image of the next number, in a folder that is called the same but for words of parts, and
otherwise of the same name; or of the same name before the mark that Roboflow puts between a name and the number of a copy.
"""

import bisect
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.band_store import BandStore
from convnext.data.decode import decode, to_pillow
from convnext.data.parts import part_of_folder
from convnext.data.scan import PREVIEW_PX, looked_at
from convnext.data.store import Store, printable
from convnext.errors import DataError, number_of

_SIDE = 16  # of a miniature, in pixels
_ALIKE = 0.97  # correlation of two, from which on they show the same scene
_FLAT = 4.0  # std of grey values of 256, below which there is no scene
_LEAST, _SHARE, _TIMES = 3, 0.1, 4  # held-out images that are told: so many, of all, and of those alike by chance
_TRIES = 50  # images that are asked for one of another series
_NUMBER = re.compile(r"(\d+)(\D*)$")
_COPY = re.compile(r"\.rf\.[0-9a-f]+$")  # Roboflow's
_MOST = 100_000  # images among which series are looked for
_PAIRS = 200  # of neighbours that show whether there may be series
_STRIDE = 7919  # a prime, by which images to compare with are spread
_RARE = 0.015  # of these pairs must be alike, at least

Look = Callable[[Sequence[int]], Sequence[bytes]]  # places of images -> a miniature of each, b'' where there is none


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


def series_in(paths: Sequence[str], labels: NDArray[np.integer], look: Look) -> NDArray[np.int32]:
    """(N,): a number for each series of two images or more, 0 for the images of none.

    Copies of one image are known by their names. Neighbours by number are of one series where they look alike, and where
    that is no chance: a few pairs of neighbours are compared first, beside images of other series or far away in the same.
    `labels`: (N,) classes, by which such others are chosen.
    """
    found = np.zeros(len(paths), np.int32)
    if len(paths) > _MOST:
        return found
    rows: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for place, path in enumerate(paths):
        name, number = _numbered(path)
        rows[name].append((number, place))
    chains = [[place for _, place in sorted(row)] for row in rows.values() if len(row) > 1]
    ends = [(number_in(paths[chain[0]]), number_in(paths[chain[-1]])) for chain in chains]
    copies = [chain for chain, (first, last) in zip(chains, ends, strict=True) if first == last]
    chains = [chain for chain, (first, last) in zip(chains, ends, strict=True) if first != last]
    if chains and _may_be_series(chains, labels, look):
        chains = [part for chain in chains for part in _alike_ones(chain, look)]
    else:
        chains = []
    for number, chain in enumerate([*copies, *chains], 1):
        found[chain] = number
    return found


def looked_at_series(paths: Sequence[str], labels: NDArray[np.integer], store: Store) -> NDArray[np.int32]:
    """The same of images that a store reads; `labels` are (N,), or (N, K) marks of several an image."""
    if isinstance(store, BandStore):
        return np.zeros(len(paths), np.int32)
    seen: dict[int, bytes] = {}

    def small(task: tuple[str, int]) -> bytes:
        try:
            return miniature(decode(store.read(paths[task[1]]), least_px=PREVIEW_PX))
        except (DataError, OSError):  # the look at all images names it
            return b""

    def look(places: Sequence[int]) -> Sequence[bytes]:
        new = [place for place in places if place not in seen]
        wanted = _Some([paths[place] for place in new], store)
        done = looked_at({"": wanted}, lambda path: (path,), lambda task: small(("", new[task[1]])), 0, 1)
        seen.update(zip(new, done, strict=True))
        return [seen[place] for place in places]

    return series_in(paths, labels if labels.ndim == 1 else labels.argmax(1), look)


def series_note(paths: Sequence[str], units: NDArray[np.int32]) -> str:
    """That series stay whole, as a sentence; '' where there are none."""
    inside = units > 0
    if not inside.any():
        return ""
    series = len(np.unique(units[inside]))
    first, second = (printable(paths[place]) for place in np.flatnonzero(units == units[inside][0])[:2].tolist())
    many = f"{number_of(int(inside.sum()), 'image')} are of {number_of(series, 'series', 'series')}"
    return (
        f"{many} (frames of a video, bursts, copies), as {first} and {second}. Each series is in one part as a whole."
    )


def number_in(path: str) -> int:
    """The number by which an image follows another of its series."""
    return _numbered(path)[1]


@dataclass(frozen=True)
class _Some:
    """Paths, and the store that reads them."""

    entries: Sequence[str]
    store: Store


def _may_be_series(chains: Sequence[Sequence[int]], labels: NDArray[np.integer], look: Look) -> bool:
    """Whether neighbours are alike more often than other images are by chance."""
    chain_of = {place: number for number, chain in enumerate(chains) for place in chain}
    pairs = [(chain[at], chain[at + 1]) for chain in chains for at in range(len(chain) - 1)]
    pairs = [pairs[int(step * len(pairs) / min(_PAIRS, len(pairs)))] for step in range(min(_PAIRS, len(pairs)))]
    of_label: dict[int, list[int]] = defaultdict(list)
    for place in chain_of:
        of_label[int(labels[place])].append(place)
    every, others = list(chain_of), []
    for step, (one, _) in enumerate(pairs):
        own, chain = chain_of[one], chains[chain_of[one]]
        able = (
            known[(step * _STRIDE + turn) % len(known)]
            for known in (of_label[int(labels[one])], every)
            for turn in range(min(_TRIES, len(known)))
        )
        far = chain[(chain.index(one) + len(chain) // 2) % len(chain)]
        others.append(next((place for place in able if chain_of[place] != own), far))
    wanted = list(dict.fromkeys([*(place for pair in pairs for place in pair), *others]))
    small = dict(zip(wanted, look(wanted), strict=True))
    near = sum(_alike(small[one], small[other]) for one, other in pairs)
    chance = sum(
        one != other and _alike(small[one], small[other]) for (one, _), other in zip(pairs, others, strict=True)
    )
    return near >= max(_LEAST, _RARE * len(pairs), _TIMES * chance)


def _alike_ones(chain: Sequence[int], look: Look) -> list[list[int]]:
    """The pieces of a chain in which each image looks like the one before; not those of one image."""
    small, parts = look(chain), [[chain[0]]]
    for place, before, here in zip(chain[1:], small, small[1:], strict=False):
        if _alike(before, here):
            parts[-1].append(place)
        else:
            parts.append([place])
    return [part for part in parts if len(part) > 1]


def _alike(one: bytes, other: bytes) -> bool:
    return bool(one and other) and correlation(one, other) >= _ALIKE


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
    return correlation(one.small, other.small)


def correlation(one: bytes, other: bytes) -> float:
    """Of two miniatures, 0 where one shows nothing."""
    a, b = (np.frombuffer(small, np.uint8).astype(np.float32) for small in (one, other))
    a, b = a - a.mean(), b - b.mean()
    spread = min(a.std(), b.std())
    return float((a * b).mean() / (a.std() * b.std())) if spread >= _FLAT else 0.0
