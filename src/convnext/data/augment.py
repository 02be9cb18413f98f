"""RandAugment (arXiv 1909.13719) through timm, made a pure function of a seed. Axes: H W pixel rows and columns, C channels.

timm takes seconds to import and evaluation never augments, so timm is imported by the first image that does. Rotation,
shears and shifts run on the compiled kernel where there is one, and through Pillow elsewhere, with the same bits.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from convnext.data.decode import from_pillow, to_pillow
from convnext.errors import DataError
from convnext.kernels import cpu
from convnext.kernels.dispatch import without_compiled

_TRANSLATE = 0.45  # largest shift, as a share of the side (timm's own choice for its training script)
_SMOOTH = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
Matrix = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Operation:
    """One of timm's operations, with its own strength sampled at each call."""

    name: str
    act: Any  # timm's AugmentOp, which acts whenever it is called
    chance: float  # that it acts once it is sampled
    on_arrays: bool  # takes pixels rather than an image of Pillow's

    def __call__(self, pixels: np.ndarray) -> np.ndarray:  # (H, W, C) uint8 -> the same shape
        return self.act(pixels) if self.on_arrays else from_pillow(self.act(to_pillow(pixels)))


@dataclass(frozen=True)
class Policy:
    """What RandAugment samples from: timm's operations, and what decides which of them act."""

    ops: tuple[Operation, ...]
    layers: int  # sampled for each image
    weights: tuple[float, ...] | None  # of the draw, then without repetition; None: all alike, with it

    def sampled(self, chance: random.Random) -> list[Operation]:
        """The operations that act on one image, in order."""
        if self.weights is None:
            places = [int(chance.random() * len(self.ops)) for _ in range(self.layers)]
        else:
            generator = np.random.default_rng(chance.getrandbits(64))
            places = generator.choice(len(self.ops), self.layers, replace=False, p=self.weights).tolist()
        return [self.ops[place] for place in places if chance.random() < self.ops[place].chance]


def rand_augment(pixels: np.ndarray, notation: str, size_px: int, mean: tuple[float, ...], seed: int) -> np.ndarray:
    """(H, W, C) uint8 after the operations that `seed` (32 bit) decides; gaps are filled with the mean colour.

    timm's operations sample from Python's global generator: it is seeded here and given back as it was.
    """
    acting = prepared(notation, size_px, mean).sampled(random.Random(seed))
    if not acting:
        return pixels
    state = random.getstate()
    try:
        random.seed(seed)
        for operation in acting:
            pixels = operation(pixels)
    finally:
        random.setstate(state)
    return pixels


@cache
def prepared(notation: str, size_px: int, mean: tuple[float, ...]) -> Policy:
    """timm's transform for `notation`, e.g. 'rand-m9-mstd0.5-inc1'; DataError when timm cannot read it."""
    from timm.data import auto_augment  # here: see the module's first lines

    fill = tuple(min(255, round(255 * value)) for value in mean)
    settings = {"translate_const": int(size_px * _TRANSLATE), "img_mean": fill if len(fill) > 1 else fill[0]}
    try:
        found = auto_augment.rand_augment_transform(notation, settings)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"augment.rand_augment = '{notation}' is not RandAugment in timm's notation ({error or 'unknown part'}). "
            "An example is 'rand-m9-mstd0.5-inc1'; '' is off."
        ) from None
    weights = None if found.choice_weights is None else tuple(float(weight) for weight in found.choice_weights)
    compiled = without_compiled() is None  # asked once, before processes that read are started
    ops = tuple(_operation(operation, compiled) for operation in found.ops)
    return Policy(ops, int(found.num_layers), weights)


def _operation(found: Any, compiled: bool) -> Operation:
    """timm's operation, which now acts at every call, on the compiled kernel where it is one of MOVES."""
    chance, found.prob = float(found.prob), 1.0
    name = found.aug_fn.__name__
    if name == "posterize":
        found.aug_fn = posterize
    on_arrays = compiled and name in MOVES and set(_choices(found.kwargs.get("resample", ()))) <= {*_SMOOTH}
    if on_arrays:
        found.aug_fn = Move(name)
    return Operation(name, found, chance, on_arrays)


@dataclass(frozen=True)
class Move:
    """One of MOVES on the compiled kernel, called as timm calls its own: pixels, strength, fillcolor and resample."""

    name: str

    def __call__(
        self,
        pixels: np.ndarray,
        level: float,
        *,
        fillcolor: int | Sequence[int] = 0,
        resample: int | Sequence[int] = Image.Resampling.BICUBIC,
    ) -> np.ndarray:
        height, width, channels = pixels.shape
        chosen = resample if isinstance(resample, int) else random.choice(resample)
        fill = [fillcolor] * channels if isinstance(fillcolor, int) else fillcolor
        matrix = MOVES[self.name](level, height, width)
        return cpu.affine(pixels, matrix, cubic=chosen == Image.Resampling.BICUBIC, fill=fill)


def rotation(degrees: float, height: int, width: int) -> Matrix:
    """The matrix of Pillow's `rotate`: counter-clockwise about the centre, sines rounded to 15 places."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2.0, height / 2.0
    return cos, sin, cos * -x + sin * -y + 0.0 + x, -sin, cos, -sin * -x + cos * -y + 0.0 + y


MOVES = {  # timm's name -> the matrix for a strength and an image's height and width
    "rotate": rotation,
    "shear_x": lambda level, _height, _width: (1, level, 0, 0, 1, 0),
    "shear_y": lambda level, _height, _width: (1, 0, 0, level, 1, 0),
    "translate_x_abs": lambda level, _height, _width: (1, 0, level, 0, 1, 0),
    "translate_y_abs": lambda level, _height, _width: (1, 0, 0, 0, 1, level),
    "translate_x_rel": lambda level, _height, width: (1, 0, level * width, 0, 1, 0),
    "translate_y_rel": lambda level, height, _width: (1, 0, 0, 0, 1, level * height),
}


def posterize(shown: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the highest `bits` of each value. Down to 0, as strong draws ask for, which Pillow 13 refuses: all is black."""
    if bits >= 8:
        return shown
    return ImageOps.posterize(shown, bits) if bits > 0 else Image.new(shown.mode, shown.size)


def _choices(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else (value,)
