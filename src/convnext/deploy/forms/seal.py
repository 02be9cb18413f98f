"""The digest at the end of an exported file: CRC-32 of all that stands before it, and of the files beside it.

As in `convnext.integrity`, for accidents. It is written as something that every reader of the form skips.
"""

import mmap
import zlib
from pathlib import Path

from convnext.deploy.forms import table
from convnext.errors import CheckpointError, reason_of

_DIGITS = 8
_SLICE = 1 << 20  # bytes that are read at a time


def seal(path: Path) -> None:
    """Append the digest to a file that is just written; nothing where its form has no place for one."""
    before, after = _around(path)
    if before:
        found = _digest(path, path.stat().st_size)
        with open(path, "ab") as file:
            file.write(before + found + after)


def require_sealed(path: Path) -> bool:
    """Raise CheckpointError where an exported file is not what was written. False where it carries no digest."""
    before, after = _around(path)
    try:
        told = end_of(path)
        if not told and not (before and _names_it(path)):
            return False
        found = _digest(path, path.stat().st_size - len(before) - len(told) - len(after))
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {reason_of(error)}.") from None
    if found != told:
        raise CheckpointError(f"'{path}' is damaged: it is not what was written. Export it again.")
    return True


def end_of(path: Path) -> bytes:
    """The digest at the end of a file; nothing where there is none. Raises OSError."""
    before, after = _around(path)
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - len(before) - _DIGITS - len(after)))
        end = file.read()
    held = before and len(end) == len(before) + _DIGITS + len(after) and end.startswith(before) and end.endswith(after)
    return end[len(before) :][:_DIGITS] if held else b""


def _names_it(path: Path) -> bool:
    """Whether the file says that it has a digest."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(table.SEALED.encode()) >= 0


def _around(path: Path) -> tuple[bytes, bytes]:
    form = table.form_of(path)
    return form.seal if form else (b"", b"")


def _digest(path: Path, size: int) -> bytes:
    """Eight digits of the first `size` bytes of `path` and of all of the files beside it."""
    form = table.form_of(path)
    found = _continued(path, 0, size)
    for suffix in form.beside if form else ():
        found = _continued(path.with_suffix(suffix), found)
    return f"{found:08x}".encode()


def _continued(path: Path, found: int, size: int | None = None) -> int:
    left = path.stat().st_size if size is None else size
    with open(path, "rb") as file:
        while left > 0 and (data := file.read(min(left, _SLICE))):
            found = zlib.crc32(data, found)
            left -= len(data)
    return found
