"""What happens to an annotated image in training and in evaluation, as a recipe's `input` and `augment` say it.

All that is random comes from a key: the same key gives the same pixels, whoever asks and whenever.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from convnext.config import AnnotatedAugment, AnnotatedInput, SegmentationAugment
from convnext.data.annotated_transforms import Size, crop, distort, fill_of, fitted, flip, pad, resize, without_slivers
from convnext.data.sample import IGNORE, Sample

Key = tuple[int, ...]

_TRIES = 10  # of a crop that one class must not fill
_FAR = 1_000_000  # no limit for a long side


def generator_of(key: Key) -> np.random.Generator:
    """The random numbers that decide one image of one epoch. Only `random` may be sampled: it never changes."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([word & 0xFFFF_FFFF_FFFF_FFFF for word in key])))


def train_dense(sample: Sample, config: AnnotatedInput, augment: AnnotatedAugment, key: Key) -> Sample:
    """One training image: cropped, fitted, scaled, cropped, flipped, distorted; not yet padded to a batch.

    Objects that are gone or thinner than a pixel are left out; there may be none.
    """
    rng = generator_of(key)
    if rng.random() < augment.precrop:
        sample = resize(sample, fitted(_size(sample), _one_of(augment.precrop_short_px, rng), _FAR))
        sample = _crop_between(sample, augment.precrop_px, rng)
    factor = _between(augment.scale, rng)
    short_px = _one_of(config.short_px, rng)
    sample = resize(sample, fitted(_size(sample), short_px * factor, config.long_px * factor))
    if config.crop_px:
        most = augment.crop_most if isinstance(augment, SegmentationAugment) else 1.0
        sample = _crop_to(sample, config.crop_px, most, rng)
    if rng.random() < augment.hflip:
        sample = flip(sample)
    if rng.random() < augment.vflip:
        sample = flip(sample, vertical=True)
    if augment.photometric:
        sample = replace(sample, image=distort(sample.image, rng.random(9).tolist()))
    if config.crop_px:
        sample = pad(sample, (config.crop_px, config.crop_px), fill_of(config))
    return without_slivers(sample)


def eval_dense(sample: Sample, config: AnnotatedInput, *, factor: float = 1.0, mirrored: bool = False) -> Sample:
    """One image as evaluation and prediction see it; `factor` and `mirrored` are for tests at several scales."""
    short_px, long_px = config.eval_short_px * factor, config.eval_long_px * factor
    sample = resize(sample, fitted(_size(sample), short_px, long_px))
    return flip(sample) if mirrored else sample


def _crop_between(sample: Sample, sides: tuple[int, int], rng: np.random.Generator) -> Sample:
    """A crop whose height and width are each sampled between two sides, or the image's own where that is less."""
    low, high = sides
    wanted = [min(side, low) + int(rng.random() * (min(side, high) - min(side, low) + 1)) for side in _size(sample)]
    return _crop_somewhere(sample, (wanted[0], wanted[1]), rng)


def _crop_to(sample: Sample, side: int, most: float, rng: np.random.Generator) -> Sample:
    """A square crop, less where the image is smaller; the first of ten that no class fills beyond the share `most`."""
    height, width = _size(sample)
    size = (min(side, height), min(side, width))
    if sample.semantic is None or most >= 1:
        return _crop_somewhere(sample, size, rng)
    top, left = 0, 0
    for _ in range(_TRIES):
        top, left = _place(sample, size, rng)
        if _largest_share(sample.semantic[top : top + size[0], left : left + size[1]]) < most:
            break
    return crop(sample, top, left, size)


def _crop_somewhere(sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
    top, left = _place(sample, size, rng)
    return crop(sample, top, left, size)


def _place(sample: Sample, size: Size, rng: np.random.Generator) -> tuple[int, int]:
    height, width = _size(sample)
    return int(rng.random() * (height - size[0] + 1)), int(rng.random() * (width - size[1] + 1))


def _largest_share(semantic: np.ndarray) -> float:
    """Of the pixels that count, the share of the most frequent class; 1 when it is the only one, or there is none."""
    counts = np.bincount(semantic.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum()) if np.count_nonzero(counts) > 1 else 1.0


def _between(ends: tuple[float, float], rng: np.random.Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(rng.random())


def _one_of(options: Sequence[int], rng: np.random.Generator) -> int:
    return options[int(rng.random() * len(options))]


def _size(sample: Sample) -> Size:
    return sample.image.shape[0], sample.image.shape[1]


def in_training(config: AnnotatedInput, augment: AnnotatedAugment) -> Callable[[Sample, Key], Sample]:
    """`train_dense` by these, as the loader wants it and as it can be sent to other processes."""
    return partial(_train, config, augment)


def _train(config: AnnotatedInput, augment: AnnotatedAugment, sample: Sample, key: Key) -> Sample:
    return train_dense(sample, config, augment, key)
