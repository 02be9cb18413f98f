"""Which images are held out of data that have no val part: by a hash, the same on every machine and in a zip."""

import hashlib
from collections.abc import Iterable

from convnext.errors import DataError


def require_share(val_share: float) -> None:
    """Raise DataError unless `val_share` can be held out."""
    if not 0 <= val_share < 1:
        raise DataError(f"val_share = {val_share:g} must be at least 0 and less than 1.")


def held_out(paths: Iterable[str], val_share: float, seed: int) -> list[int]:
    """Places among `paths` of the share to hold out: at least one of two, by the order of a hash of (seed, path)."""
    keys = [_key(path, seed) for path in paths]
    count = min(len(keys) - 1, max(1, round(len(keys) * val_share))) if val_share else 0
    return sorted(range(len(keys)), key=keys.__getitem__)[:count]


def _key(path: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{path}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
