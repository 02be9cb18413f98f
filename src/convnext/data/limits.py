"""How much one file of the data may ask for, whatever it says about itself: the one place of these limits.

A file that is small and declares that it is large is refused before anything is unpacked.
"""

import os
import stat

from convnext.errors import DataError

MAX_MEMORY = 2 << 30  # bytes that one image may take while it is decoded, in each process that decodes
USUAL_COST = 12  # bytes for a pixel: Pillow's own four, the array's three, and what is in between
MAX_PIXELS = MAX_MEMORY // USUAL_COST  # 178,956,970, of an image or a mask; Pillow itself refuses more as a bomb
MAX_BYTES = 1 << 30  # of an image's file
MAX_TEXT_BYTES = 8 << 30  # of a file of annotations: the largest public ones have some GB
MAX_RATIO = 100  # a zip's member may unpack to so many times its size, once that is more than the next
RATIO_FROM = 64 << 20  # bytes
MAX_FOLDERS = 100  # one in the other
MAX_NUMBERED = 1_000_000  # classes that a number in a file may make up
MAX_PAGE_BYTES = 16 << 20  # of an XML file about one image
MAX_ROWS = 20_000_000  # of one Parquet or Arrow file, whose rows may take no space at all
MAX_GROUP_BYTES = 4 << 30  # of a row group's column, unpacked
MAX_OUTLINE_PX = 2_000_000  # length of an outline: to draw it takes memory for each pixel
_TEXTS = frozenset({
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".txt", ".yaml", ".yml", ".parquet", ".pq", ".arrow", ".feather",
})  # fmt: skip
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def require_bytes(path: str, size: int, packed: int | None = None) -> None:
    """Raise DataError, with a reason, where a file of `size` bytes is too large to be read. `packed`: its size in a zip."""
    most = MAX_TEXT_BYTES if os.path.splitext(path)[1].lower() in _TEXTS else MAX_BYTES
    if size > most:
        raise DataError(f"it has {size:,} bytes, and {most:,} are the most that is read")
    if packed is not None and size > RATIO_FROM and size > MAX_RATIO * packed:
        raise DataError(f"its {packed:,} bytes in the zip would unpack to {size:,}; unzip it to read it all the same")


def require_pixels(height: int, width: int, cost: int = USUAL_COST) -> None:
    """Raise DataError, with a reason, where an image or a mask has more pixels than are decoded at `cost` bytes each."""
    if height * width * cost > MAX_MEMORY:
        other = "" if cost == USUAL_COST else " of this format"
        raise DataError(f"{width} x {height} is more than {MAX_MEMORY // cost:,} pixels{other}; make it smaller")


def require_plain_xml(data: bytes) -> None:
    """Raise DataError, with a reason, for XML that defines entities, which can grow without limit and name other files."""
    plain = data.replace(b"\0", b"")  # as UTF-16 has it
    if b"<!ENTITY" in plain or b"<!DOCTYPE" in plain:
        raise DataError("it defines entities, which annotations have no need of")


def require_file(mode: int) -> None:
    """Raise DataError, with a reason, for what has no bytes of its own, by its `st_mode`."""
    if not stat.S_ISREG(mode):
        raise DataError(f"it is {next((name for is_one, name in _KINDS if is_one(mode)), 'special')}, not a file")
