"""What the first page of a TIFF says of its bands, so that one needs no package to know whether Pillow shows it whole.

TIFF 6.0; tags by their numbers there. BigTIFF has the same tags and longer numbers.
"""

import re
import struct
from dataclasses import dataclass

_BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 270, 277, 338, 339
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
_COLOURED = (2, 5, 6, 8)  # RGB, CMYK, YCbCr, L*a*b*
_ALPHA = (1, 2)  # of the extra samples: transparency
_SEVERAL = re.compile(rb'channels=(\d+)|SizeC="(\d+)"|"shape"')  # ImageJ's, OME's and tifffile's words for a stack


@dataclass(frozen=True)
class Tiff:
    """The first page."""

    samples: int
    bits: tuple[int, ...]
    kind: int  # of its samples: 1 unsigned, 2 signed, 3 float
    photometric: int
    extra: tuple[int, ...]
    description: bytes
    more: bool  # pages

    @property
    def shows_colours(self) -> bool:
        """Whether it is one image in grey or colour, with all that it holds, as people see it."""
        if self.more and any(match[0] == b'"shape"' or (match[1] or match[2]) != b"1" for match in self._words):
            return False
        if self.samples == 1:
            return True
        eight = self.kind == 1 and set(self.bits) in ({8}, {16})
        alpha = bool(self.extra) and self.extra[0] in _ALPHA
        plain = self.samples - (1 if alpha else 0)
        wanted = {1: (0, 1, 3), 3: (2, 6, 8), 4: (5,)}.get(plain, ())
        return eight and self.photometric in wanted

    @property
    def _words(self) -> list[re.Match[bytes]]:
        return list(_SEVERAL.finditer(self.description))


def read_tiff_header(data: bytes) -> Tiff | None:
    """Of the bytes of a file; None where they are no TIFF, or damaged there."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        version = struct.unpack_from(f"{order}H", data, 2)[0]
        if version not in (42, 43):
            return None
        return _page(data, order, big=version == 43)
    except (struct.error, IndexError, ValueError):
        return None


def _page(data: bytes, order: str, *, big: bool) -> Tiff:
    number, row, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    start = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    count = struct.unpack_from(order + number, data, start)[0]
    first = start + struct.calcsize(number)
    tags: dict[int, tuple[int, ...] | bytes] = {}
    for place in range(first, first + min(count, 512) * row, row):
        tag, kind, many = struct.unpack_from(f"{order}HH{word}", data, place)
        if tag in (_BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _EXTRA, _FORMAT) and kind in _TYPES:
            tags[tag] = _value(data, order, kind, min(many, 1 << 16), place + (12 if big else 8), word)
    more = struct.unpack_from(order + word, data, first + count * row)[0] != 0

    def numbers(tag: int, default: int) -> tuple[int, ...]:
        found = tags.get(tag)
        return found if isinstance(found, tuple) and found else (default,)

    text = tags.get(_DESCRIPTION, b"")
    return Tiff(
        numbers(_SAMPLES, 1)[0],
        numbers(_BITS, 1),
        numbers(_FORMAT, 1)[0],
        numbers(_PHOTOMETRIC, 1)[0],
        numbers(_EXTRA, 0) if _EXTRA in tags else (),
        text if isinstance(text, bytes) else b"",
        more,
    )


def _value(data: bytes, order: str, kind: int, many: int, place: int, word: str) -> tuple[int, ...] | bytes:
    """Of a tag: beside it where it fits, else where it points to."""
    letter = _TYPES[kind]
    size = many * (1 if letter == "s" else struct.calcsize(letter))
    if size > struct.calcsize(word):
        place = struct.unpack_from(order + word, data, place)[0]
    if letter == "s":
        return data[place : place + many]
    return struct.unpack_from(f"{order}{many}{letter}", data, place)
