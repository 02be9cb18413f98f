"""RandAugment (arXiv 1909.13719) through timm, made a pure function of a seed.

timm takes seconds to import and evaluation never augments, so timm is imported by the first picture that does.
"""

import random
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from convnext.errors import DataError

_TRANSLATE = 0.45  # largest shift, as a share of the side (timm's own choice for its training script)


def rand_augment(shown: Image.Image, notation: str, size_px: int, mean: tuple[float, ...], seed: int) -> Image.Image:
    """`shown` after the operations that `seed` (32 bit) decides; gaps are filled with the mean colour.

    timm draws from Python's and NumPy's global generators: both are seeded here and given back as they were.
    """
    policy = prepared(notation, size_px, mean)
    python, numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        return policy(shown)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@cache
def prepared(notation: str, size_px: int, mean: tuple[float, ...]) -> Callable[[Image.Image], Image.Image]:
    """timm's transform for `notation`, e.g. 'rand-m9-mstd0.5-inc1'; DataError when timm cannot read it."""
    from timm.data import auto_augment  # here: see the module's first lines

    fill = tuple(min(255, round(255 * value)) for value in mean)
    settings = {"translate_const": int(size_px * _TRANSLATE), "img_mean": fill if len(fill) > 1 else fill[0]}
    try:
        policy = auto_augment.rand_augment_transform(notation, settings)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"augment.rand_augment = '{notation}' is not RandAugment in timm's notation ({error or 'unknown part'}). "
            "An example is 'rand-m9-mstd0.5-inc1'; '' is off."
        ) from None
    for operation in policy.ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize
    return policy


def posterize(shown: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the highest `bits` of each value. Down to 0, as strong draws ask for, which Pillow 13 refuses: all is black."""
    if bits >= 8:
        return shown
    return ImageOps.posterize(shown, bits) if bits > 0 else Image.new(shown.mode, shown.size)
