"""Images as every evaluation, prediction and server sees them: the one evaluation transform, in NumPy and Pillow alone.

Axes: H W pixel rows and columns, C channels (1 or 3), N images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.config import InputConfig, Statistics
from convnext.data.decode import decode, from_pillow, to_pillow
from convnext.data.labelled import Dataset
from convnext.data.store import printable
from convnext.errors import DataError, reason_of

_THIN = 32  # longer side over crop from which evaluation resizes only what the crop shows: up to 2 grey levels off

Change = Callable[[np.ndarray, int], np.ndarray]  # (image as evaluation shows it, index of its entry) -> the same shape


@dataclass(frozen=True)
class Shown:
    """Some images of a dataset after the evaluation transform; those that broke are named instead."""

    images: NDArray[np.uint8]  # (N, H, W, C)
    indices: list[int]  # of their entries
    skipped: dict[str, str]  # path -> reason


def eval_transform(image: np.ndarray, config: InputConfig) -> np.ndarray:
    """(H, W, C) uint8 -> (size, size, C) uint8 as every evaluation, prediction and server sees it.

    'crop': bicubic resize of the shorter side to int(size / eval_crop), then the centre. 'warp': both sides to size.
    """
    size, shown = config.eval_size_px, to_pillow(image)
    if config.eval_resize == "warp":
        return from_pillow(shown.resize((size, size), Image.Resampling.BICUBIC))
    height, width = image.shape[:2]
    shorter = int(size / config.eval_crop)
    new_h = shorter if height <= width else int(shorter * height / width)
    new_w = shorter if width <= height else int(shorter * width / height)
    top, left = round((new_h - size) / 2), round((new_w - size) / 2)  # to even, as torchvision rounds
    if max(new_h, new_w) > _THIN * size:
        across, down = width / new_w, height / new_h
        seen = (left * across, top * down, min(width, (left + size) * across), min(height, (top + size) * down))
        return from_pillow(shown.resize((size, size), Image.Resampling.BICUBIC, box=seen))
    resized = shown.resize((new_w, new_h), Image.Resampling.BICUBIC)
    return from_pillow(resized.crop((left, top, left + size, top + size)))


def normalised(images: NDArray[np.uint8], config: Statistics) -> NDArray[np.float32]:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32: (x / 255 - mean) / std, with the bits of `transforms.normalise`."""
    mean, std = np.array(config.mean, np.float64), np.array(config.std, np.float64)
    x = images.astype(np.float32)
    x *= (1 / (255 * std)).astype(np.float32)
    x += (-mean / std).astype(np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def shown(dataset: Dataset, config: InputConfig, places: Sequence[int], change: Change | None = None) -> Shown:
    """The images at `places` of `dataset`. `change`, such as a corruption, comes after the transform."""
    size, channels = config.eval_size_px, len(config.mean)
    images = np.empty((len(places), size, size, channels), np.uint8)
    indices: list[int] = []
    skipped: dict[str, str] = {}
    for index in places:
        path = dataset.entries[index].path
        try:
            image = eval_transform(decode(dataset.store.read(path), channels=channels), config)
            images[len(indices)] = change(image, index) if change else image
            indices.append(index)
        except (DataError, OSError) as error:
            skipped[printable(path)] = reason_of(error)
    return Shown(images[: len(indices)], indices, skipped)
