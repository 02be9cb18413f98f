"""From what a person names to the place where shards lie."""

import re
from pathlib import Path

from convnext.data.stores.place import FolderPlace, Place
from convnext.data.stores.remote import RemotePlace

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_url(path: object) -> bool:
    """Whether `path` is the address of an object store, as s3://bucket/pets."""
    return isinstance(path, str) and _URL.match(path) is not None


def place_of(path: str | Path) -> Place:
    """The place at `path`, a folder or an address."""
    return RemotePlace(str(path)) if is_url(path) else FolderPlace(str(path))
