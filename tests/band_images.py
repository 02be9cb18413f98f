"""Images of many bands for tests, written by NumPy and tifffile, never by our own code."""

from pathlib import Path
from typing import Any

import numpy as np

tifffile: Any = __import__("pytest").importorskip("tifffile", reason="TIFF of many bands needs the extra 'bands'")

SIDE = 16


def pixels(number: int, bands: int = 5, dtype: Any = np.uint16, side: int = SIDE) -> np.ndarray:
    """(H, W, C) noise; another for each `number`. Higher bands have larger values."""
    rng = np.random.default_rng([number, bands])
    values = rng.normal(0, 1, (side, side + 2, bands)) * 20 + 30 * np.arange(1, bands + 1)
    if np.dtype(dtype).kind == "f":
        return (values / 7).astype(dtype)
    return values.clip(1, 250).astype(dtype) * (1 if np.dtype(dtype).itemsize == 1 else 13)


def planar(path: Path, values: np.ndarray, **how: Any) -> None:
    """(H, W, C) as a TIFF that holds one band after the other, as GDAL's BSQ."""
    first = np.ascontiguousarray(values.transpose(2, 0, 1))
    tifffile.imwrite(path, first, planarconfig="separate", photometric="minisblack", metadata=None, **how)


def interleaved(path: Path, values: np.ndarray, **how: Any) -> None:
    """(H, W, C) as a TIFF that holds all bands of a pixel together."""
    tifffile.imwrite(path, values, planarconfig="contig", photometric="minisblack", metadata=None, **how)


def class_folders(
    root: Path, count: int = 6, bands: int = 5, dtype: Any = np.uint16, *, signal: int = 4, ending: str = ".tif"
) -> Path:
    """`count` images of each of two classes, told apart by band `signal`, from 0, alone."""
    for label, name in enumerate(("high", "low")):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            values = pixels(1000 * label + number, bands, np.float64)
            values[:, :, signal] += 40 * (1 - 2 * label)
            values = np.abs(values * (1 if np.dtype(dtype).itemsize == 1 else 10)).astype(dtype)
            path = folder / f"{name}{number}{ending}"
            np.save(path, values) if ending == ".npy" else interleaved(path, values)
    return root
