"""What a look at images of bands finds beside broken files: pixels of nothing, flat bands, values of another scale."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from convnext.config import Bands
from convnext.data.band_files import opened
from convnext.data.bands import chosen, require_like
from convnext.data.scan import listed
from convnext.errors import DataError

_FAR = 50.0  # times the others' largest value, either way: another unit, as reflectance in 0 to 1 among 0 to 10,000
_SHARE = 0.01  # of an image that may hold nothing without a word


@dataclass(frozen=True)
class BandLook:
    """Of one image."""

    size: tuple[int, int]  # (height, width)
    flat: tuple[int, ...]  # channels with one value everywhere, from 0
    empty: float  # share of its values that are NaN or marked as nothing
    largest: float  # by absolute value


def look_at_bands(data: bytes, config: Bands, *, full: bool = True) -> BandLook:
    """At a file of a set that is read by `config`, `full` False: at its header. Raises DataError where it cannot be."""
    if not full:
        return BandLook(require_like(opened(data), config), (), 0.0, 0.0)
    values, empty = chosen(opened(data), config)
    if empty is not None and empty.all():
        raise DataError("it holds no data: every pixel is NaN or marked as nothing")
    flat, largest = [], 0.0
    for channel in range(values.shape[2]):
        band = values[:, :, channel] if empty is None else values[:, :, channel][~empty[:, :, channel]]
        low, high = (float(band.min()), float(band.max())) if band.size else (0.0, 0.0)
        largest = max(largest, abs(low), abs(high))
        if low == high:
            flat.append(channel)
    share = 0.0 if empty is None else float(empty.mean())
    return BandLook((values.shape[0], values.shape[1]), tuple(flat), share, largest)


def band_lines(seen: Sequence[tuple[str, BandLook]], config: Bands | None) -> Iterator[str]:
    """What is to be said of images, (path, look)."""
    if config is None or not seen:
        return
    holed = [(path, look.empty) for path, look in seen if look.empty]
    if holed:
        many = sum(share for _, share in holed) / len(holed)
        yield listed(
            len(holed),
            f"image{{s}} {{have}} pixels that are NaN or marked as nothing ({many:.1%} of them), which are filled with the "
            "mean",
            (f"{path} ({share:.1%})" for path, share in holed),
        )
    flat = Counter(channel for _, look in seen for channel in look.flat)
    for channel, count in sorted(flat.items()):
        some = (path for path, look in seen if channel in look.flat)
        yield listed(count, f"image{{s}} {{have}} one value in all of band {config.bands[channel]}", some)
    yield from _scales(seen)


def _scales(seen: Sequence[tuple[str, BandLook]]) -> Iterable[str]:
    """Images whose values are of another size than the others'."""
    usual = float(np.median([look.largest for _, look in seen]))
    far = [(path, look.largest) for path, look in seen if look.largest * _FAR < usual or look.largest > usual * _FAR]
    if usual and far:
        some = (f"{path} ({largest:g})" for path, largest in far)
        yield listed(
            len(far), f"image{{s}} {{have}} values up to another size than the usual {usual:g}: other units?", some
        )
