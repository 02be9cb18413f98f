"""What takes seconds to make is made once, for all files of tests and all workers of a run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder called `name`, which `make` fills where nobody has yet; nobody writes into it afterwards."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not place.exists():
            making = shared / f"{name}.part"
            making.mkdir()
            make(making)
            making.rename(place)
    return place
