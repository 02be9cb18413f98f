"""Files of tensors that know whether they are whole: digests among their metadata, compared before anything is used.

The files are safetensors: eight bytes for the length of a header; the header, JSON with the type, the shape and the place
of each tensor and, as '__metadata__', text by name; then the bytes of the tensors. One more text of the metadata holds a
CRC-32 of each tensor (its name, type, shape and bytes) and one of all other texts. That is for accidents: a flipped bit, a
cut, a block in another's place. It is no signature: who means to forge a file can write its digests, too.

Python alone reads here, so that a machine without torch can verify what it was given.
"""

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.errors import CheckpointError, reason_of
from convnext.files import from_json, to_json

FORMAT = "convnext"  # written as 'format' into every file of ours; a safetensors file without it is foreign
_WITHOUT = "1"  # the version of our files that had no digests yet
OPTIMIZER = "optimizer/"  # state of training, which may hold inf while the weights are sound
DIGESTS = "digests"  # the text of the metadata that holds them
INDEX = "index.json"  # of a checkpoint in several files, written last: a folder without it holds none
_LONGEST = 100_000_000  # bytes of a header; what safetensors allows
_SLICE = 1 << 20  # bytes that are read at a time


@dataclass(frozen=True)
class Held:
    """A tensor in a file."""

    kind: str  # as safetensors writes its type: 'F32'
    shape: tuple[int, ...]
    first: int  # its bytes in the file: from here
    end: int  # to here, not included


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    metadata: dict[str, str]
    tensors: dict[str, Held]


@dataclass(frozen=True)
class Piece:
    """A box of a tensor, and the file that holds it."""

    file: str
    first: tuple[int, ...]  # of its elements, along each axis
    shape: tuple[int, ...]

    def name(self, tensor: str) -> str:
        """How it is called there, as a piece of `tensor`."""
        return f"{tensor}@{','.join(map(str, self.first))}"


@dataclass(frozen=True)
class Cut:
    """A tensor that lies in pieces."""

    kind: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Index:
    """What a checkpoint in several files holds, and where."""

    metadata: dict[str, Any]
    tensors: dict[str, Cut]
    files: dict[str, str]  # name -> `seal_of`


def digest(name: str, kind: str, shape: Iterable[int], slices: Iterable[Any]) -> str:
    """Eight digits for a tensor: CRC-32 of its name, type, shape and bytes; `slices` are buffers."""
    found = zlib.crc32(to_json([name, kind, list(shape)]).encode())
    for data in slices:
        found = zlib.crc32(data, found)
    return f"{found:08x}"


def sealed(metadata: Mapping[str, str], tensors: Mapping[str, str]) -> dict[str, str]:
    """`metadata` with the digests of `tensors`, name -> `digest`, and of its own texts."""
    return {**metadata, DIGESTS: to_json({"metadata": _of_texts(metadata), "tensors": dict(tensors)})}


