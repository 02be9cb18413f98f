"""The 15 corruptions of ImageNet-C at 5 severities: Hendrycks and Dietterich 2019, arXiv 1903.12261.

The published parameters are for 224 px. Here lengths in pixels (radii, sigmas, shifts, snow flakes) are multiplied by
the image's shorter side / 224. What is a property of single pixels stays as published (noise, JPEG quality), and so
does what is relative already (zoom factors, the share of pixels that pixelate keeps, the fractal of the fog).

Where this differs from the published files: values are rounded, not cut off; the random numbers are NumPy's of today;
FROST IS SYNTHETIC, ice drawn by a formula in place of six photographs that cannot be shipped; and the published files
were stored as JPEG of quality 85 after the corruption, which `stored=True` repeats. So errors are comparable between
networks evaluated here, and close to but not the same as those on the published files.
Axes: H W pixel rows and columns, C channels (1 or 3).
"""

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.decode import from_pillow, to_pillow
from convnext.errors import ConvNeXtError, nearest
from convnext.studies.robustness import corruptions_bar as bar
from convnext.studies.robustness.filters import Floats, disc_blur, gaussian_blur, motion_blur, sample, zoom
from convnext.studies.robustness.frost import frost_texture

SEVERITIES = (1, 2, 3, 4, 5)
_PUBLISHED_PX = 224
_STORED_QUALITY = 85

Pixels = NDArray[np.uint8]
Function = Callable[[Floats, int, float, np.random.Generator], Floats]  # (x in 0..1, severity - 1, scale, rng)


@dataclass(frozen=True)
class Corruption:
    """One cell of a suite, applied to images on their way into the network: a pure function of its fields."""

    name: str
    severity: int
    seed: int = 0
    stored: bool = False  # as JPEG of quality 85 afterwards, as the published files are

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            raise ConvNeXtError(
                f"There is no corruption '{self.name}'.{nearest(self.name, CORRUPTIONS)} "
                f"There are {', '.join(CORRUPTIONS)}."
            )
        if self.severity not in SEVERITIES:
            raise ConvNeXtError(f"severity = {self.severity} is none of 1 to 5; 1 is mild.")

    def __call__(self, image: Pixels, index: int) -> Pixels:
        """`image`, the `index`-th of its data set, corrupted."""
        out = corrupt(image, self.name, self.severity, (self.seed, index))
        return _jpeg(out, _STORED_QUALITY) if self.stored else out


def corrupt(image: Pixels, name: str, severity: int, key: tuple[int, ...]) -> Pixels:
    """(H, W, C) uint8 -> the same shape and type; chance comes from (*key, name, severity) alone.

    `name`: one of CORRUPTIONS, `severity` 1 to 5. The input is left as it is.
    """
    words = [word & 0xFFFF_FFFF_FFFF_FFFF for word in (*key, zlib.crc32(name.encode()), severity)]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
    scale = min(image.shape[:2]) / _PUBLISHED_PX
    x = image.astype(np.float32) / np.float32(255)
    out = CORRUPTIONS[name](x, severity - 1, scale, rng)
    return _pixels(out)


def gaussian_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Low light: normal noise on every value."""
    return x + np.float32((0.08, 0.12, 0.18, 0.26, 0.38)[level]) * rng.standard_normal(x.shape, np.float32)


def shot_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Few photons: values are counts of a Poisson process."""
    photons = (60, 25, 12, 5, 3)[level]
    return (rng.poisson(x * photons) / photons).astype(np.float32)


def impulse_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Bit errors: a share of the values becomes 0 or 1, each channel for itself."""
    sampled = rng.random(x.shape, np.float32)
    share = np.float32((0.03, 0.06, 0.09, 0.17, 0.27)[level])
    return np.where(sampled < share, (sampled < share / 2).astype(np.float32), x)


def defocus_blur(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A lens out of focus."""
    radius, alias = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[level]
    return disc_blur(x, radius * scale, alias)


