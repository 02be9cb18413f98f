"""Which fold holds out which image: classes spread evenly, copies kept together, a function of (seed, paths) alone.

Axes: N images.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convnext.errors import ConvNeXtError, number_of

LEAST = 2


def require_folds(folds: int, images: int) -> None:
    """Raise ConvNeXtError unless so many images can be held out in turns."""
    if folds < LEAST:
        raise ConvNeXtError(f"folds = {folds} is refused: it must be a whole number, {LEAST} or more.")
    if folds > images:
        raise ConvNeXtError(f"folds = {folds} is refused: there are only {number_of(images, 'image')}. Give fewer.")


def parts(
    paths: Sequence[str], labels: Sequence[int], groups: Sequence[Sequence[int]], folds: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """(N,): the fold, from 0, that holds out each image. `groups` are places of images that stay together.

    Groups come in the order of a hash of (seed, path); each goes where its class, and then everything, has the fewest.
    Raises ConvNeXtError where there are fewer images than folds.
    """
    require_folds(folds, len(paths))
    keys = [_key(path, seed) for path in paths]
    together = {place: tuple(group) for group in groups for place in group}
    of_class = np.zeros((max(labels, default=0) + 1, folds), np.int64)
    whole, found = np.zeros(folds, np.int64), np.full(len(paths), -1, np.int64)
    for place in sorted(range(len(paths)), key=lambda place: (keys[place], place)):
        if found[place] >= 0:
            continue
        group = list(together.get(place, (place,)))
        fold = int(np.lexsort((whole, of_class[labels[place]]))[0])
        found[group] = fold
        whole[fold] += len(group)
        for each in group:
            of_class[labels[each], fold] += 1
    return found


def _key(path: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:fold:{path}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
