"""Decoded images in memory that all loader processes share.

One anonymous mapping made before the fork; pages cost memory only once they are written. Images are put in when they
are first decoded, at each reduction that crops ask for, so an image from the cache has the pixels of a decode.
"""

import mmap
import multiprocessing
import os
from pathlib import Path
from typing import Literal

import numpy as np

from convnext.config import Bands
from convnext.data.bands import kind_of_pixels, read_shape
from convnext.data.labelled import Dataset
from convnext.data.stores.shards import expect
from convnext.errors import DataError

DIVISORS = (1, 2, 4, 8)
_SAMPLE = 128  # headers read to guess the size of the whole set
_SLACK = 1.15  # over the guess
_BYTE = np.dtype(np.uint8)
_SHARE = 0.25  # of the free memory that 'auto' may take


class ImageCache:
    """`count` images of any size, at most `capacity` bytes together; what does not fit is simply not kept."""

    def __init__(self, count: int, capacity: int, channels: int, kind: np.dtype = _BYTE):
        self.channels, self.capacity = channels, capacity // kind.itemsize
        self.pixels = np.frombuffer(mmap.mmap(-1, max(1, self.capacity) * kind.itemsize), kind)
        self.places = _shared((count, len(DIVISORS)), np.int64)  # where an image starts, plus 1; 0: not there
        self.headers = _shared((count, 3), np.int32)  # height, width, reducible; height 0: not known
        self.used = _shared((1,), np.int64)
        self.lock = multiprocessing.get_context("fork").Lock()

    def header(self, index: int) -> tuple[int, int, bool] | None:
        """(height, width, reducible) of the whole image, if it was seen before."""
        height, width, reducible = self.headers[index].tolist()
        return (height, width, bool(reducible)) if height else None

    def get(self, index: int, divisor: int) -> np.ndarray | None:
        """The kept image at 1/divisor of its size, to read only."""
        place = int(self.places[index, DIVISORS.index(divisor)])
        if not place:
            return None
        height, width, _ = self.headers[index].tolist()
        shape = (-(-height // divisor), -(-width // divisor), self.channels)
        return self.pixels[place - 1 : place - 1 + shape[0] * shape[1] * shape[2]].reshape(shape)

    def put(self, index: int, divisor: int, image: np.ndarray, header: tuple[int, int, bool]) -> None:
        """Keep `image` if there is room. Two processes may both do so: the copies are equal."""
        column = DIVISORS.index(divisor)
        with self.lock:
            start = int(self.used[0])
            if self.places[index, column] or start + image.size > self.capacity:
                return
            self.used[0] = start + image.size
        self.pixels[start : start + image.size] = image.reshape(-1)
        with self.lock:  # the lock also orders the writes: pixels before the place that makes them visible
            self.headers[index] = header
            self.places[index, column] = start + 1


def make_cache(
    dataset: Dataset, config: Bands, wish: Literal["auto", "off", "on"], processes: int = 1
) -> ImageCache | None:
    """A cache for `dataset` if it is wished, or if under 'auto' all of it fits in a quarter of the free memory.

    `processes`: ranks on this machine, each of which keeps its own. None where processes cannot be forked.
    """
    if wish == "off" or not dataset.entries or not hasattr(os, "fork"):
        return None
    expected = _expected_bytes(dataset, config)
    if wish == "auto" and expected * processes > free_memory() * _SHARE:
        return None
    return ImageCache(len(dataset.entries), expected, len(config.mean), kind_of_pixels(config))


def free_memory() -> int:
    """Bytes that this process can still take: what the machine has available, or the container if that is less."""
    return min([_available(), *_cgroup_room(Path("/sys/fs/cgroup"))])


def _shared(shape: tuple[int, ...], kind: type) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), kind, count=int(np.prod(shape))).reshape(shape)


def _expected_bytes(dataset: Dataset, config: Bands) -> int:
    channels = len(config.mean) * kind_of_pixels(config).itemsize
    count = len(dataset.entries)
    sizes = []
    places = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int).tolist()
    expect(dataset.store, lambda: [dataset.entries[number].path for number in places])
    for number in places:
        try:
            height, width, reducible = read_shape(dataset.store.read(dataset.entries[number].path), config)
        except (OSError, DataError):
            continue
        sizes.append(height * width * channels * (4 / 3 if reducible else 1))  # 1 + 1/4 + 1/16 + ...
    return int(sum(sizes) / max(1, len(sizes)) * count * _SLACK) + 4096


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # no /proc: half of what is built in


def _cgroup_room(root: Path) -> list[int]:
    """Bytes left under each memory limit that applies to this process (cgroup v2 from our group up, or v1)."""
    rooms = []
    for folder in _cgroup_folders(root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                limit, used = (folder / limit_name).read_text().strip(), int((folder / used_name).read_text())
                stat = (folder / "memory.stat").read_text().split()
            except (OSError, ValueError):
                continue
            if limit.isdigit():  # 'max' is no limit
                idle = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
                rooms.append(max(0, int(limit) - used + idle))
    return rooms


def _cgroup_folders(root: Path) -> list[Path]:
    folders = [root, root / "memory"]
    try:
        own = [
            line.split(":", 2)[2].strip("/")
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if ":" in line
        ]
    except OSError:
        return folders
    for name in own:
        below = root / name
        while name and below != root:
            folders.append(below)
            below = below.parent
    return list(dict.fromkeys(folders))
