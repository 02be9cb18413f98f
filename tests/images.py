"""Small data sets that tests make for themselves."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210), "grey": (128, 128, 128)}


def write_colours(
    folder: Path, *, train: int = 12, val: int = 4, size: int = 24, classes: int = 3, suffix: str = ".png"
) -> Path:
    """train/<colour>/* and val/<colour>/*: noise round a colour, so that a few steps learn it."""
    generator = np.random.default_rng(0)
    for split, count in {"train": train, "val": val}.items():
        for name, colour in list(COLOURS.items())[:classes]:
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = generator.integers(-30, 30, (size, size, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i:03d}{suffix}")
    return folder


def zipped(folder: Path, archive: Path, *, below: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """What lies in `folder` as `archive`, `below` before each name."""
    with zipfile.ZipFile(archive, "w", method) as pack:
        for file in sorted(folder.rglob("*")):
            pack.write(file, below + str(file.relative_to(folder)))
    return archive
