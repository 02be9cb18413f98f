"""Ice on a window, drawn by a formula: it stands in for the photographs that ImageNet-C lays over images.

Those photographs cannot be shipped. What is kept of them: dark glass with bright, bluish white feathers that grow from
many places in many directions, light denser in some regions than in others. H W: rows and columns of the texture.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convnext.studies.robustness.filters import gradient_noise

_TINT = np.array((0.90, 0.96, 1.0))  # white with a little blue
_SEEDS_A_SIDE = 4  # crystals across the texture


@lru_cache(maxsize=16)
def frost_texture(which: int, side_px: int) -> NDArray[np.float32]:
    """(2 side_px, 2 side_px, 3) float32 in 0..1, always the same for the same arguments; images take a piece of it."""
    rng = np.random.default_rng([0xF2057, which])
    size = 2 * side_px
    cell = size / _SEEDS_A_SIDE
    rows, columns = np.meshgrid(np.arange(size) / cell, np.arange(size) / cell, indexing="ij")
    rows = rows + 0.25 * gradient_noise(size, size, cell, rng)  # stems bend, and crystals meet along crooked lines
    columns = columns + 0.25 * gradient_noise(size, size, cell, rng)
    along, beside = _crystal_axes(rows, columns, rng)
    feathers = _feathers(along, beside)
    dense = 0.5 + 0.9 * _turbulence(size, cell, rng)  # where the glass is iced over
    grain = 0.5 + 0.8 * _turbulence(size, max(2.0, cell / 12), rng)  # rime between the feathers
    cover = dense.clip(0.15, 1.2)
    ice = np.clip(0.22 + 1.05 * feathers * cover * (0.6 + 0.6 * grain) + 0.42 * (grain * cover).clip(0, 1), 0, 1)
    return (ice[:, :, None] * _TINT).astype(np.float32)


def _turbulence(size: int, cell_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Four octaves of gradient noise, about -1 to 1."""
    octaves = [gradient_noise(size, size, max(1.0, cell_px / 2**k), rng) / 2**k for k in range(4)]
    return np.sum(octaves, axis=0)


def _crystal_axes(
    rows: NDArray[np.float64], columns: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each place's coordinates along and beside the stem of the nearest crystal, in widths of a crystal."""
    count = _SEEDS_A_SIDE + 2
    starts = [
        (i - 1 + down, j - 1 + across, angle)
        for i in range(count)
        for j in range(count)
        for down, across, angle in [(rng.random(), rng.random(), rng.uniform(0, 2 * np.pi))]
    ]
    best = np.full(rows.shape, np.inf)
    along, beside = np.zeros(rows.shape), np.zeros(rows.shape)
    for top, left, angle in starts:
        down, across = rows - top, columns - left
        u = np.cos(angle) * down + np.sin(angle) * across
        v = np.cos(angle) * across - np.sin(angle) * down
        distance = (0.45 * u) ** 2 + v**2  # crystals are longer than wide
        nearer = distance < best
        best = np.where(nearer, distance, best)
        along, beside = np.where(nearer, u, along), np.where(nearer, v, beside)
    return along, beside


def _feathers(along: NDArray[np.float64], beside: NDArray[np.float64]) -> NDArray[np.float64]:
    """A stem, barbs that leave it slantwise and smaller barbs on those, 0..1."""
    off = np.abs(beside)
    stem = np.exp(-((off / 0.025) ** 2))
    barbs = 0.5 + 0.5 * np.cos(2 * np.pi * 7 * (along - 0.8 * off))
    fine = 0.5 + 0.5 * np.cos(2 * np.pi * 17 * (along + 0.6 * off) + 3 * np.sin(9 * off))
    fades = np.exp(-1.6 * off)
    feathers: NDArray[np.float64] = np.maximum(stem, fades * (0.65 * barbs**3 + 0.35 * fine**2))
    return feathers
