"""What the files of a set agree on, and the mean and the std of their bands: measured once, before the first step.

Axes: H W pixel rows and columns, C channels.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from convnext.config import Bands
from convnext.data.band_files import File, kind_of, opened, settled_order, turned
from convnext.data.band_store import BandStore
from convnext.data.bands import KINDS, chosen, holds_bands
from convnext.data.codecs import band_suffixes
from convnext.data.dataset import DenseDataset
from convnext.data.labelled import Dataset
from convnext.errors import DataError, number_of

LOOKED_AT = 256  # files whose headers decide what all of a set are
MEASURED = 1024  # images that mean and std are measured on, a fixed random sample of more
_SEED = 2201
Images = Dataset | DenseDataset
Made = TypeVar("Made")


@dataclass(frozen=True)
class BandFacts:
    """How a set is read, and what is to be said of that."""

    bands: Bands
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Moments:
    """Of the pixels of one image or of many, for each channel: how many, their mean, the sum of squares around it."""

    count: np.ndarray  # (C,)
    mean: np.ndarray
    squares: np.ndarray

    def with_(self, other: "_Moments") -> "_Moments":
        """Of both together: Chan et al. 1979."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * share
        return _Moments(count, self.mean + apart * share, squares)


def band_facts(
    train: Images,
    *,
    asked: Sequence[str] = (),
    channels: int | None = None,
    workers: int = 0,
    kept: Bands | None = None,
) -> BandFacts | None:
    """How the images of a set are read where they have other bands than grey or colour, or where bands are asked for.

    `asked`: the bands that a person names, in order; `channels`: how many they want; `kept`: how the run that goes on
    reads them, with what it measured. What most files of a sample are,
    all are to be. None where Pillow shows the images as people see them. Raises DataError where nothing fits.
    """
    named = train.store.bands if isinstance(train.store, BandStore) else ()
    if not asked and not named and not _may_hold_bands(train):
        return None
    sure = bool(asked or named)
    heads = [head for head in _each(train, LOOKED_AT, workers, lambda data: _head(data, sure)) if head is not None]
    files = [file for file in heads if isinstance(file, File)]
    if not sure and 2 * len(files) <= len(heads):
        return None
    if not files:
        return None  # the look at all images says why
    loose = [file.shape for file in files if not file.settled]
    order = settled_order(loose)
    (count, kind), _ = Counter(
        ((file.shape if file.settled else turned(file.shape, order))[2], kind_of(file.dtype)) for file in files
    ).most_common(1)[0]
    bands = tuple(named or asked) or tuple(str(number + 1) for number in range(count))
    _require_channels(channels, bands, count)
    blank: dict[str, Any] = {"mean": (0.0,) * len(bands), "std": (1.0,) * len(bands), "arrays": order}
    try:
        config = Bands(bands=bands, file_bands=0 if named else count, pixels=kind, **blank)
    except ValueError:
        wrong = next(name for name in bands if not name.isdecimal() or not 0 < int(name) <= count)
        raise DataError(
            f"--bands {','.join(bands)} names band '{wrong}', and these images have {number_of(count, 'band')}, counted "
            "from 1."
        ) from None
    lines = [_told(config, count)]
    if loose:
        lines.append(f"Arrays such as {' x '.join(map(str, loose[0]))} are read with their bands {order}.")
    if kept is not None and config == Bands(**kept.model_dump(include=set(Bands.model_fields)) | blank):
        config = config.model_copy(update={"mean": kept.mean, "std": kept.std})
        return BandFacts(config, (*lines, "Mean and std of each band are those that the run began with."))
    return _measured(train, config, lines, workers)


def _may_hold_bands(train: Images) -> bool:
    some = (train.entries[place].path for place in _places(train, LOOKED_AT))
    return any(os.path.splitext(path)[1].lower() in band_suffixes() for path in some)


