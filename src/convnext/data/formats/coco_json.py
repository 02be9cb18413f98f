"""A COCO file as JSON: each annotation stays text until somebody looks at it.

msgspec reads it; what msgspec refuses and Python's own reader takes (NaN, lone surrogates, another encoding, something
else than an object in a list) is left to that one, so that no file is lost for speed.
"""

import json
from typing import Any

import msgspec

from convnext.errors import DataError


class Image(msgspec.Struct, gc=False):
    """One row of 'images', as it was written."""

    id: Any = None
    file_name: Any = ""
    height: Any = None
    width: Any = None


class _Top(msgspec.Struct):
    images: list[Image]
    annotations: list[msgspec.Raw]
    categories: list[Any]


class CocoFile:
    """The three lists of a file. Raises DataError when it is not JSON, or not such a file."""

    def __init__(self, data: bytes, name: str):
        self.name = name
        self.text = data  # b'' where Python's reader was needed
        self.other_images: list[Any] = []  # what is no object
        self.raws: list[msgspec.Raw] = []
        self._items: list[Any] | None = None
        try:
            top = msgspec.json.decode(data, type=_Top)
            self.images, self.raws, self.categories = top.images, top.annotations, top.categories
        except (msgspec.MsgspecError, ValueError, RecursionError):
            content = _loaded(data, name)
            rows = [item for item in content["images"] if isinstance(item, dict)]
            self.images = [Image(**{key: row[key] for key in Image.__struct_fields__ if key in row}) for row in rows]
            self.other_images = [item for item in content["images"] if not isinstance(item, dict)]
            self.categories, self._items, self.text = content["categories"], content["annotations"], b""

    def __len__(self) -> int:
        """How many annotations there are."""
        return len(self.raws) if self._items is None else len(self._items)

    def annotation(self, place: int) -> Any:
        """The annotation at `place` as Python objects."""
        if self._items is not None:
            return self._items[place]
        raw = bytes(self.raws[place])
        try:
            return msgspec.json.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _parsed(raw, self.name)


def _loaded(data: bytes, name: str) -> dict[str, Any]:
    content = _parsed(data, name)
    if isinstance(content, list):
        raise DataError(f"'{name}' is a list, as COCO results are. Name the file of annotations.")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"'{name}' has no list of '{key}', so that it is not a COCO annotation file.")
    return content


def _parsed(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{name}' is not JSON ({error}). Is it complete?") from None


def is_key(value: object) -> bool:
    """Whether `value` can number an image."""
    return isinstance(value, int | str | float) and not isinstance(value, bool)


def shown_of(item: object) -> str:
    """What messages call an annotation or an image."""
    return str(item.get("id", "without id")) if isinstance(item, dict) else repr(item)[:40]
