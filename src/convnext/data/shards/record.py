"""`shards.json`: what a folder of shards holds. It is written last, so that shards without it are not whole."""

from dataclasses import dataclass
from typing import Any, cast, get_args

from convnext.data.source import Form, Labels, Task
from convnext.data.store import printable
from convnext.data.stores.place import Place
from convnext.errors import DataError, reason_of
from convnext.files import from_json

FORMAT, VERSION = "convnext shards", 1
RECORD, INDEX, FOR_TIMM = "shards.json", "index.npz", "_info.json"
TIMES = "times.npz"  # when each file of the data set was last written: only who writes shards again looks at it
ANNOTATIONS = "files"  # the part of shards that hold tables and annotations
WRITING = ".unfinished-shards"  # a folder beside them until the record is written


@dataclass(frozen=True)
class Record:
    """What `shards.json` says."""

    task: Task
    form: Form
    labels: Labels | None
    file: str | None
    bands: tuple[str, ...] | None
    notes: tuple[tuple[str, ...], ...]  # of each tree
    parts: dict[str, int]  # images
    shards: tuple[dict[str, Any], ...]  # 'name', 'part', 'images', 'bytes', 'sha256'
    index: dict[str, Any]  # 'name', 'bytes', 'sha256'


def read_record(place: Place) -> Record:
    """What `shards.json` of a place says. Raises DataError where there is none, or it is damaged."""
    name = printable(place.name)
    try:
        held = from_json(place.whole(RECORD))
    except FileNotFoundError:
        raise DataError(
            f"'{name}' holds no shards that are whole: {RECORD}, which is written last, is not there. Give `convnext shard` "
            "again, and copy all files."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"'{name}/{RECORD}' cannot be read: {_said(error)}. Copy it again.") from None
    try:
        return _record_of(held)
    except (KeyError, TypeError, ValueError):
        version = held.get("version") if isinstance(held, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise DataError(f"'{name}' holds shards of a newer version, {version}. Install a newer convnext.") from None
        raise DataError(f"'{name}/{RECORD}' is damaged. Copy it again, or write the shards again.") from None


def _said(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else f"it is not JSON ({error})"


def _record_of(held: Any) -> Record:
    if held["format"] != FORMAT or held["version"] != VERSION or held["form"] not in get_args(Form):
        raise ValueError
    if held["task"] not in get_args(Task) or not isinstance(held["file"], str | None):
        raise ValueError
    shards = tuple({key: each[key] for key in ("name", "part", "images", "bytes", "sha256")} for each in held["shards"])
    for each in (*shards, held["index"]):
        if "/" in each["name"] or not isinstance(each["bytes"], int) or not isinstance(each["sha256"], str):
            raise ValueError
    bands = None if held["bands"] is None else tuple(map(str, held["bands"]))
    notes = tuple(tuple(map(str, each)) for each in held["notes"])
    task, form, labels = cast(Task, held["task"]), cast(Form, held["form"]), cast(Labels | None, held["labels"])
    index = {key: held["index"][key] for key in ("name", "bytes", "sha256")}
    return Record(task, form, labels, held["file"], bands, notes, dict(held["parts"]), shards, index)