def _told(config: Bands, count: int) -> str:
    what = "" if config.pixels == "uint8" else f" in {KINDS[config.pixels]}"
    if not config.numbers:
        return f"Each image is {number_of(len(config.bands), 'file')}{what}: {', '.join(config.bands)}, in this order."
    which = "" if config.bands == tuple(str(number + 1) for number in range(count)) else ", in this order"
    picked = f": {', '.join(config.bands)} are the channels{which}" if which else ", all of which are channels"
    return f"Images of {number_of(count, 'band')}{what}{picked}."


def _require_channels(channels: int | None, bands: Sequence[str], count: int) -> None:
    if channels is not None and channels != len(bands):
        some = ",".join(map(str, range(1, min(channels, count) + 1)))
        way = f"--bands {some} picks that many" if channels <= count else "leave it out, and it follows the images"
        raise DataError(f"--channels {channels} does not fit: the images have {number_of(len(bands), 'band')}; {way}.")


def _measured(train: Images, config: Bands, lines: list[str], workers: int) -> BandFacts:
    """With the mean and std of a sample of the training images."""

    def moments(data: bytes) -> _Moments | None:
        values, empty = chosen(opened(data), config)
        return _moments(values, empty)

    found = [each for each in _each(train, MEASURED, workers, moments) if each is not None]
    if not found:
        return BandFacts(config, tuple(lines))  # the look at all images says why
    total = found[0]
    for each in found[1:]:
        total = total.with_(each)
    scale = 1 if config.wide else 255
    std = np.sqrt(total.squares / np.maximum(total.count, 1))
    flat = [name for name, spread in zip(config.bands, std.tolist(), strict=True) if not spread]
    if flat:
        lines.append(
            f"{'Bands' if len(flat) > 1 else 'Band'} {', '.join(flat)} {'are' if len(flat) > 1 else 'is'} constant over all "
            "images and tell nothing: --bands can leave them out."
        )
    many = number_of(len(found), "training image")
    more = f" of {len(train.entries):,}, sampled by a fixed seed" if len(train.entries) > MEASURED else ""
    lines.append(f"Mean and std of each band were measured on {many}{more}.")
    mean = tuple(_short(value / scale) for value in total.mean.tolist())
    spread = tuple(_short(value / scale) if value else 1.0 for value in std.tolist())
    return BandFacts(config.model_copy(update={"mean": mean, "std": spread}), tuple(lines))


def _moments(values: np.ndarray, empty: np.ndarray | None) -> _Moments:
    """Of (H, W, C), one band after the other: float64 copies of large images take memory."""
    rows = []
    for channel in range(values.shape[2]):
        band = values[:, :, channel] if empty is None else values[:, :, channel][~empty[:, :, channel]]
        wide = band.astype(np.float64).reshape(-1)
        mean = float(wide.mean()) if wide.size else 0.0
        rows.append((wide.size, mean, float(((wide - mean) ** 2).sum())))
    count, mean_, squares = np.array(rows, np.float64).T
    return _Moments(count, mean_, squares)


def _short(value: float) -> float:
    """Six digits, as people read them in a recipe."""
    return float(f"{value:.6g}")


def _head(data: bytes, sure: bool) -> File | str:
    """What a file's header says, without its pixels; '' of an image in grey or colour, unless bands are `sure` to be read."""
    return replace(opened(data), load=_nothing) if sure or holds_bands(data) else ""


def _nothing() -> np.ndarray:
    raise AssertionError("only the header was kept")


def _each(train: Images, most: int, workers: int, make: Callable[[bytes], Made]) -> list[Made | None]:
    """`make` of what a sample of files holds, in a fixed order; None of those that cannot be read."""

    def made(place: int) -> Made | None:
        try:
            return make(train.store.read(train.entries[place].path))
        except (DataError, OSError):
            return None

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(made, _places(train, most)))


def _places(train: Images, most: int) -> list[int]:
    count = len(train.entries)
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(_SEED).permutation(count)[:most].tolist())
