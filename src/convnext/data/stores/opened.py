"""From what a person names to the place where shards lie."""

import re
from pathlib import Path

from convnext.data.stores.place import FolderPlace, Place
from convnext.errors import DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_url(path: str | Path) -> bool:
    """Whether `path` is the address of an object store, as s3://bucket/pets."""
    return isinstance(path, str) and _URL.match(path) is not None


def place_of(path: str | Path) -> Place:
    """The place at `path`."""
    if is_url(path):
        raise DataError(f"'{path}' is an address. Name a folder.")
    return FolderPlace(str(path))
