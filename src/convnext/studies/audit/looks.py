"""What an image looks like, in a kilobyte: a grey miniature, a hash of its gradients, a digest of its file.

The hash is the difference hash: a bit for each of 8 x 8 places, whether the image gets brighter to the right there. It stays
nearly the same through resizing and compression. The miniature is what settles whether two images are the same.
Axes: N images, S = SIDE pixel rows and columns.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.config import Bands
from convnext.data.bands import shown_to_eyes
from convnext.data.decode import decode, to_pillow
from convnext.data.store import Store, printable
from convnext.errors import DataError, reason_of
from convnext.files import appearing

SIDE = 32  # of the miniature
_HASHED = (9, 8)  # columns and rows, neighbours of which are compared
_TOGETHER = 1024  # images that the threads are given at once


@dataclass(frozen=True)
class Looks:
    """Of N images, in the order of their data set; zeros where one could not be read."""

    small: NDArray[np.uint8]  # (N, S, S) grey
    hashes: NDArray[np.uint64]  # (N,)
    mirrored: NDArray[np.uint64]  # (N,) hashes of the mirrored images
    digests: NDArray[np.uint64]  # (N,) of the bytes of the files
    reasons: tuple[str, ...]  # why an image could not be read, '' for the others

    @property
    def read(self) -> NDArray[np.bool_]:
        """(N,): whether an image could be read."""
        return np.array([not reason for reason in self.reasons], bool)

    def write(self, file: Path, known: str) -> None:
        """Keep them for `read_looks`, which asks for the same `known`. Raises OSError where the disk refuses."""
        arrays = {name: getattr(self, name) for name in ("small", "hashes", "mirrored", "digests")}
        with appearing(file) as made, open(made, "wb") as opened:
            np.savez(opened, **arrays, reasons=np.array(self.reasons, str), known=np.array(known))


def read_looks(file: Path, known: str) -> Looks | None:
    """What was kept of the same images; None where there is nothing whole of them."""
    try:
        with np.load(file) as held:
            if str(held["known"]) != known:
                return None
            arrays = [held[name] for name in ("small", "hashes", "mirrored", "digests")]
            return Looks(arrays[0], arrays[1], arrays[2], arrays[3], tuple(map(str, held["reasons"])))
    except Exception:  # noqa: BLE001 - missing or damaged, in whatever way: it is made again
        return None


def look_at(
    store: Store,
    paths: Sequence[str],
    *,
    workers: int = -1,
    bands: Bands | None = None,
    seen: Callable[[int], None] = lambda done: None,
) -> Looks:
    """Look at each image once, by threads; `seen` is told how many are done. `bands`: how images of bands are read."""
    count = len(paths)
    small = np.zeros((count, SIDE, SIDE), np.uint8)
    numbers = np.zeros((3, count), np.uint64)
    reasons = [""] * count

    def look(path: str) -> tuple[NDArray[np.uint8], tuple[int, int, int]] | str:
        try:
            data = store.read(path)
            shown = _grey(data, bands)
        except (DataError, OSError) as error:
            return reason_of(error)
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
        mini = np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        turned = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return mini, (difference_hash(shown), difference_hash(turned), digest)

    with ThreadPoolExecutor(workers if workers > 0 else min(8, os.cpu_count() or 1)) as pool:
        for place, found in enumerate(_in_turn(pool, look, paths)):
            if isinstance(found, str):
                reasons[place] = found
            else:
                small[place], numbers[:, place] = found
            if (place + 1) % 32 == 0:
                seen(place + 1)
    return Looks(small, numbers[0], numbers[1], numbers[2], tuple(reasons))


def _grey(data: bytes, bands: Bands | None) -> Image.Image:
    """An image in grey, of bands that which people are shown."""
    if bands is None:
        return to_pillow(decode(data, channels=1, least_px=2 * SIDE))
    return to_pillow(shown_to_eyes(data, bands)).convert("L")


def difference_hash(image: Image.Image) -> int:
    """64 bits of a grey image."""
    pixels = np.asarray(image.resize(_HASHED, Image.Resampling.BILINEAR), np.int16)
    bits = (pixels[:, 1:] > pixels[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "little")


def known_as(paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> str:
    """16 digits that tell one labelled set of images from another."""
    digest = hashlib.blake2b(digest_size=8)
    for path, label in zip(paths, labels, strict=True):
        digest.update(f"{printable(path)}\t{classes[label]}\n".encode())
    return digest.hexdigest()


def _in_turn(pool: ThreadPoolExecutor, look: Callable, paths: Sequence[str]) -> Iterator:
    rest = iter(paths)
    while chunk := list(islice(rest, _TOGETHER)):
        yield from pool.map(look, chunk)
