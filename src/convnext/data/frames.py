"""How many frames or pages a file of images holds, of which the first alone is read.

GIF89a by its blocks, TIFF 6.0 by its chain of directories; of other formats Pillow knows it from the header.
"""

import struct

from PIL import Image

_MOST_BLOCKS = 1 << 17  # of a GIF that are looked at, 32 MB of full ones: nobody waits for a hostile one
_MOST_PAGES = 1 << 14
_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B  # a GIF's blocks
_TABLE = 0x80  # the bit that says that a table of colours follows
_SUBFILE, _NO_PAGE = 254, 0b101  # the tag of a TIFF, and its bits of a smaller copy and a mask of another page


def frames_of(image: Image.Image, data: bytes) -> int:
    """Of a file that Pillow has opened, 1 or more. The second image in a photograph of a phone is no frame."""
    if image.format == "GIF":
        return max(1, _gif(data))
    if image.format == "TIFF":
        return max(1, _tiff(data))
    return 1 if image.format == "MPO" else max(1, int(getattr(image, "n_frames", 1)))


def _gif(data: bytes) -> int:
    place, found = 13 + _table(data[10:11]), 0
    inside = False  # among rows of up to 255 bytes, behind their lengths
    for _ in range(_MOST_BLOCKS):
        byte = data[place] if place < len(data) else _END
        if inside:
            place, inside = place + 1 + byte, byte != 0
        elif byte == _FRAME:
            found, inside = found + 1, True
            place += 11 + _table(data[place + 9 : place + 10])  # its descriptor, and the least size of a code
        elif byte == _EXTENSION:
            place, inside = place + 2, True
        else:
            break
    return found


def _table(flags: bytes) -> int:
    """Bytes of a table of colours."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & _TABLE else 0


def _tiff(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        return _pages(data, order, *((8, "Q", 20, "Q") if big else (4, "H", 12, "I")))
    except struct.error:
        return 1


def _pages(data: bytes, order: str, place: int, number: str, row: int, word: str) -> int:
    """Directories that are pages of their own; `place` is where the first one's is told."""
    found, seen = 0, set[int]()
    while (start := struct.unpack_from(order + word, data, place)[0]) and len(seen) < _MOST_PAGES:
        if start in seen:
            break
        seen.add(start)
        (count,) = struct.unpack_from(order + number, data, start)
        first = start + struct.calcsize(number)
        place = first + count * row
        found += not _belongs(data, order, first, row, count)
    return found


def _belongs(data: bytes, order: str, first: int, row: int, count: int) -> bool:
    """Whether a directory, whose tags ascend, is that of another page's smaller copy or mask."""
    for place in range(first, first + min(count, 2) * row, row):
        if struct.unpack_from(f"{order}H", data, place)[0] == _SUBFILE:
            value = place + (12 if row == 20 else 8)
            return bool(struct.unpack_from(f"{order}I", data, value)[0] & _NO_PAGE)
    return False
