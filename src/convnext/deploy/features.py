"""Files of features: written while they are made and read in blocks, so that memory holds one block and the paths.

`.npz` holds `features` (N, C) float32, `paths` (N,) text and `about`, JSON of where they came from; numpy.load reads it
without this package. `.parquet` has a column of each, and `about` in its schema. Axes: N images, C features.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from convnext.data.store import printable, require
from convnext.errors import ConvNeXtError, nearest
from convnext.extras import needs
from convnext.files import appearing, elsewhere, to_json

ENDINGS = (".npz", ".parquet")
BLOCK = 8192  # rows that are read or written together
_ABOUT = b"convnext"  # key of the schema of a Parquet file

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureFile:
    """A file of features, opened: its size is known, its rows are read when they are asked for."""

    path: Path
    n: int
    width: int
    about: Mapping[str, Any] = field(repr=False)

    def blocks(self) -> Iterator[Rows]:
        """(B, C) float32, all rows in order."""
        return _parquet_blocks(self.path) if self.path.suffix == ".parquet" else _npz_blocks(self.path)

    def paths(self, rows: Sequence[int]) -> list[str]:
        """The paths of some rows, in their order."""
        found: dict[int, str] = {}
        wanted, start = sorted(set(rows)), 0
        blocks = _parquet_paths(self.path) if self.path.suffix == ".parquet" else _npz_paths(self.path)
        for block in blocks:
            found |= {row: str(block[row - start]) for row in wanted if start <= row < start + len(block)}
            start += len(block)
        return [found[row] for row in rows]


def ending_of(out: str | Path) -> str:
    """'.npz' or '.parquet', as `out` is named. Raises ConvNeXtError for another ending, or where pyarrow is missing."""
    ending = Path(out).suffix.lower()
    if ending not in ENDINGS:
        raise ConvNeXtError(f"'{out}' ends in none of {', '.join(ENDINGS)}.{nearest(ending, ENDINGS)}")
    if ending == ".parquet":
        needs("pyarrow", f"'{Path(out).name}'")
    return ending


def write_features(out: Path, rows: Iterable[tuple[str, Rows]], about: Mapping[str, Any]) -> tuple[int, int]:
    """Write (path, (C,) features) of many images as they come; (N, C), the size of what was written.

    The file appears whole or not at all. There must be a row. Raises ConvNeXtError where the disk refuses.
    """
    write = _write_parquet if ending_of(out) == ".parquet" else _write_npz
    try:
        with appearing(out) as made:
            return write(made, rows, to_json(about))
    except OSError as error:
        raise ConvNeXtError(f"'{out}' cannot be written: {error.strerror or error}. {elsewhere(error)}.") from None


def open_features(path: str | Path) -> FeatureFile:
    """A file that `write_features` wrote, or any .npz with `features` and `paths`. Raises ConvNeXtError for any other."""
    path = Path(path)
    require(path)
    try:
        if ending_of(path) == ".parquet":
            schema = needs("pyarrow.parquet", f"'{path.name}'").ParquetFile(path)
            width = int(schema.schema_arrow.field("features").type.list_size)
            schema.schema_arrow.field("paths")
            count, about = int(schema.metadata.num_rows), (schema.schema_arrow.metadata or {}).get(_ABOUT, b"{}")
        else:
            with zipfile.ZipFile(path) as archive:
                shape, names = _head(archive, "features"), _head(archive, "paths")
                about = _about(archive)
            if len(shape) != 2 or names != shape[:1]:
                raise ValueError(f"features are {shape} and paths {names}")
            count, width = shape
        return FeatureFile(path, count, width, json.loads(about))
    except ConvNeXtError:
        raise
    except Exception as error:  # noqa: BLE001 - each reader has its own kinds for what it cannot read
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConvNeXtError(
            f"'{path}' holds no features ({reason}). Name a file that `convnext embed` wrote."
        ) from None


def digest_of(file: Path) -> str:
    """16 digits of the SHA-256 of a file: which weights made the features."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def blocks(rows: Iterable[tuple[str, Rows]], paths: list[str]) -> Iterator[Rows]:
    """(B, C) blocks of the features, B at most BLOCK; the paths are collected in `paths`."""
    block: list[Rows] = []
    for path, row in rows:
        paths.append(path)
        block.append(row)
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def _write_npz(made: Path, rows: Iterable[tuple[str, Rows]], about: str) -> tuple[int, int]:
    """How many rows there are is known at the end alone, and a file of NumPy begins with it: rows wait in a file."""
    paths: list[str] = []
    width = 0
    with open(made.with_name("waiting"), "wb+") as waiting:
        for block in blocks(rows, paths):
            width = block.shape[1]
            waiting.write(np.ascontiguousarray(block, "<f4").tobytes())
        waiting.seek(0)
        with zipfile.ZipFile(made, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as member:
                _write_head(member, "<f4", (len(paths), width))
                shutil.copyfileobj(waiting, member, 1 << 20)
            text = f"<U{max(map(len, paths))}"
            with archive.open("paths.npy", "w", force_zip64=True) as member:
                _write_head(member, text, (len(paths),))
                for start in range(0, len(paths), BLOCK):
                    member.write(np.array(paths[start : start + BLOCK], text).tobytes())
            with archive.open("about.npy", "w") as member:
                npy.write_array(member, np.array(about), allow_pickle=False)
    made.with_name("waiting").unlink()
    return len(paths), width


def _write_head(member: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})


