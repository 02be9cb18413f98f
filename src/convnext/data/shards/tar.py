"""A plain tar file, written once from the front: the same bytes for the same members, on every machine."""

import contextlib
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HEADER = 512  # bytes before the bytes of a member whose name is short


@dataclass
class TarWriter:
    """An open tar file."""

    tar: tarfile.TarFile
    sink: "_Digested"

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        """Add a member of a short ASCII name; returns where its bytes begin, how many they are, and their CRC-32."""
        about = tarfile.TarInfo(name)  # of no user and of no time: those would make other bytes
        about.size = len(data)
        first = self.tar.offset + HEADER
        self.tar.addfile(about, io.BytesIO(data))
        return first, len(data), zlib.crc32(data)

    @property
    def sha256(self) -> str:
        """Of all that was written, once the file is closed."""
        return self.sink.digest.hexdigest()

    @property
    def size(self) -> int:
        """Bytes that were written."""
        return self.sink.size


class _Digested:
    """A file whose digest is known when it is written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


@contextlib.contextmanager
def tar_at(path: Path) -> Iterator[TarWriter]:
    """A new tar file at `path`, which is whole at the end. Raises OSError when the disk refuses."""
    with open(path, "wb") as file:
        sink = _Digested(file)
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            yield (made := TarWriter(tar, sink))
    assert made.size % tarfile.RECORDSIZE == 0


def ending_of(name: str) -> str:
    """The ending of a file as the webdataset library finds it: one dot, in small letters; '.bin' for what is no word."""
    found = re.fullmatch(r".*\.([A-Za-z0-9]{1,8})", name.rsplit("/", 1)[-1], re.DOTALL)
    return f".{found[1].lower()}" if found else ".bin"
