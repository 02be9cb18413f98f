"""Files of any number of bands to arrays: TIFF, NPY, NPZ, images, and several files that are the bands of one image.

tifffile reads TIFF, NumPy its own files; no objects are unpickled, and what a file declares is checked before it is read.
Axes: H W pixel rows and columns, C bands.
"""

import io
import logging
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from convnext.data.decode import Opened, decode
from convnext.data.limits import MAX_BYTES, MAX_MEMORY, require_bytes
from convnext.data.upright import turned_pixels
from convnext.errors import DataError
from convnext.extras import installed, needs
from convnext.files import from_json, to_json

SEVERAL = b"\x93BANDS\n"  # before files that a `BandStore` puts together
_NODATA = 42113  # GDAL's tag: the value of pixels that hold nothing
_MODES = {"L": 1, "RGB": 3}  # of Pillow, decoded as everywhere; the others are read as they are
_AS_THEY_ARE = ("LA", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_SLACK = 0.02  # by which the shapes of the bands of one image may differ


@dataclass(frozen=True)
class File:
    """A file whose header was read."""

    shape: tuple[int, ...]  # (H, W, C); where it is not settled any order of three
    dtype: np.dtype
    load: Callable[[], np.ndarray]  # its values, in `shape`
    settled: bool = True  # whether the file itself says which axis its bands are
    nodata: tuple[float | None, ...] = ()  # what it writes where there is nothing: one for all bands, or one for each


def opened(data: bytes) -> File:
    """The header of any file that holds an image. Raises DataError with the reason where there is none to be read."""
    if data.startswith(SEVERAL):
        return _several(data)
    if data.startswith(b"\x93NUMPY"):
        return _npy(data)
    if data.startswith(b"PK\3\4"):
        return _npz(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    return _image(data)


def put_together(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Files of one band each, (name, content), as one file that `opened` takes."""
    head = to_json([[name, len(content)] for name, content in files]).encode()
    return b"".join([SEVERAL, len(head).to_bytes(4, "little"), head, *(content for _, content in files)])


def settled_order(shapes: Sequence[tuple[int, ...]]) -> str:
    """Where arrays of these shapes, of a whole set, have their bands: 'first' or 'last'.

    The bands' axis is as long in all, and shorter than the others; where both ends are, it is the last one.
    """
    if not shapes:
        return "last"
    first, last = ({shape[end] for shape in shapes} for end in (0, -1))
    if (len(first) == 1) != (len(last) == 1):
        return "first" if len(first) == 1 else "last"
    return "first" if sum(shape[0] for shape in shapes) < sum(shape[-1] for shape in shapes) else "last"


def turned(shape: tuple[int, ...], order: str) -> tuple[int, int, int]:
    """(H, W, C) of an array that is not settled."""
    height, width, count = shape if order == "last" else (shape[1], shape[2], shape[0])
    return height, width, count


def kind_of(dtype: np.dtype) -> Literal["uint8", "integer", "float"]:
    """What the recipe calls such values."""
    if dtype == np.uint8 or dtype.kind == "b":
        return "uint8"
    return "float" if dtype.kind == "f" else "integer"


def _checked(file: File) -> File:
    """`file`, whose declared size and values can be read."""
    shown, dtype = " x ".join(f"{size:,}" for size in file.shape), file.dtype
    if dtype.hasobject:
        raise DataError("it holds Python objects, which could run code and are never loaded. Save it as numbers")
    if dtype.kind == "c":
        raise DataError("it holds complex numbers. Save the real and the imaginary part as two bands")
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise DataError(f"it holds {dtype}, and pixels are whole numbers or floats of 8 to 64 bits")
    if min(file.shape) < 1:
        raise DataError(f"it has no pixels ({shown})")
    if math.prod(file.shape) * (2 * dtype.itemsize + 4) > MAX_MEMORY:
        raise DataError(f"its {shown} values of {dtype} are more than {MAX_MEMORY >> 20:,} MiB take to read; cut it up")
    return file


def _npy(data: bytes) -> File:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]}")
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # noqa: BLE001 # NumPy evaluates the header as a literal, which raises almost anything
        raise DataError(f"its header cannot be read: {_reason(error)}") from None
    start, count = stream.tell(), math.prod(shape)

    def load() -> np.ndarray:
        if len(data) - start < count * dtype.itemsize:
            raise DataError(f"it ends after {len(data) - start:,} of {count * dtype.itemsize:,} bytes of pixels")
        return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")

    return _of_array(File(tuple(shape), dtype, load))


def _of_array(file: File) -> File:
    """An array of two axes is one band; one of three has its bands at either end."""
    file = _checked(replace(file, shape=file.shape or (1,)))
    load = file.load
    if len(file.shape) == 2:
        return replace(file, shape=(*file.shape, 1), load=lambda: load()[:, :, None])
    if len(file.shape) != 3:
        shown = " x ".join(map(str, file.shape))
        raise DataError(f"an array of {shown} is no image: it has (H, W), (H, W, C) or (C, H, W)")
    return replace(file, settled=False)


def _npz(data: bytes) -> File:
    """Its one array of pixels, or arrays of one band each in the order of the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held, whole = {}, sum(item.file_size for item in archive.infolist())
            if whole > MAX_BYTES:  # many members, each of them small enough
                raise DataError(
                    f"its arrays would unpack to {whole:,} bytes, and {MAX_BYTES:,} are the most that is read"
                )
            for item in archive.infolist():
                if item.filename.endswith(".npy"):
                    require_bytes(item.filename, item.file_size, item.compress_size)
                    with archive.open(item) as member:
                        held[item.filename.removesuffix(".npy")] = member.read(item.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"it cannot be read as NPZ: {_reason(error)}") from None
    arrays = {name: _npy_header(content) for name, content in held.items()}
    found = {name: shape for name, shape in arrays.items() if len(shape) > 1}
    if len(found) == 1:
        return _npy(held[next(iter(found))])
    if len(set(found.values())) == 1 and len(next(iter(found.values()))) == 2:
        return _stacked([(name, _npy(held[name])) for name in found])
    listed = ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, shape in list(found.items())[:5])
    raise DataError(
        f"it holds {listed or 'no array of pixels'}, and an image is one array, or one of equal size a band"
    )


def _npy_header(data: bytes) -> tuple[int, ...]:
    """The shape of an array; () of one that is no image anyway, such as a label of any kind."""
    try:
        file = _npy(data)
    except DataError:
        if data[:6] == b"\x93NUMPY" and b"'O'" not in data[:256] and b"|O" not in data[:256]:
            return ()
        raise
    return file.shape if not file.settled else file.shape[:2]


def _several(data: bytes) -> File:
    start = len(SEVERAL) + 4
    head = int.from_bytes(data[start - 4 : start], "little")
    place, files = start + head, []
    for name, size in from_json(data[start:place]):
        try:
            files.append((name, opened(data[place : place + size])))
        except DataError as error:
            raise DataError(f"'{name}': {error}") from None
        place += size
    return _stacked(files)


def _stacked(files: Sequence[tuple[str, File]]) -> File:
    """Files of one band each as one; smaller bands are repeated to the size of the largest (20 m among 10 m)."""
    for name, file in files:
        bands = 1 if file.settled and file.shape[2] == 1 else file.shape[2]
        if bands != 1:
            raise DataError(f"'{name}' has {bands} bands, and each file of an image is one band")
    height, width = (max(file.shape[axis] for _, file in files) for axis in (0, 1))
    for name, file in files:
        if abs(file.shape[0] * width / (file.shape[1] * height) - 1) > _SLACK:
            raise DataError(
                f"band '{name}' is {file.shape[1]} x {file.shape[0]} and the largest {width} x {height}: they do not show "
                "the same place"
            )
    kinds = {kind_of(file.dtype) for _, file in files}
    if len(kinds) > 1:
        raise DataError(f"its bands hold different values ({', '.join(sorted(kinds))})")
    nodata = tuple(file.nodata[0] if file.nodata else None for _, file in files)

    def load() -> np.ndarray:
        return np.concatenate([_enlarged(file.load(), height, width) for _, file in files], 2)

    dtype = np.result_type(*(file.dtype for _, file in files))
    return _checked(File((height, width, len(files)), dtype, load, nodata=nodata))


def _enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 1) with each pixel repeated: no value is made up, so that what stands for nothing still does."""
    if values.shape[:2] == (height, width):
        return values
    rows, columns = (np.arange(to) * at // to for to, at in ((height, values.shape[0]), (width, values.shape[1])))
    return values[rows][:, columns]


def _image(data: bytes) -> File:
    """What Pillow reads, in the bands that it has: grey, grey and alpha, RGB or RGBA."""
    head = Opened(data)
    height, width, _ = head.header
    mode = head.image.mode
    if mode not in _AS_THEY_ARE:
        count = _MODES.get(mode, 3)
        return File((height, width, count), np.dtype(np.uint8), lambda: decode(data, channels=count))
    count = len(head.image.getbands())
    kinds = {"I": np.int32, "F": np.float32, "LA": np.uint8, "RGBA": np.uint8}

    def load() -> np.ndarray:
        try:
            found = turned_pixels(np.asarray(Opened(data).image), head.orientation)
        except Exception as error:  # noqa: BLE001 # as in `decode`
            raise DataError(f"it cannot be decoded: {_reason(error)}") from None
        return found[:, :, None] if found.ndim == 2 else found

    return _checked(File((height, width, count), np.dtype(kinds.get(mode, np.uint16)), load))


@cache
def _tifffile() -> Any:
    module = needs("tifffile", "A TIFF of many bands")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what it tells of odd files, we tell
    return module


def _tiff(data: bytes) -> File:
    tifffile = _tifffile()
    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
        series = tiff.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
        tag = series.keyframe.tags.get(_NODATA)
        nodata = (float(str(tag.value).strip("\0 ")),) if tag is not None and str(tag.value).strip("\0 ") else ()
        dtype, axes = np.dtype(series.dtype), str(series.axes)
    except Exception as error:  # noqa: BLE001 # it raises almost anything on damaged bytes
        raise DataError(f"its header cannot be read: {_reason(error)}") from None
    others = [axis for axis in axes if axis not in "YX" and sizes[axis] > 1]
    if len(sizes) != len(axes) or not {"Y", "X"} <= set(axes) or len(others) > 1 or set(others) & set("ZT"):
        many = " x ".join(str(sizes[axis]) for axis in others)
        raise DataError(
            f"it is no single image but a stack of {many or 'several'} (axes {axes}); save one with its bands"
        )
    kept = tuple(axis for axis in axes if axis in "YX" or axis in others)

    def load() -> np.ndarray:
        try:
            values = np.asarray(series.asarray()).reshape([sizes[axis] for axis in kept])
        except Exception as error:  # noqa: BLE001 # as above
            if "imagecodecs" in str(error) and not installed("imagecodecs"):
                needs("imagecodecs", "A TIFF that is packed like this one")
            raise DataError(f"it cannot be decoded: {_reason(error)}") from None
        if unknown:
            return values
        values = values.transpose([kept.index(axis) for axis in ("Y", "X", *others)])
        return values if others else values[:, :, None]

    unknown = "Q" in others  # a letter that says nothing: what tifffile writes of any array
    found = tuple(sizes[axis] for axis in (kept if unknown else ("Y", "X", *others)))
    _require_bytes_of(series, data)
    found = found if others else (*found, 1)
    return _checked(File(found, dtype, load, settled=not unknown, nodata=nodata))


def _require_bytes_of(series: Any, data: bytes) -> None:
    """Raise DataError where pixels of the file lie behind its end: they would be read as zeros, or as too few."""
    for page in series.pages:
        if page is None:
            continue
        frame = page.aspage() if hasattr(page, "aspage") else page
        ends = [start + size for start, size in zip(frame.dataoffsets, frame.databytecounts, strict=False) if size]
        if ends and max(ends) > len(data):
            raise DataError(f"it is cut off: its pixels reach to byte {max(ends):,}, and it has {len(data):,}")


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
