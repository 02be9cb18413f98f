"""The pixels of one image on their way into the network, in training and in evaluation.

Axes: H W pixel rows and columns, C channels, N images. Boxes here are (top, left, height, width).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.config import AugmentConfig, InputConfig, Statistics
from convnext.data.augment import rand_augment
from convnext.kernels.transfer import constant

Box = tuple[int, int, int, int]
Key = int | tuple[int, ...]

_TRIES = 10  # of the random resized crop before it takes the centre, as in torchvision
_MIRROR = 2 * _TRIES + 2  # where the chance of a mirror image lies: below the probability there is one
_CHANCES = 2 * _TRIES + 6  # area and aspect of each try, place, two flips, seed of RandAugment


def chances(key: Key) -> list[float]:
    """The random numbers in [0, 1) that decide one image of one epoch: a pure function of `key`."""
    words = [word & 0xFFFF_FFFF_FFFF_FFFF for word in (key if isinstance(key, tuple) else (key,))]
    return list(np.random.Generator(np.random.PCG64(np.random.SeedSequence(words))).random(_CHANCES).tolist())


def view_chances(key: Key, augment: AugmentConfig) -> list[float]:
    """`chances` of the view that a key (seed, epoch, image, ...) names, mirrored in the order that `augment` asks for.

    Where mirror images alternate, (seed, image) decides the even epochs, and the odd ones show the other side.
    """
    sampled = chances(key)
    if augment.hflip_order == "alternate" and 0 < augment.hflip < 1:
        seed, epoch, image = ((*key, 0, 0) if isinstance(key, tuple) else (key, 0, 0))[:3]
        even = chances((seed, image))[_MIRROR] < augment.hflip
        sampled[_MIRROR] = 0.0 if even != bool(epoch % 2) else 1.0
    return sampled


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], sampled: Sequence[float]
) -> Box:
    """The random resized crop: a share of the area from `scale`, an aspect w/h log-uniform in `ratio`.

    Ten tries, then the largest centred box whose aspect is allowed. `sampled`: at least 22 values in [0, 1).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * sampled[2 * attempt])
        aspect = math.exp(low + (high - low) * sampled[2 * attempt + 1])
        crop_w, crop_h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            top = int(sampled[2 * _TRIES] * (height - crop_h + 1))
            left = int(sampled[2 * _TRIES + 1] * (width - crop_w + 1))
            return top, left, crop_h, crop_w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_w = min(width, max(1, round(height * aspect)))
    crop_h = min(height, max(1, round(width / aspect)))
    return (height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w


def least_px(height: int, width: int, box: Box, size_px: int) -> int:
    """The shorter side that a reduced decode must keep, so that `box` still has `size_px` pixels each way."""
    return math.ceil(size_px * min(height, width) / min(box[2], box[3]))


def scaled_box(box: Box, height: int, width: int, to_height: int, to_width: int) -> Box:
    """`box` of a (height, width) image, on the same image decoded to (to_height, to_width)."""
    if (height, width) == (to_height, to_width):
        return box
    top, left, crop_h, crop_w = box
    new_h = min(to_height, max(1, round(crop_h * to_height / height)))
    new_w = min(to_width, max(1, round(crop_w * to_width / width)))
    new_top = min(round(top * to_height / height), to_height - new_h)
    return new_top, min(round(left * to_width / width), to_width - new_w), new_h, new_w


def train_transform(
    image: np.ndarray, size_px: int, augment: AugmentConfig, config: InputConfig, rng_seed: Key
) -> np.ndarray:
    """(H, W, C) uint8 or float32 -> (size_px, size_px, C): random resized crop, flips, RandAugment, from `rng_seed`."""
    sampled = view_chances(rng_seed, augment)
    box = crop_box(image.shape[0], image.shape[1], augment.scale, augment.ratio, sampled)
    return crop_and_augment(image, box, size_px, augment, config, sampled)


def crop_and_augment(
    image: np.ndarray, box: Box, size_px: int, augment: AugmentConfig, config: InputConfig, sampled: Sequence[float]
) -> np.ndarray:
    """What follows once the crop is chosen; the same `sampled` values decide the rest."""
    top, left, height, width = box
    flip_x, flip_y = sampled[_MIRROR] < augment.hflip, sampled[_MIRROR + 1] < augment.vflip
    pixels = _resized(image[top : top + height, left : left + width], size_px, flip_x, flip_y)
    if not augment.rand_augment:
        return pixels
    seed = int(sampled[_MIRROR + 2] * 2**32)
    return rand_augment(pixels, augment.rand_augment, size_px, config.mean, seed)


def normalise(images: Tensor, config: Statistics) -> Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32, channels-last memory, same device: (x / 255 - mean) / std.

    Of float32, wide bands in their own units, (x - mean) / std.
    """
    white = 255 if images.dtype == torch.uint8 else 1
    count, height, width, channels = images.shape
    gain, shift = (each.repeat(width) for each in _scaling(config, white, images.device))
    rows = images.contiguous().view(count, height, width * channels)  # whole rows: three times as fast as C = 3 inside
    x = rows.float().mul(gain) if white == 1 else rows.float().mul_(gain)  # the images are still the caller's
    x = x.add_(shift)
    return x.view(count, height, width, channels).permute(0, 3, 1, 2)


def _scaling(config: Statistics, white: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(C,) what each channel is multiplied by, and what is added then; they stay on `device`."""
    std = torch.tensor(config.std, dtype=torch.float64)
    gain, shift = 1 / (white * std), -torch.tensor(config.mean, dtype=torch.float64) / std
    return constant(tuple(gain.tolist()), device), constant(tuple(shift.tolist()), device)


def _resized(crop: np.ndarray, size_px: int, flip_x: bool, flip_y: bool) -> np.ndarray:
    """(H, W, C) uint8 or float32 -> (size_px, size_px, C): torch's bicubic with antialiasing.

    It is seven times as fast as Pillow's. Both round between the two passes, in another order: they differ by a grey
    level here and there, and by more only where noise overshoots. Evaluation stays with Pillow's, which published
    accuracies were measured with. The flips are torch's too: NumPy would copy them backwards, byte by byte.
    """
    x = torch.from_numpy(crop)[None].permute(0, 3, 1, 2)  # in this order torch sees channels-last memory, and keeps it
    resized = F.interpolate(x, (size_px, size_px), mode="bicubic", antialias=True)
    turned = [axis for axis, asked in ((0, flip_y), (1, flip_x)) if asked]
    pixels = resized[0].permute(1, 2, 0)
    return (pixels.flip(turned) if turned else pixels).numpy()