def require_header(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise CheckpointError where the metadata of `path` has digests, or should have, and is not what was written."""
    if DIGESTS not in metadata and metadata.get("format") == FORMAT and metadata.get("version") != _WITHOUT:
        raise damaged(path, "its digests are missing")
    if DIGESTS in metadata and _told(path, metadata)[0] != _of_texts(metadata):
        raise damaged(path, "its header is not what was written")


def require_whole(path: Path) -> bool:
    """Raise CheckpointError where `path` is not what was written, down to its last tensor.

    Returns False for a file without digests, of which this cannot be told. Reads all of the file, in slices.
    """
    try:
        with open(path, "rb") as file:
            header = _header(path, file)
            require_header(path, header.metadata)
            if DIGESTS not in header.metadata:
                return False
            told = _told(path, header.metadata)[1]
            other = sorted(told.keys() ^ header.tensors.keys())
            if other:
                raise damaged(path, f"its header is not what was written: tensor '{other[0]}' has another name")
            for name, held in header.tensors.items():
                if digest(name, held.kind, held.shape, _slices(file, held)) != told[name]:
                    raise damaged(path, f"tensor '{name}' is not what was written")
            return True
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {reason_of(error)}.") from None


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises CheckpointError, in one line, where it is none, or cut short."""
    try:
        with open(path, "rb") as file:
            return _header(path, file)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {reason_of(error)}.") from None


def told_digests(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Name -> digest of the tensors in `path`, as its metadata has them. Raises CheckpointError where it has none."""
    require_header(path, metadata)
    return _told(path, metadata)[1]


def seal_of(path: Path) -> str:
    """Eight digits that stand for all that a file of ours holds: a CRC-32 of its digests. Raises CheckpointError."""
    header = read_header(path)
    told_digests(path, header.metadata)
    return f"{zlib.crc32(header.metadata[DIGESTS].encode()):08x}"


def index_text(index: Index) -> str:
    """The text of `INDEX`, under a digest of its own."""
    numbers = {name: number for number, name in enumerate(index.files)}
    tensors = {
        name: [cut.kind, cut.shape, [[numbers[piece.file], piece.first, piece.shape] for piece in cut.pieces]]
        for name, cut in index.tensors.items()
    }
    content = {"format": FORMAT, "metadata": index.metadata, "files": index.files, "tensors": tensors}
    return to_json({**content, "digest": _of_content(content)})


def read_index(path: Path) -> Index:
    """The index at `path`. Raises CheckpointError, in one line, where it is not what was written."""
    try:
        content = from_json(path.read_bytes())
        if content.pop("digest") != _of_content(content) or content["format"] != FORMAT:
            raise ValueError("its digest is another")
        files = list(content["files"])
        tensors = {
            name: Cut(kind, tuple(shape), tuple(Piece(files[n], tuple(first), tuple(box)) for n, first, box in pieces))
            for name, (kind, shape, pieces) in content["tensors"].items()
        }
        return Index(dict(content["metadata"]), tensors, dict(content["files"]))
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {reason_of(error)}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise damaged(path, "it is not what was written") from None


def require_index(path: Path) -> int:
    """Raise CheckpointError unless the files that the index at `path` names lie beside it and are the same; how many.

    What is in each of them `require_whole` compares.
    """
    index = read_index(path)
    for name, seal in index.files.items():
        file = path.with_name(name)
        if not file.is_file():
            raise damaged(file, "it is missing, and its checkpoint is of no use without it")
        if seal_of(file) != seal:
            raise damaged(file, f"it is not the file that '{path.name}' beside it names")
    return len(index.files)


def require_finite(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a tensor of torch in `tensors` holds inf or nan: a network of it answers nothing."""
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER) or not tensor.is_floating_point() or not tensor.numel():
            continue
        plain = tensor.float() if tensor.itemsize == 1 else tensor  # no least value of 8-bit floats in torch
        if not all(math.isfinite(float(edge)) for edge in plain.aminmax()):
            raise CheckpointError(
                f"'{path}' is of no use: tensor '{name}' holds inf or nan. Restore it, or take another."
            )


def _header(path: Path, file: Any) -> Header:
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    start = 8 + length
    if size < 8 or length > _LONGEST or start > size:
        raise damaged(path, f"its {size} bytes do not hold the header that they announce")
    try:
        content = from_json(file.read(length))
        metadata = content.pop("__metadata__", {})
        texts = {str(name): text for name, text in metadata.items() if isinstance(text, str)}
        tensors = {name: _held(entry, start) for name, entry in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(path, "its header is not one of safetensors") from None
    if len(texts) < len(metadata):
        raise damaged(path, "its header is not one of safetensors")
    end = start
    for held in sorted(tensors.values(), key=lambda held: (held.first, held.end)):
        if held.first != end or 8 * (held.end - held.first) != _bits(held.kind) * math.prod(held.shape):
            raise damaged(path, "its header is not one of safetensors: a tensor is not where it must be")
        end = held.end
    if end != size:
        raise damaged(path, f"{size} bytes are there, and its tensors end at {end}")
    return Header(texts, tensors)


def _held(entry: Any, start: int) -> Held:
    first, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (first, end, *shape)) or first > end:
        raise ValueError("no place in a file")
    return Held(str(entry["dtype"]), shape, start + first, start + end)


def _bits(kind: str) -> int:
    """Of one number: 'F32' has 32, 'BOOL' 8."""
    found = re.search(r"\d+", kind)
    return int(found[0]) if found else 8


def _slices(file: Any, held: Held) -> Iterable[memoryview]:
    """The bytes of a tensor, a slice at a time; each is overwritten by the next."""
    room = memoryview(bytearray(min(_SLICE, held.end - held.first)))
    file.seek(held.first)
    left = held.end - held.first
    while left:
        read = file.readinto(room[: min(left, _SLICE)])
        if not read:
            return  # it became shorter meanwhile: the digest says so
        yield room[:read]
        left -= read


def _told(path: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The digests that a file carries: of its texts, and of its tensors."""
    try:
        told = from_json(metadata[DIGESTS])
        return str(told["metadata"]), dict(told["tensors"])
    except (ValueError, KeyError, TypeError):
        raise damaged(path, "its digests are not what was written") from None


def _of_content(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(to_json(content).encode()):08x}"


def _of_texts(metadata: Mapping[str, str]) -> str:
    texts = sorted((name, text) for name, text in metadata.items() if name != DIGESTS)
    return f"{zlib.crc32(to_json(texts).encode()):08x}"


def damaged(path: Path, what: str) -> CheckpointError:
    """An error that says `what` is wrong with the file of a checkpoint, and the way out."""
    return CheckpointError(f"'{path}' is damaged: {what}. {restored(path)}")


def restored(path: Path) -> str:
    """The way out of a damaged file of a checkpoint: where it is one of several, the others are of no use without it."""
    several = path.name == INDEX or path.with_name(INDEX).is_file()
    what = f"the folder '{path.parent}'" if several else "it"
    return f"Restore it, or remove {what} to start again."
