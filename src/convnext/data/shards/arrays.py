"""Named arrays in one file that serves as their memory: an .npz as NumPy reads it, each array at a place that suits it.

Mapped into memory, such a file is read where it is looked at, and processes of one machine share what they have read.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy

_PLACES = 64  # bytes: every array begins at a multiple, as NumPy has it in a file of its own
_LOCAL = struct.Struct("<26x2H")  # of a zip's header before a file: the bytes of its name, and of what else is said
_ZIP64 = 20  # bytes that zipfile adds to that
_GAP = struct.Struct("<3H")  # what else is said: 'a gap for the sake of the place', its bytes, the multiple
_GAP_MARK = 0xD935
_HEADER = 10_000  # bytes of an array's header, at most


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file of these arrays, the same bytes for the same arrays."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            end = made.tell() + _LOCAL.size + len(entry.filename.encode()) + _GAP.size + _ZIP64
            gap = -end % _PLACES
            entry.extra = _GAP.pack(_GAP_MARK, _GAP.size - 4 + gap, _PLACES) + bytes(gap)
            with archive.open(entry, "w", force_zip64=True) as held:
                npy.write_array(held, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return made.getvalue()


def arrays_of(data: "bytes | memoryview") -> dict[str, np.ndarray]:
    """The arrays of a file, none of which is copied. Raises ValueError, with a reason, where it is no such file."""
    seen = memoryview(data)
    try:
        with zipfile.ZipFile(_Seen(seen)) as archive:
            return {entry.filename.removesuffix(".npy"): _array(seen, entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, struct.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _array(seen: memoryview, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type:  # ours are not; such a one could unpack to anything
        raise ValueError("it is compressed")
    first = entry.header_offset + _LOCAL.size + sum(_LOCAL.unpack_from(seen, entry.header_offset))
    own = seen[first : first + entry.file_size]
    head = io.BytesIO(own[:_HEADER])
    if npy.read_magic(head) != (1, 0):
        raise ValueError("its arrays are of another version")
    shape, _, kind = npy.read_array_header_1_0(head)
    count = math.prod(shape)
    if kind.hasobject or len(shape) != 1 or head.tell() + count * kind.itemsize != len(own) or not entry.file_size:
        raise ValueError(f"{entry.filename} is no array of it")
    return np.require(np.frombuffer(own, kind, count, head.tell()), requirements="A")  # copied where another wrote it


class _Seen(io.RawIOBase):
    """Bytes of somebody else, as a file."""

    def __init__(self, data: memoryview):
        self._data, self._place = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, place + (0, self._place, len(self._data))[whence])
        return self._place

    def readinto(self, into: Any) -> int:
        part = self._data[self._place : self._place + len(into)]
        into[: len(part)] = part
        self._place += len(part)
        return len(part)
