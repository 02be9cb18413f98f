"""The members of an image in a shard, by the names that the webdataset library gives them: KEY.jpg, KEY.cls, KEY.json."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from convnext.data.dataset import DenseDataset
from convnext.data.decode import read_size
from convnext.data.formats.export import to_coco
from convnext.data.labelled import Dataset
from convnext.data.shards.recorder import File, Log
from convnext.data.shards.tar import ending_of
from convnext.data.store import printable
from convnext.errors import DataError, reason_of
from convnext.files import to_json


@dataclass(frozen=True)
class Sample:
    """An image with all that is known about it."""

    members: dict[str, bytes]  # what stands behind the key in the name of a member, e.g. '.jpg' -> its bytes
    files: dict[File, str] = field(default_factory=dict)  # files of the data set -> the member that each is


def sample_of(data: Dataset | DenseDataset, place: int, log: Log) -> Sample:
    """The image at `place`, with the bytes that its files hold. Raises DataError, OSError where one cannot be read."""
    entry: Any = data.entries[place]
    log.take()
    shown = data.store.read(entry.path)
    image = log.take()
    members, files = dict[str, bytes](), dict[File, str]()
    for number, (file, held) in enumerate(image.items()):  # several where each band is a file
        name = f".{number}{ending_of(file[1])}" if number else ending_of(file[1])
        members[name], files[file] = held, name
    about: dict[str, Any] = {"path": printable(entry.path)}
    if isinstance(data, Dataset):
        members |= _of_classes(data, place, about)
    elif entry.semantic is not None:
        mask = data.store.read(entry.semantic)
        own = {file: held for file, held in log.take().items() if held == mask and file not in image}
        name = f".mask{ending_of(next(iter(own))[1] if own else '.pgm')}"
        members[name] = mask
        files |= dict.fromkeys(own, name)
    else:
        about |= _of_objects(data, place, shown)
    members[".json"] = to_json(about).encode()
    log.take()
    return Sample(members, files)


def _of_classes(data: Dataset, place: int, about: dict[str, Any]) -> dict[str, bytes]:
    entry = data.entries[place]
    if entry.marks is None:
        about["class"] = data.classes[entry.label]
        return {".cls": str(entry.label).encode()}
    about["classes"] = list(_named(data, entry.marks, 1))
    about["unknown"] = list(_named(data, entry.marks, -1))
    return {}


def _named(data: Dataset, marks: tuple[int, ...], wanted: int) -> Iterator[str]:
    return (name for name, mark in zip(data.classes, marks, strict=True) if mark == wanted)


def _of_objects(data: DenseDataset, place: int, shown: bytes) -> dict[str, Any]:
    """The image and its objects as a COCO file has them, each with the name of its class; nothing where they do not fit."""
    try:
        coco = to_coco(data, [place], {place: read_size(shown)})
    except (DataError, OSError) as error:
        return {"unusable": reason_of(error)}
    called = {category["id"]: category["name"] for category in coco["categories"]}
    objects = [{**each, "category": called[each["category_id"]]} for each in coco["annotations"]]
    return {"image": coco["images"][0], "annotations": objects}