def _write_parquet(made: Path, rows: Iterable[tuple[str, Rows]], about: str) -> tuple[int, int]:
    arrow, parquet = needs("pyarrow", f"'{made.name}'"), needs("pyarrow.parquet", f"'{made.name}'")
    paths: list[str] = []
    writer, done, width = None, 0, 0
    try:
        for block in blocks(rows, paths):
            width = block.shape[1]
            features = arrow.FixedSizeListArray.from_arrays(arrow.array(block.reshape(-1)), width)
            columns = [arrow.array([printable(path) for path in paths[done:]]), features]
            table = arrow.table(columns, names=["paths", "features"]).replace_schema_metadata({_ABOUT: about})
            writer = writer or parquet.ParquetWriter(made, table.schema)
            writer.write_table(table)
            done = len(paths)
    finally:
        if writer:
            writer.close()
    return done, width


def _head(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array in an .npz."""
    with archive.open(f"{name}.npy") as member:
        return _read_head(member, name)[0]


def _read_head(member: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, kind = read(member)
    if (fortran and len(shape) > 1) or kind.kind not in ("f" if name == "features" else "U"):
        raise ValueError(f"{name} are {kind}" + (", column by column" if fortran else ""))
    return shape, kind


def _about(archive: zipfile.ZipFile) -> str:
    if "about.npy" not in archive.namelist():
        return "{}"
    with archive.open("about.npy") as member:
        return str(npy.read_array(member, allow_pickle=False))


def _npz_blocks(path: Path) -> Iterator[Rows]:
    for block in _npz_arrays(path, "features"):
        yield block.astype(np.float32, copy=False)


def _npz_paths(path: Path) -> Iterator[Sequence[Any]]:
    return _npz_arrays(path, "paths")


def _npz_arrays(path: Path, name: str) -> Iterator[Any]:
    """Blocks of an array in an .npz, row after row. Raises ConvNeXtError where it is cut short."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        (count, *rest), kind = _read_head(member, name)
        size = kind.itemsize * int(np.prod(rest, dtype=np.int64))
        for start in range(0, count, BLOCK):
            many = min(BLOCK, count - start)
            data = member.read(many * size)
            if len(data) < many * size:
                raise ConvNeXtError(f"'{path}' is cut short. Write it again with `convnext embed`.")
            yield np.frombuffer(data, kind).reshape(many, *rest)


def _parquet_blocks(path: Path) -> Iterator[Rows]:
    file = needs("pyarrow.parquet", f"'{path.name}'").ParquetFile(path)
    for batch in file.iter_batches(BLOCK, columns=["features"]):
        column = batch.column(0)
        yield column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32, copy=False)


def _parquet_paths(path: Path) -> Iterator[Sequence[Any]]:
    file = needs("pyarrow.parquet", f"'{path.name}'").ParquetFile(path)
    for batch in file.iter_batches(BLOCK, columns=["paths"]):
        yield batch.column(0).to_pylist()