def glass_blur(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Frosted glass: blur, pixels displaced by chance one after the other, blur.

    The published loop means to exchange two pixels and in effect copies one over the other; so does this one.
    """
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[level]
    x = _pixels(gaussian_blur(x, sigma * scale)).astype(np.float32) / np.float32(255)
    height, width, channels = x.shape
    margin = math.ceil(reach * scale)
    rows, columns = np.arange(height - margin, margin, -1), np.arange(width - margin, margin, -1)
    order = (rows[:, None] * width + columns).ravel()
    taken = list(range(height * width))
    for _ in range(rounds):
        # At other sizes than 224 px the shift falls between pixels; chance rounds it, right on average.
        shift = np.floor(rng.integers(-reach, reach, (2, len(order))) * scale + _fraction(rng, scale, len(order)))
        row = (order // width + shift[0].astype(int)).clip(0, height - 1)
        partner = row * width + (order % width + shift[1].astype(int)).clip(0, width - 1)
        for here, there in zip(order.tolist(), partner.tolist(), strict=True):
            taken[here] = taken[there]
    return gaussian_blur(x.reshape(-1, channels)[taken].reshape(x.shape), sigma * scale)


def motion_camera_blur(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A camera that moves."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    return motion_blur(x, radius * scale, sigma * scale, rng.uniform(-45, 45))


def zoom_blur(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A camera that moves towards the object."""
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[level]
    factors = np.arange(1, end, step).tolist()
    return (x + sum(zoom(x, factor) for factor in factors)) / np.float32(len(factors) + 1)


def snow(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Flakes: bright grains that fall slantwise, on an image that is paler."""
    mean, spread, grain, least, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[level]
    flakes = (mean + spread * rng.standard_normal((*x.shape[:2], 1), np.float32)).astype(np.float32)
    flakes = zoom(flakes, max(1.0, grain * scale))
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1).astype(np.float32)
    flakes = motion_blur(flakes, radius * scale, sigma * scale, rng.uniform(-135, -45))
    pale = np.maximum(x, luma(x) * 1.5 + 0.5)
    return kept * x + (1 - kept) * pale + flakes + flakes[::-1, ::-1]


def frost(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Ice on a lens: a random piece of one of five SYNTHETIC textures (the original has photographs), added."""
    kept, ice = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[level]
    height, width, channels = x.shape
    texture = frost_texture(int(rng.integers(5)), max(height, width))
    top, left = rng.integers(0, texture.shape[0] - height + 1), rng.integers(0, texture.shape[1] - width + 1)
    piece = texture[top : top + height, left : left + width]
    return kept * x + ice * (luma(piece) if channels == 1 else piece)


def fog(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A bright plasma fractal over the image, which keeps its largest value."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[level]
    height, width, _ = x.shape
    plasma = plasma_fractal(1 << math.ceil(math.log2(max(2, height, width))), decay, rng)[:height, :width, None]
    top = max(float(x.max()), 1 / 255)
    return (x + amount * plasma.astype(np.float32)) * np.float32(top / (top + amount))


def brightness(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A share added to the value of hue, saturation, value."""
    value = x.max(2, keepdims=True)
    raised = np.minimum(value + np.float32((0.1, 0.2, 0.3, 0.4, 0.5)[level]), 1)
    return np.where(value > 0, x * (raised / np.maximum(value, 1e-6)), raised)  # hue and saturation stay


def contrast(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Towards the mean of each channel."""
    means = x.mean((0, 1), keepdims=True)
    return (x - means) * np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[level]) + means


def elastic_transform(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Stretched: a random affine map, then a random smooth displacement.

    Published in two regimes: severities 1 and 2 move the whole image far, 3 to 5 wobble small regions.
    """
    unit = 244 * scale  # 244, not 224: a slip in the published code that made the data set
    strength, sigma, moved = (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )[level]
    height, width, _ = x.shape
    arm = min(height, width) // 3
    centre = np.array((height // 2, width // 2))
    corners = centre + np.array(((arm, arm), (arm, -arm), (-arm, -arm)))
    target = corners + rng.uniform(-moved * unit, moved * unit, (3, 2))
    inverse = np.linalg.solve(np.c_[target, np.ones(3)], corners.astype(float))  # (3, 2): target -> where it comes from
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    back = i[:, :, None] * inverse[0] + j[:, :, None] * inverse[1] + inverse[2]
    x = sample(x, back[:, :, 0], back[:, :, 1], border="reflect")
    field = rng.uniform(-1, 1, (height, width, 2)).astype(np.float32)
    # Averaging n = sigma^2 values weakens them by sigma: strength * scale keeps shifts the same part of the image.
    shift = gaussian_blur(field, sigma * unit, truncate=3, border="symmetric") * np.float32(strength * unit * scale)
    return sample(x, i + shift[:, :, 0], j + shift[:, :, 1], border="symmetric")


def pixelate(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Too few pixels, enlarged."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    height, width, _ = x.shape
    small = to_pillow(_pixels(x)).resize(
        (max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX
    )
    return from_pillow(small.resize((width, height), Image.Resampling.BOX)).astype(np.float32) / np.float32(255)


def jpeg_compression(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """JPEG of quality 25 to 7."""
    return _jpeg(_pixels(x), (25, 18, 15, 10, 7)[level]).astype(np.float32) / np.float32(255)


def plasma_fractal(size: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Diamond-square on a torus, in 0..1: (size, size), a power of two. Each halving divides the chance by decay^2."""
    heights = np.zeros((size, size))
    step, spread = size, 100.0
    while step >= 2:
        half = step // 2

        def chance(shape: tuple[int, ...], spread: float = spread) -> NDArray[np.float64]:
            return rng.uniform(-spread, spread, shape) * spread

        corners = heights[::step, ::step]
        below = np.roll(corners, -1, 0)
        sums = corners + below + np.roll(corners + below, -1, 1)
        middles = sums / 4 + chance(sums.shape)
        heights[half::step, half::step] = middles
        sums = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        heights[::step, half::step] = sums / 4 + chance(sums.shape)
        sums = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        heights[half::step, ::step] = sums / 4 + chance(sums.shape)
        step, spread = half, spread / decay
    heights -= heights.min()
    return heights / heights.max()


def luma(x: Floats) -> Floats:
    """(H, W, 1) grey of (H, W, C), by the weights of ITU-R BT.601."""
    return x if x.shape[2] == 1 else x @ np.array([[0.299], [0.587], [0.114]], np.float32)


def _fraction(rng: np.random.Generator, scale: float, count: int) -> NDArray[np.float64] | float:
    return 0.0 if scale == int(scale) else rng.random((2, count))


def _pixels(x: Floats) -> Pixels:
    return np.rint(x.clip(0, 1) * 255).astype(np.uint8)


def _jpeg(image: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    to_pillow(image).save(stream, "JPEG", quality=quality)
    return from_pillow(Image.open(stream))


IMAGENET_C: dict[str, Function] = {  # in the order of the paper's tables
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_camera_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
IMAGENET_C_BAR: dict[str, Function] = bar.IMAGENET_C_BAR
CORRUPTIONS: dict[str, Function] = {**IMAGENET_C, **IMAGENET_C_BAR}
