"""Parquet and Arrow files: their columns, and images out of their rows.

A row group of Parquet, or a record batch of Arrow, is the least that can be read; G of them in a file.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from convnext.data.limits import MAX_GROUP_BYTES, MAX_ROWS
from convnext.data.store import Store, printable
from convnext.data.written import decoded, local_path
from convnext.errors import DataError, reason_of
from convnext.extras import needs

ENDINGS = frozenset({".parquet", ".pq", ".arrow", ".feather"})
_PARQUET = (".parquet", ".pq")
_KEPT = 128_000_000  # bytes of row groups that a process keeps; always one, whatever its size
_SLOW = 16_000_000  # bytes of a row group that are many for one image
_OPEN = 64  # files that a process keeps open


class _Reader(Protocol):
    """One open file. Raises what pyarrow raises."""

    schema: Any
    counts: list[int]  # (G,) rows

    def group(self, number: int, columns: list[str]) -> Any:
        """A table or record batch of some columns; of a struct 'column.field' is one."""
        ...

    def sizes(self, column: str) -> list[int]:
        """(G,) bytes that a column takes in memory, where it takes any before one value is asked for."""
        ...


class _Parquet:
    def __init__(self, source: Any):
        self.file = needs("pyarrow.parquet", "Parquet").ParquetFile(source, pre_buffer=False)
        self.schema, about = self.file.schema_arrow, self.file.metadata
        self.counts = [about.row_group(number).num_rows for number in range(about.num_row_groups)]

    def group(self, number: int, columns: list[str]) -> Any:
        for column in columns:
            if (size := self.sizes(column.split(".")[0])[number]) > MAX_GROUP_BYTES:
                raise ValueError(f"a row group would unpack to {size:,} bytes")
        return self.file.read_row_group(number, columns=columns, use_threads=False)

    def sizes(self, column: str) -> list[int]:
        groups = (self.file.metadata.row_group(number) for number in range(len(self.counts)))
        chunks = ([group.column(place) for place in range(group.num_columns)] for group in groups)
        return [
            sum(chunk.total_uncompressed_size for chunk in each if chunk.path_in_schema.split(".")[0] == column)
            for each in chunks
        ]


class _Batches:
    """Arrow as a file or as a stream, mapped into memory: an uncompressed batch costs nothing until it is read."""

    def __init__(self, source: Any):
        arrow = needs("pyarrow", "Arrow")
        held = arrow.memory_map(source) if isinstance(source, str) else arrow.py_buffer(source.read())
        self.batch: Callable[[int], Any]
        try:
            reader = arrow.ipc.open_file(held)
            self.batch, count = reader.get_batch, reader.num_record_batches
        except arrow.ArrowInvalid:
            if isinstance(source, str):
                held.seek(0)
            reader = arrow.ipc.open_stream(held)
            batches = list(reader)
            self.batch, count = batches.__getitem__, len(batches)
        self.schema, self.counts = reader.schema, [self.batch(number).num_rows for number in range(count)]

    def group(self, number: int, columns: list[str]) -> Any:
        found = self.batch(number).select([name.split(".")[0] for name in columns])
        found.validate(full=True)  # places that lead out of the file would be read, which ends the process
        return found

    def sizes(self, column: str) -> list[int]:
        return [0] * len(self.counts)


class ArrowFile:
    """The columns of a Parquet or Arrow file. `name` is what messages call it.

    Raises MissingPackage where pyarrow is not installed, DataError where the file is damaged.
    """

    def __init__(self, source: Any, file: str, name: str):
        self.name, self._reader = name, _opened(source, file, name)
        self.schema = self._reader.schema
        self.columns: list[str] = self.schema.names
        self.rows = sum(self._reader.counts)
        if self.rows > MAX_ROWS:
            raise DataError(
                f"'{name}' says that it has {self.rows:,} rows, and {MAX_ROWS:,} are the most that one may have."
            )
        self.features = _features(self.schema)

    @property
    def starts(self) -> np.ndarray:
        """(G + 1,) int64: the first row of each group, and behind them the number of rows."""
        return np.concatenate([[0], np.cumsum(np.array(self._reader.counts, np.int64))]).astype(np.int64)

    def values(self, column: str, field: str = "") -> list[Any]:
        """A column, of a struct one `field`, as Python has it; the images in other columns are not read."""
        found: list[Any] = []
        try:
            for number in range(len(self._reader.counts)):
                values = self._reader.group(number, [f"{column}.{field}" if field else column]).column(column)
                if field:
                    chunks = getattr(values, "chunks", [values])
                    found += [value for chunk in chunks for value in chunk.field(field).to_pylist()]
                else:
                    found += values.to_pylist()
        except _wrong() as error:
            raise DataError(f"'{self.name}' cannot be read ({_reason(error)}). Is it complete?") from None
        return found

    def note(self, column: str) -> str:
        """A line where reading the images of `column` in random order is slow, else ''."""
        sizes = self._reader.sizes(column)
        if sum(sizes) <= _KEPT or max(sizes) <= _SLOW:
            return ""
        return (
            f"'{self.name}' has row groups of up to {max(sizes) / 1e6:.0f} MB, and an image is read with its whole group: that "
            "is slow in random order. Write it with about 100 rows a group."
        )

    def fields(self, column: str) -> list[str]:
        """The fields of a struct, [] for other columns."""
        kind = self.schema.field(column).type
        return [kind.field(number).name for number in range(kind.num_fields)] if _is(kind, "struct") else []

    def holds(self, column: str, kind: str) -> bool:
        """Whether the values of a column are of an Arrow type: 'binary', 'string', 'struct', 'list'."""
        return _is(self.schema.field(column).type, kind)


class Shard(NamedTuple):
    """Where the images of one file are."""

    source: str  # on the disk
    column: str
    starts: np.ndarray  # (G + 1,) as `ArrowFile.starts`


class RowStore:
    """Images in rows, named 'file/row-name' or 'file/row', and files beside them.

    A row group is read as a whole and kept, the last used up to 128 MB of them in each process, and never fewer than one: the
    memory follows the row groups, not the files. Pickled and forked, the store opens its files again.
    """

    def __init__(self, shards: Mapping[str, Shard], beside: Store):
        self.shards, self.beside = dict(shards), beside
        self._open: tuple[int, _Kept] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def read(self, path: str) -> bytes:
        """The image of a row as a file has it; OSError or DataError when it cannot be read."""
        file, _, place = path.rpartition("/")
        if file not in self.shards:
            return self.beside.read(path)
        value = self._kept().value(self.shards[file], int(place.partition("-")[0]))
        if isinstance(value, dict):
            given, value = value.get("path"), value.get("bytes")
            if value is None and given:
                return self._file(str(given), file.rpartition("/")[0])
        if not isinstance(value, bytes):
            raise DataError("its row has no image")
        return value

    def _file(self, path: str, folder: str) -> bytes:
        """An image that its row names instead of holding it, counted from the folder of the table, or from the top."""
        try:
            path = local_path(path, "it")
        except DataError as error:
            raise DataError(str(error).rstrip(".")) from None  # a reason, not a sentence
        if folder and not os.path.isabs(path):
            try:
                return self.beside.read(f"{folder}/{path}")
            except (OSError, DataError):
                pass
        return self.beside.read(path)

    def _kept(self) -> "_Kept":
        if self._open is None or self._open[0] != os.getpid():  # a lock and a file do not survive a fork
            self._open = (os.getpid(), _Kept())
        return self._open[1]


class _Kept:
    """What one process has open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: OrderedDict[str, _Reader] = OrderedDict()
        self.groups: OrderedDict[tuple[str, int], tuple[Any, int]] = OrderedDict()  # column, bytes
        self.size = 0

    def value(self, shard: Shard, row: int) -> Any:
        """What a row holds."""
        number = int(np.searchsorted(shard.starts, row, side="right")) - 1
        with self.lock:
            return self._group(shard, number)[row - int(shard.starts[number])].as_py()

    def _group(self, shard: Shard, number: int) -> Any:
        key = (shard.source, number)
        if key not in self.groups:
            try:
                column = self._file(shard.source).group(number, [shard.column]).column(shard.column)
            except _wrong() as error:
                raise DataError(f"its row group cannot be read ({_reason(error)})") from None
            self.groups[key] = column, column.nbytes
            self.size += column.nbytes
            while self.size > _KEPT and len(self.groups) > 1:
                self.size -= self.groups.popitem(last=False)[1][1]
        self.groups.move_to_end(key)
        return self.groups[key][0]

    def _file(self, source: str) -> _Reader:
        if source not in self.files:
            self.files[source] = _opened(source, source, printable(source))
            if len(self.files) > _OPEN:
                self.files.popitem(last=False)
        self.files.move_to_end(source)
        return self.files[source]


def _opened(source: Any, file: str, name: str) -> _Reader:
    needs("pyarrow", f"'{name}'")
    try:
        return _Parquet(source) if file.lower().endswith(_PARQUET) else _Batches(source)
    except _wrong() as error:
        raise DataError(
            f"'{name}' is damaged or no such file ({_reason(error)}). Download or write it again."
        ) from None


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return (reason_of(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _wrong() -> Any:
    """What reading a damaged file raises: pyarrow's own, and Python's where its texts or numbers are none."""
    return needs("pyarrow", "Parquet").ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError


def _is(kind: Any, name: str) -> bool:
    types = needs("pyarrow", "Parquet").types
    return any(
        getattr(types, f"is_{size}{name}")(kind) for size in ("", "large_") if hasattr(types, f"is_{size}{name}")
    )


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library noted about the columns: their kinds, and the names of classes."""
    text, _ = decoded((schema.metadata or {}).get(b"huggingface", b"{}"))
    try:
        found = json.loads(text)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
