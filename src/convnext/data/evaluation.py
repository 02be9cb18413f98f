"""Images as every evaluation, prediction and server sees them: the one evaluation transform, in NumPy and Pillow alone.

Axes: H W pixel rows and columns, C channels, N images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.config import InputConfig, Statistics
from convnext.data.bands import kind_of_pixels, read_pixels
from convnext.data.decode import from_pillow, to_pillow
from convnext.data.labelled import Dataset
from convnext.data.resized import resized_part
from convnext.data.store import printable
from convnext.errors import DataError, reason_of

_THIN = 32  # longer side over crop from which evaluation resizes only what the crop shows: up to 2 grey levels off

Change = Callable[[np.ndarray, int], np.ndarray]  # (image as evaluation shows it, index of its entry) -> the same shape


@dataclass(frozen=True)
class Shown:
    """Some images of a dataset after the evaluation transform; those that broke are named instead."""

    images: NDArray[Any]  # (N, H, W, C) uint8, float32 of wide bands
    indices: list[int]  # of their entries
    skipped: dict[str, str]  # path -> reason


def eval_transform(image: np.ndarray, config: InputConfig) -> np.ndarray:
    """(H, W, C) uint8 or float32 -> (size, size, C) of the same as every evaluation, prediction and server sees it.

    'crop': bicubic resize of the shorter side to int(size / eval_crop), then the centre. 'warp': both sides to size.
    Other channels than grey and colour are resized one by one, which gives each the same numbers.
    """
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        return _transformed(image, config)
    bands = [_transformed(np.ascontiguousarray(band)[:, :, None], config) for band in np.moveaxis(image, 2, 0)]
    return np.concatenate(bands, 2)


def _transformed(image: np.ndarray, config: InputConfig) -> np.ndarray:
    """(size, size, C)."""
    size = config.eval_size_px
    if config.eval_resize == "warp":
        return resized_part(image, (size, size), (0, 0, size, size))
    height, width = image.shape[:2]
    new_h, new_w, top, left = _resized_and_cut(height, width, config)
    if max(new_h, new_w) > _THIN * size:
        left_px, top_px, right_px, bottom_px = seen_box(height, width, config)
        seen = (left_px, top_px, min(width, right_px), min(height, bottom_px))
        return from_pillow(to_pillow(image).resize((size, size), Image.Resampling.BICUBIC, box=seen))
    return resized_part(image, (new_h, new_w), (top, left, size, size))


def framed(images: np.ndarray, config: InputConfig) -> np.ndarray:
    """(N, size, size, C) that `eval_transform` made -> (N, side, side, C) that it would make the same of.

    A graph with the transform inside, which is shown these, keeps every pixel: its resize leaves the size as it is, and its
    crop takes the frame away.
    """
    if config.eval_resize == "warp":
        return images
    size = config.eval_size_px
    side = int(size / config.eval_crop)
    before = round((side - size) / 2)
    around = (before, side - size - before)
    return np.pad(images, ((0, 0), around, around, (0, 0)))


def seen_box(height: int, width: int, config: InputConfig) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what `eval_transform` shows of a (height, width) image, in its pixels."""
    if config.eval_resize == "warp":
        return 0, 0, width, height
    new_h, new_w, top, left = _resized_and_cut(height, width, config)
    across, down = width / new_w, height / new_h
    return left * across, top * down, (left + config.eval_size_px) * across, (top + config.eval_size_px) * down


def _resized_and_cut(height: int, width: int, config: InputConfig) -> tuple[int, int, int, int]:
    """Height and width after the resize, and the top and left of the centre that is cut out."""
    size = config.eval_size_px
    shorter = int(size / config.eval_crop)
    new_h = shorter if height <= width else int(shorter * height / width)
    new_w = shorter if width <= height else int(shorter * width / height)
    top, left = round((new_h - size) / 2), round((new_w - size) / 2)  # to even, as torchvision rounds
    return new_h, new_w, top, left


def normalised(images: NDArray[Any], config: Statistics) -> NDArray[np.float32]:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32: (x / 255 - mean) / std, with the bits of `transforms.normalise`.

    Of float32, wide bands in their own units, (x - mean) / std.
    """
    mean, std = np.array(config.mean, np.float64), np.array(config.std, np.float64)
    x = images.astype(np.float32)
    x *= (1 / (white_of(images.dtype) * std)).astype(np.float32)
    x += (-mean / std).astype(np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def white_of(dtype: np.dtype) -> int:
    """What mean and std are shares of: 255 of pixels of 8 bit; 1, their own unit, of wide bands."""
    return 255 if dtype == np.uint8 else 1


def shown(dataset: Dataset, config: InputConfig, places: Sequence[int], change: Change | None = None) -> Shown:
    """The images at `places` of `dataset`. `change`, such as a corruption, comes after the transform."""
    size, channels = config.eval_size_px, len(config.mean)
    images = np.empty((len(places), size, size, channels), kind_of_pixels(config))
    indices: list[int] = []
    skipped: dict[str, str] = {}
    for index in places:
        path = dataset.entries[index].path
        try:
            image = eval_transform(read_pixels(dataset.store.read(path), config), config)
            images[len(indices)] = change(image, index) if change else image
            indices.append(index)
        except (DataError, OSError) as error:
            skipped[printable(path)] = reason_of(error)
    return Shown(images[: len(indices)], indices, skipped)
