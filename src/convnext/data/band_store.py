"""Images of which each band is a file of its own: B02.tif, B03.tif in a folder an image, or cell_w1.png, cell_w2.png.

The path of such an image is that of its first band, from which the others follow.
"""

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from convnext.data.band_files import opened, put_together
from convnext.data.labelled import Dataset, Entries, Entry
from convnext.data.store import Store, printable
from convnext.errors import DataError, reason_of

LOOKED_AT = 16  # files that must hold one band each, before names are believed
_MOST_ODD = 0.05  # of the images may lack a band
_WORDS = ("red", "green", "blue", "yellow", "nir", "rededge", "swir1", "swir2", "vv", "vh", "hh", "hv", "dapi")
_BAND = re.compile(  # Sentinel-2 and Landsat; wavelengths and channels of microscopes; colours and polarisations
    rf"(?:^|(?<=[_\-. ]))(b\d{{1,2}}a?|w\d{{1,2}}|ch\d{{1,2}}|c\d{{1,2}}|{'|'.join(_WORDS)})$", re.IGNORECASE
)
_Image = tuple[str, str]  # (what stands before the band in its path, the ending)


class BandStore:
    """The files of `store`, all bands of an image as one; `images`: the paths of these, None: of all files."""

    def __init__(self, store: Store, bands: Sequence[str], images: Collection[str] | None = None):
        self.store, self.bands, self.images = store, tuple(bands), images

    def read(self, path: str) -> bytes:
        """What `band_files.opened` takes. `path` may be that of any band. Raises DataError where one cannot be read."""
        if self.images is not None and path not in self.images:
            return self.store.read(path)
        names = self.files(path)
        if not names:
            raise DataError(f"its name ends in none of the bands {', '.join(self.bands)}")
        files = []
        for band, file in zip(self.bands, names, strict=True):
            try:
                files.append((band, self.store.read(file)))
            except (OSError, DataError) as error:
                raise DataError(f"its band '{band}' cannot be read: {reason_of(error)}") from None
        return put_together(files)

    def files(self, path: str) -> list[str]:
        """What is read for `path`: the file of each band; none where its name ends in no band."""
        if self.images is not None and path not in self.images:
            return [path]
        held = band_of(path, self.bands)
        if held is None:
            return []
        before, ending = _image_of(path, held)
        return [f"{before}{band}{ending}" for band in self.bands]


def named(bands: Sequence[str]) -> bool:
    """Whether bands are ends of names, in place of numbers in a file."""
    return any(not band.isdecimal() for band in bands)


def band_of(path: str, bands: Iterable[str]) -> str | None:
    """The longest of `bands` that the name of a file ends in, as a word of its own; None where it is none."""
    stem = os.path.splitext(path.rsplit("/", 1)[-1])[0]
    found = [band for band in bands if stem.endswith(band) and not stem[: -len(band)][-1:].isalnum()]
    return max(found, key=len, default=None)


def without_band(path: str, bands: Sequence[str]) -> str:
    """What an image is called whose bands are files: a/scene_B02.tif is a/scene.tif, a/scene/B02.tif also a/scene.tif."""
    held = band_of(path, bands)
    if held is None:
        return path
    before, ending = _image_of(path, held)
    return f"{before.rstrip('_-. /')}{ending}"


def no_such_files(name: str, bands: Sequence[str]) -> str:
    """Why the images of `name` are not read by bands that are ends of names."""
    return (
        f"No name of a file in '{name}' ends in '{printable(bands[0])}', so it is no band. Give numbers for bands that lie in "
        "one file."
    )


def together_note(bands: Sequence[str]) -> str:
    """What is to be said of bands that names of files speak of."""
    return f"Files whose names differ only in {', '.join(bands)} are the bands of one image; --bands 1 takes each for an image."


def first_files(paths: Iterable[str], bands: Sequence[str]) -> list[int]:
    """Places of one file of each image in `paths`, that of its first band where there is one; others are left out."""
    found: dict[_Image, int] = {}
    for place, path in enumerate(paths):
        band = band_of(path, bands)
        if band is None:
            continue
        image = _image_of(path, band)
        if band == bands[0]:
            found[image] = place
        else:
            found.setdefault(image, place)
    return sorted(found.values())


def with_bands(dataset: Dataset, bands: Sequence[str]) -> Dataset:
    """The images of a listing, where `bands` are ends of names: all files of an image are one; else as it is."""
    if not named(bands) or isinstance(dataset.store, BandStore):
        return dataset
    places = first_files((entry.path for entry in dataset.entries), bands)
    if not places:
        raise DataError(
            f"No file's name ends in a band of the run, such as '{printable(bands[0])}': each image is "
            f"{len(bands)} files, {', '.join(bands)}."
        )
    entries: Sequence[Entry] = (
        dataset.entries.take(np.array(places))
        if isinstance(dataset.entries, Entries)
        else tuple(dataset.entries[place] for place in places)
    )
    return replace(dataset, entries=entries, store=BandStore(dataset.store, bands))


def found_bands(paths: Sequence[str], store: Store) -> tuple[str, ...]:
    """The bands that names of files speak of, in order; () unless all images have the same, and files one band each."""
    images: dict[_Image, set[str]] = {}
    for path in paths:
        name, ending = os.path.splitext(path)
        match = _BAND.search(name.rsplit("/", 1)[-1])
        if match is None:
            return ()
        images.setdefault((name[: len(name) - len(match[1])], ending), set()).add(match[1])
    if not images:
        return ()
    bands = max(images.values(), key=len)
    odd = sum(held != bands for held in images.values())
    if len(bands) < 2 or odd > _MOST_ODD * len(images) or not _hold_one_band(paths, store):
        return ()
    return tuple(sorted(bands, key=_order))


def _hold_one_band(paths: Sequence[str], store: Store) -> bool:
    for path in paths[:: max(1, len(paths) // LOOKED_AT)][:LOOKED_AT]:
        try:
            if opened(store.read(path)).shape[2] != 1:
                return False
        except (DataError, OSError):
            continue
    return True


def _image_of(path: str, band: str) -> _Image:
    name, ending = os.path.splitext(path)
    return name[: len(name) - len(band)], ending


def _order(band: str) -> tuple[int, str, int, str]:
    """Colours as people name them, B2 before B10, B8 before B8A."""
    word = band.lower()
    digits = re.search(r"\d+", word)
    letters = word[: digits.start()] if digits else word
    place = _WORDS.index(word) if word in _WORDS else len(_WORDS)
    return place, letters, int(digits[0]) if digits else 0, word
