"""Blurs, zooms and warps of float images, in NumPy and torch alone: what the corruptions are made of.

Axes: H W pixel rows and columns, C channels. An image is float32 (H, W, C); every function is pure.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def gaussian_blur(x: Floats, sigma_px: float, *, truncate: float = 4.0, border: str = "edge") -> Floats:
    """Blur the first two axes with a Gaussian cut off at `truncate` sigmas.

    Two matmuls, in torch because its threads are counted in a worker: the cost does not depend on sigma.
    `border`: 'edge' repeats the last pixel, 'symmetric' mirrors.
    """
    down, across = (torch.from_numpy(_gaussian_matrix(count, sigma_px, truncate, border)) for count in x.shape[:2])
    with torch.autocast("cpu", enabled=False):  # where the network's precision is lower, images keep theirs
        rows = torch.tensordot(down, torch.from_numpy(np.ascontiguousarray(x)), ([1], [0]))  # (H, W, C)
        both = torch.tensordot(rows, across, ([1], [1]))  # (H, C, W)
    out: Floats = both.movedim(-1, 1).contiguous().numpy()
    return out


@lru_cache(maxsize=32)
def _gaussian_matrix(count: int, sigma_px: float, truncate: float, border: str) -> Floats:
    """(count, count): row i holds what each pixel gives to output i, with the taps beyond the border folded in."""
    reach = int(truncate * sigma_px + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma_px, 1e-6)) ** 2)
    taps /= taps.sum()
    places = np.arange(count)[:, None] + np.arange(-reach, reach + 1)
    if border == "edge":
        places = places.clip(0, count - 1)
    else:
        places = places % (2 * count)
        places = np.minimum(places, 2 * count - 1 - places)
    matrix = np.zeros((count, count))
    np.add.at(matrix, (np.arange(count)[:, None], places), np.broadcast_to(taps, places.shape))
    return matrix.astype(np.float32)


def disc_blur(x: Floats, radius_px: float, alias_px: float) -> Floats:
    """Mean over a disc, as a lens out of focus has it; the disc's edge is itself blurred by `alias_px`."""
    kernel = _disc(radius_px, alias_px)
    reach = kernel.shape[0] // 2
    height, width = x.shape[:2]
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), "reflect" if reach < min(height, width) else "edge")
    shape = (padded.shape[0], padded.shape[1])
    product = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[:, :, None]
    out = np.fft.irfft2(product, shape, axes=(0, 1))[2 * reach :, 2 * reach :]
    return out.astype(np.float32)


@lru_cache(maxsize=32)
def _disc(radius_px: float, alias_px: float) -> Floats:
    finer = 1 if radius_px >= 3 else 9  # radii below the published ones need parts of pixels
    reach = math.ceil(radius_px) + 2
    steps = (np.arange((2 * reach + 1) * finer) - ((2 * reach + 1) * finer - 1) / 2) / finer
    inside = (steps[:, None] ** 2 + steps**2 <= radius_px**2).astype(np.float64)
    disc = inside.reshape(2 * reach + 1, finer, 2 * reach + 1, finer).mean((1, 3))
    taps = np.exp(-0.5 * (np.arange(-1, 2) / max(alias_px, 1e-3)) ** 2)  # 3 taps: the edge blur is below a pixel
    taps /= taps.sum()
    for _ in range(2):
        disc = sum(tap * np.roll(disc, shift, 0) for tap, shift in zip(taps, (-1, 0, 1), strict=True)).T
    return (disc / disc.sum()).astype(np.float32)


def motion_blur(x: Floats, radius_px: float, sigma_px: float, angle_degrees: float) -> Floats:
    """Trail along a direction: a one-sided Gaussian of 2 ceil(radius) + 1 taps on the nearest pixels, edges repeated."""
    count = 2 * math.ceil(radius_px) + 1
    weights = np.exp(-0.5 * (np.arange(count) / sigma_px) ** 2)
    weights /= weights.sum()
    angle = math.radians(angle_degrees)
    downs = [math.ceil(i * math.sin(angle) - 0.5) for i in range(count)]
    acrosses = [math.ceil(i * math.cos(angle) - 0.5) for i in range(count)]
    height, width = x.shape[:2]
    room = count
    padded = np.pad(x, ((room, room), (room, room), (0, 0)), "edge")
    out = np.zeros_like(x)
    for weight, down, across in zip(weights, downs, acrosses, strict=True):
        out += np.float32(weight) * padded[room + down :, room + across :][:height, :width]
    return out


def zoom(x: Floats, factor: float) -> Floats:
    """The centre of the image, `factor` times as large, in the same frame; linear in between."""
    for axis in (0, 1):
        count = x.shape[axis]
        kept = math.ceil(count / factor)
        grown = max(count, round(kept * factor))
        first = (grown - count) // 2
        places = (count - kept) // 2 + (np.arange(count) + first) * ((kept - 1) / max(1, grown - 1))
        low = places.astype(int)
        high = np.minimum(low + 1, count - 1)
        share = (places - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


def sample(x: Floats, rows: NDArray[np.floating], columns: NDArray[np.floating], *, border: str) -> Floats:
    """The image at fractional (H, W) places, bilinear. `border`: 'reflect', 'symmetric' or 'zero' beyond the edge."""
    top, left = np.floor(rows), np.floor(columns)
    down, across = (rows - top)[:, :, None].astype(np.float32), (columns - left)[:, :, None].astype(np.float32)
    i, j = top.astype(int), left.astype(int)
    upper: Floats = _at(x, i, j, border) * (1 - across) + _at(x, i, j + 1, border) * across
    lower: Floats = _at(x, i + 1, j, border) * (1 - across) + _at(x, i + 1, j + 1, border) * across
    return upper * (1 - down) + lower * down


def _at(x: Floats, i: NDArray[np.int64], j: NDArray[np.int64], border: str) -> Floats:
    height, width = x.shape[:2]
    if border == "zero":
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        return x[i.clip(0, height - 1), j.clip(0, width - 1)] * inside[:, :, None]
    return x[_folded(i, height, border), _folded(j, width, border)]


def _folded(places: NDArray[np.int64], count: int, border: str) -> NDArray[np.int64]:
    """Indices beyond the edge, mirrored back: 'symmetric' repeats the edge pixel, 'reflect' does not."""
    if border == "symmetric":
        places = places % (2 * count)
        return np.minimum(places, 2 * count - 1 - places)
    if count == 1:
        return np.zeros_like(places)
    places = places % (2 * count - 2)
    return np.minimum(places, 2 * count - 2 - places)


def gradient_noise(height: int, width: int, cell_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Perlin's noise with random unit gradients on a lattice of `cell_px`: (height, width), zero on the lattice."""
    rows, columns = np.arange(height) / cell_px, np.arange(width) / cell_px
    i, j = rows.astype(int), columns.astype(int)
    angles = rng.uniform(0, 2 * np.pi, (i[-1] + 2, j[-1] + 2))
    down, across = (rows - i)[:, None], (columns - j)[None]
    cosine, sine = np.cos(angles), np.sin(angles)

    def corner(di: int, dj: int) -> NDArray[np.float64]:
        at = np.ix_(i + di, j + dj)
        return cosine[at] * (down - di) + sine[at] * (across - dj)

    fade_down, fade_across = (t * t * (3 - 2 * t) for t in (down, across))
    upper = corner(0, 0) + fade_across * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade_across * (corner(1, 1) - corner(1, 0))
    blend: NDArray[np.float64] = upper + fade_down * (lower - upper)
    return blend
