"""Shards of `convnext shard` as a source: the files of the data set, under their names, in the form that it had."""

from dataclasses import replace
from pathlib import Path

from convnext.data.annotated_forms import ANNOTATED, task_of
from convnext.data.shards.check import index_of
from convnext.data.shards.index import Files, unpacked
from convnext.data.shards.record import ANNOTATIONS, FOR_TIMM, FORMAT, INDEX, RECORD, WRITING, Record, read_record
from convnext.data.source import Source
from convnext.data.store import Once, Tree, printable
from convnext.data.stores.near import near
from convnext.data.stores.opened import is_url, place_of
from convnext.data.stores.place import Place
from convnext.data.stores.shards import ShardStore
from convnext.errors import DataError, reason_of

_HEAD = 200  # bytes of the record in which its format stands


def has_shards(path: str | Path) -> bool:
    """Whether a folder holds shards, also where writing them did not end; whatever lies in an object store should."""
    if is_url(path) or Path(path, WRITING).is_dir():
        return True
    record = Path(path, RECORD)
    try:
        with open(record, "rb") as file:
            return (
                FORMAT.encode() in file.read(_HEAD) or Path(path, INDEX).is_file()
            )  # others may have such a name, too
    except OSError:  # a copy that lacks its record is none of anything else
        return Path(path, INDEX).is_file() and Path(path, FOR_TIMM).is_file()


def open_shards(path: str | Path) -> Source:
    """The source that shards were made of. Raises DataError where they are not whole, Unreachable without a way to them."""
    place = place_of(path)
    record = read_record(place)
    if is_url(path):
        sizes = {each["name"]: each["bytes"] for each in record.shards}
        told = {each["name"] for each in record.shards if each["part"] == ANNOTATIONS}  # in which every file is needed
        shards = {name: size for name, size in sizes.items() if name not in told}
        shards = {record.index["name"]: record.index["bytes"], **shards}
        place = near(place, record.index["sha256"][:16], shards, {name: sizes[name] for name in told})
    trees = [_tree(place, record, *each) for each in zip(_index(place, record), record.notes, strict=True)]
    return Source(
        Path(path) if not is_url(path) else str(path), record.task, record.form, trees[0], trees[-1], record.file,
        record.labels, bands=record.bands,
    )  # fmt: skip


def as_asked(
    found: Source, images: str | Path | None, form: str | None, annotated: bool | None, task: str | None
) -> Source:
    """Shards as `recognise` wants them: they are what the data were; of objects with outlines masks can still be learnt.

    Raises DataError where a person asks for something else.
    """
    for name, value, own in (("form", form, found.form), ("images", images, None)):
        if value is not None and value != own:
            has = "hold their images" if own is None else f"are of form {own}"
            raise DataError(f"--{name} {value} does not go with '{found.name}': its shards {has}. Leave it out.")
    if found.form not in ANNOTATED:
        if annotated:
            raise DataError(f"'{found.name}' holds shards of classes, without boxes or masks.")
        return found
    if annotated is False:
        raise DataError(f"'{found.name}' holds shards that are annotated for {found.task}, not classes.")
    return replace(found, task=task_of(found.form, task)) if found.task == "detection" else found


def _index(place: Place, record: Record) -> tuple[Files, ...]:
    try:
        found = unpacked(index_of(place, record))
        last = max((int(files.shard.max(initial=-1)) for files in found), default=-1)
        if len(found) != len(record.notes) or last >= len(record.shards):
            raise DataError("it is of other shards")
        return found
    except (OSError, DataError) as error:
        name = f"{printable(place.name)}/{record.index['name']}"
        raise DataError(f"'{name}' cannot be used: {reason_of(error)}. Copy it again.") from None


def _tree(place: Place, record: Record, files: Files, notes: tuple[str, ...]) -> Tree:
    store = ShardStore(place, [each["name"] for each in record.shards], files, notes)
    return Tree(files.names.take(slice(0, files.listed)), files.folders, store, Once(store))
