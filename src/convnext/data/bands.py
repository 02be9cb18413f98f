"""The channels of an image from the bands of its file: which, in which order, and what stands where there is nothing.

8-bit bands stay uint8; wider ones are float32 in their own units from here to the network.
Axes: H W pixel rows and columns, C channels.
"""

from collections.abc import Sequence

import numpy as np

from convnext.config import Bands
from convnext.data.band_files import File, kind_of, opened, settled_order, turned
from convnext.data.decode import decode, read_header
from convnext.data.tiff_header import read_tiff_header
from convnext.errors import DataError, number_of

KINDS = {"uint8": "8 bit", "integer": "whole numbers of more than 8 bit", "float": "floats"}
_EYES = (2.0, 98.0)  # percentiles of a band that are drawn black and white
_LEAST_DARK = 1e-12
_MOST = float(np.finfo(np.float32).max)


def read_pixels(data: bytes, config: Bands, *, least_px: int | None = None) -> np.ndarray:
    """(H, W, C) of a file: uint8 as people see it, or its bands, uint8 or float32, as `config` has them.

    `least_px` is that of `decode`. What a file marks as no data, NaN and inf are the channel's mean. Raises DataError
    with the reason where the file cannot be read, or is not of the kind that `config` describes.
    """
    if not config.bands:
        return decode(data, channels=len(config.mean), least_px=least_px)
    return filled(opened(data), config)[0]


def kind_of_pixels(config: Bands) -> np.dtype:
    """What `read_pixels` gives: uint8, or float32 of wide bands."""
    return np.dtype(np.float32 if config.wide else np.uint8)


def pixels_of_array(array: np.ndarray, config: Bands) -> np.ndarray:
    """The same of an array in memory: (H, W, C) with the bands of a file, (H, W) where that has one."""
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    return filled(File(shape, array.dtype, lambda: np.array(array).reshape(shape)), config)[0]


def filled(file: File, config: Bands) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, C) channels, and (C,) how many pixels of each held nothing and were filled with the mean."""
    values, empty = chosen(file, config)
    pixels = np.array(values, kind_of_pixels(config), order="C")
    if empty is None:
        return pixels, np.zeros(len(config.bands), np.int64)
    if empty.all():
        raise DataError("it holds no data: every pixel is NaN or marked as nothing")
    mean = np.array(config.mean) if config.wide else np.rint(255 * np.array(config.mean)).clip(0, 255)
    pixels[empty] = np.broadcast_to(mean.astype(pixels.dtype), pixels.shape)[empty]
    return pixels, empty.sum((0, 1))


def chosen(file: File, config: Bands) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, C) channels with the numbers of the file, and (H, W, C) where there is nothing, None where that is nowhere.

    Raises DataError where the file is not of the kind that `config` describes.
    """
    places = _places(file, config)
    values = file.load()
    if not file.settled and config.arrays == "first":
        values = values.transpose(1, 2, 0)
    values = values[:, :, places]
    marks = file.nodata if len(file.nodata) < 2 else [file.nodata[place] for place in places]
    return values, _empty(values, marks)


def require_like(file: File, config: Bands) -> tuple[int, int]:
    """(height, width) by the header alone. Raises DataError where the file is not of the kind that `config` describes."""
    _places(file, config)
    height, width, _ = file.shape if file.settled else turned(file.shape, config.arrays)
    return height, width


def _places(file: File, config: Bands) -> list[int]:
    """Which of its bands are channels, from 0."""
    held = kind_of(file.dtype)
    if held != config.pixels:
        raise DataError(f"it holds {KINDS[held]} ({file.dtype}), in place of {KINDS[config.pixels]}")
    count = (file.shape if file.settled else turned(file.shape, config.arrays))[2]
    if config.file_bands and count != config.file_bands:
        where = (
            "" if file.settled else f" {'behind' if config.arrays == 'last' else 'in front of'} its rows and columns"
        )
        raise DataError(f"it has {number_of(count, 'band')}{where}, in place of {config.file_bands}")
    places = list(config.numbers) or list(range(len(config.bands)))
    if count <= max(places):
        raise DataError(f"it has {number_of(count, 'band')}, and band {max(places) + 1} is asked for")
    return places


def _empty(values: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray | None:
    """Where there is nothing; None where there is something everywhere. `nodata`: for each channel, or for all."""
    empty = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        empty = (
            ~(np.abs(values) <= _MOST) if values.dtype.itemsize > 4 else ~np.isfinite(values)
        )  # also what float32 lacks
    for channel, mark in enumerate(nodata):
        if mark is not None and np.isfinite(mark):
            where = ... if len(nodata) == 1 else (..., channel)
            with np.errstate(over="ignore"):  # a mark beyond the type of the pixels is inf there, and found already
                wanted = np.asarray(mark).astype(values.dtype if values.dtype.kind == "f" else np.float64)
            empty[where] |= values[where] == wanted
    return empty if empty.any() else None


def for_eyes(pixels: np.ndarray, bands: Sequence[int] = ()) -> np.ndarray:
    """(H, W, C) of any channels as (H, W, 3) uint8: three of them, each stretched between its 2nd and 98th percentile.

    `bands`: which, from 0; the first three, or the first as grey, where none are named.
    """
    chosen = list(bands) or ([0, 1, 2] if pixels.shape[2] > 2 else [0, 0, 0])
    values = pixels[:, :, chosen].astype(np.float64)
    low, high = np.percentile(values, _EYES, axis=(0, 1))
    shown = (values - low) / np.maximum(high - low, _LEAST_DARK)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8)


def shown_to_eyes(data: bytes, config: Bands | None = None, *, least_px: int | None = None) -> np.ndarray:
    """(H, W, 1 or 3) uint8 of any file, to be drawn: as people see it, else the first channels of `config`, stretched.

    Without `config` these are the first bands of the file. `least_px` is that of `decode`. Raises DataError as that does.
    """
    if not holds_bands(data) and not (config and config.bands and config.wide):
        return decode(data, least_px=least_px)
    if config is not None and config.bands:
        return for_eyes(read_pixels(data, config))
    file = opened(data)
    values = file.load()
    if not file.settled and settled_order([values.shape]) == "first":
        values = values.transpose(1, 2, 0)
    return for_eyes(np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0))


def read_shape(data: bytes, config: Bands) -> tuple[int, int, bool]:
    """(height, width, whether a reduced decode is possible) of a file, from its header."""
    if not config.bands:
        return read_header(data)
    return *require_like(opened(data), config), False


def holds_bands(data: bytes) -> bool:
    """Whether a file holds more than an image in grey or colour, so that Pillow would show a part of it, or nothing."""
    if data[:2] in (b"II", b"MM"):
        header = read_tiff_header(data)
        return header is not None and not header.shows_colours
    return data.startswith((b"\x93NUMPY", b"PK\3\4", b"\x93BANDS"))
