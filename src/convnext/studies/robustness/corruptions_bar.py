"""The ten corruptions of ImageNet-C-bar: Mintun, Kirillov and Xie 2021, arXiv 2102.11273.

Chosen by its authors to be far from ImageNet-C and as hard. A severity 1 to 5 stands for one of the strengths that they
calibrated for 224 px; a strength of 10 is the most. Lengths are parts of the image's shorter side, as in the paper's
code; noise of single pixels and the frequency of the grey wave stay in pixels.
Lattice noise draws its lattice anew for each octave, where the original reads one table of 256.
Axes: H W pixel rows and columns, C channels (1 or 3). Functions take and give float32 (H, W, C) in 0..1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from convnext.studies.robustness.filters import Floats, gaussian_blur, gradient_noise, sample

Doubles = NDArray[np.float64]
_PUBLISHED_PX = 224


def blue_noise_sample(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Pixels go black where noise of high frequencies is low."""
    least = 0.3 * (0.8, 1.6, 2.4, 4.0, 5.6)[level] - 2.5  # in standard deviations
    noise = _spectral_noise(x.shape[0], x.shape[1], lambda distance: distance, rng)
    return x * (noise > least)[:, :, None]


def brownish_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Noise whose amplitude falls with the square of the frequency, each channel for itself."""
    strength = (1.0, 2.0, 3.0, 4.0, 5.0)[level]
    channels = [_spectral_noise(x.shape[0], x.shape[1], lambda d: 1 / (d**2 + 1), rng) for _ in range(x.shape[2])]
    return _added(x, 64 / 255 * strength / 10 * np.stack(channels, 2))


def caustic_refraction(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Seen through moving water: bent by the slopes of a pattern of light, and lit by them."""
    strength = (2.35, 3.2, 4.9, 6.6, 9.15)[level] / 10
    height, width, _ = x.shape
    side = min(height, width)
    time, size = rng.uniform(0.5, 2.0), rng.uniform(0.75, 1.25) * side
    light = gaussian_blur(_caustics(height, width, size, time)[:, :, None].astype(np.float32), scale)[:, :, 0]
    framed = np.pad(light, 1)  # dark beyond the image
    down = (framed[2:, 1:-1] - framed[:-2, 1:-1]).astype(np.float64)
    across = (framed[1:-1, 2:] - framed[1:-1, :-2]).astype(np.float64)
    # A slope is a change over two pixels; per pixel of a 224 px image it means the same at any size.
    slope = np.hypot(down, across) * scale
    incidence = np.arctan(slope)
    bent = np.sin(incidence - np.arcsin(np.sin(incidence) / 4))  # Snell's law, refractive index 4
    bent = np.where(np.cos(incidence) >= 1 - 1e-3, 0, bent) * strength * 0.5 * side
    steep = np.maximum(np.hypot(down, across), 1e-12)
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    shown = sample(x, i + bent * down / steep, j + bent * across / steep, border="zero")
    return _added(shown, (2 * strength * scale * (down - across))[:, :, None])


def checkerboard_cutout(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """A turned chessboard: a share of its black fields is grey."""
    share = (2.0, 3.0, 4.0, 5.0, 6.0)[level] / 10
    height, width, _ = x.shape
    angle, field_px = rng.uniform(0, 2 * np.pi), max(1.0, rng.uniform(0.1, 0.25) * min(height, width))
    i, j = _grid(height, width)
    u = np.floor((np.cos(angle) * i + np.sin(angle) * j) / field_px).astype(int)
    v = np.floor((np.cos(angle) * j - np.sin(angle) * i) / field_px).astype(int)
    u, v = u - u.min(), v - v.min()
    chosen = rng.random((int(u.max()) + 1, int(v.max()) + 1)) < share
    cut = ((u + v) % 2 == 0) & chosen[u, v]
    return np.where(cut[:, :, None], np.float32(128 / 255), x)


def cocentric_sine_waves(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Wavy rings round a point (spelled as in the paper)."""
    strength = (3.0, 5.0, 8.0, 9.0, 10.0)[level] / 10
    height, width, _ = x.shape
    side = min(height, width)
    i, j = _grid(height, width)
    i, j = i - rng.uniform(0, height), j - rng.uniform(0, width)
    petals, swing, ring = rng.uniform(0, 10), rng.uniform(0, side / 10), rng.uniform(0, side / 10)
    distance = np.hypot(i, j) + swing * np.sin(petals * np.arctan2(j, i))
    ring = max(ring, 1e-6)
    return _added(x, 128 / 255 * strength * (distance % ring / ring - 0.5)[:, :, None])


def inverse_sparkles(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """White with rays, except round one point."""
    strength = (1.0, 2.0, 4.0, 9.0, 10.0)[level]
    height, width, _ = x.shape
    side = min(height, width)
    centre = (rng.uniform(0.25, 0.75) * height, rng.uniform(0.25, 0.75) * width)
    rays = 0.25 * side * (1 + 0.25 * rng.standard_normal(int(rng.integers(50, 200))))
    seen = _star(height, width, centre, rays, 6.5 * strength / 50)
    return _added(np.ones_like(x), seen[:, :, None] * (x - 1))


def perlin_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Smoke: the image gives way to five octaves of lattice noise."""
    strength = (4.6, 5.2, 5.8, 7.6, 8.8)[level] / 10 * 0.5
    height, width, _ = x.shape
    octaves = [np.abs(1.5 * gradient_noise(height, width, 32 * scale / 2**k, rng)) / 2**k for k in range(5)]
    smoke = np.clip(0.5 + 0.5 * np.sum(octaves, axis=0), 0, 1)
    return _added((1 - np.float32(strength)) * x, strength * smoke[:, :, None])


def plasma_noise(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Colours that flow into each other."""
    strength = (4.75, 7.0, 8.5, 9.25, 10.0)[level] / 10 * 64 / 255
    height, width, channels = x.shape
    time, rounds = rng.uniform(0, 6 * np.pi), int(rng.integers(4, 7))
    sharpness, zoomed = rng.uniform(0.5, 1.0), rng.uniform(0.075, 0.2) * min(height, width)
    down, across = (axis / zoomed for axis in _grid(height, width))
    frequency, slowness, weakness = 1.0, 1.0, 1.0
    for _ in range(rounds):
        flow_across = np.cos(down * frequency + time / slowness) / weakness
        flow_down = np.sin(across * frequency + time / slowness) / weakness
        across, down = across + flow_across - 0.3 * flow_down, down + flow_down + 0.3 * flow_across
        frequency, slowness, weakness = frequency * 1.93, slowness * 1.15, weakness * (2.25 - sharpness)
    red, blue = np.sin(across - time), np.sin(down + time)
    green = np.sin(0.5 * (across + down + np.sin(time)))
    plasma = np.stack((red, green, blue), 2)
    plasma = plasma if channels == 3 else plasma.mean(2, keepdims=True)
    return _added((1 - np.float32(strength)) * x, strength * plasma)


def single_frequency_greyscale(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """One plane wave, the same in every channel."""
    strength = (1.0, 1.5, 2.0, 4.5, 5.0)[level] / 10
    first = rng.uniform(-np.pi, np.pi)  # radians per pixel
    second = rng.uniform(-abs(first), abs(first))
    down, across = rng.permutation([first, second])
    i, j = _grid(*x.shape[:2])
    return _added(x, 196 / 255 * strength * np.sin(i * down + j * across + rng.uniform(0, 2 * np.pi))[:, :, None])


def sparkles(x: Floats, level: int, scale: float, rng: np.random.Generator) -> Floats:
    """Five bright stars."""
    height, width, _ = x.shape
    side = min(height, width)
    radius = (1.0, 2.0, 3.0, 5.0, 6.0)[level] / 100 * side
    centres = rng.uniform(0, 1, (5, 2)) * (height, width)
    for centre, count in zip(centres.tolist(), rng.integers(50, 200, 5).tolist(), strict=True):
        rays = np.maximum(scale, radius * (1 + 0.25 * rng.standard_normal(count)))
        x = _added(x, _star(height, width, tuple(centre), rays, 1.0)[:, :, None] * (1 - x))
    return x


def _star(height: int, width: int, centre: tuple[float, ...], rays: Doubles, fall: float) -> Floats:
    """1 at the centre, less outside the rays: (length / distance)^(2 fall), bright along the middle of each ray."""
    i, j = _grid(height, width)
    i, j = i - centre[0], j - centre[1]
    turn = (np.arctan2(j, i) + np.pi) / (2 * np.pi) * len(rays)
    which = turn.astype(int)
    part = turn - which
    here, after = rays[which % len(rays)], rays[(which + 1) % len(rays)]
    length = here + part * (after - here)
    glow = (1 - (part - 0.5) ** 2) * (length**2 / (i**2 + j**2 + 1e-4)) ** fall
    return glow.clip(0, 1).astype(np.float32)


def _caustics(height: int, width: int, size_px: float, time: float) -> Doubles:
    """Bright lines of light under water, in 0..1: five rounds of two waves that bend each other."""
    i, j = _grid(height, width)
    down, across = ((axis / size_px) % 1 * 2 * np.pi - 250 for axis in (i, j))
    bent_down, bent_across = down, across
    total: Doubles = np.ones((height, width))
    for number in range(1, 6):
        t = time * (1 - 3.5 / number)
        bent_down, bent_across = (
            down + np.cos(t - bent_down) + np.sin(t + bent_across),
            across + np.sin(t - bent_across) + np.cos(t + bent_down),
        )
        with np.errstate(divide="ignore"):
            first, second = down * 0.005 / np.sin(bent_down + t), across * 0.005 / np.cos(bent_across + t)
        total = total + 1 / np.maximum(np.hypot(first, second), 1e-12)
    return np.clip(np.abs(1.17 - (total / 5) ** 1.4) ** 8, 0, 1)


def _spectral_noise(
    height: int, width: int, amplitude: Callable[[Doubles], Doubles], rng: np.random.Generator
) -> Doubles:
    """Noise of random phases with standard deviation 1; `amplitude` of the distance from the mean frequency.

    Frequencies are counted in waves across the shorter side.
    """
    side = min(height, width)
    down = np.fft.fftfreq(height, 1 / side)
    across = np.fft.rfftfreq(width, 1 / side)
    phases = rng.uniform(0, 2 * np.pi, (len(down), len(across)))
    noise = np.fft.irfft2(amplitude(np.hypot(down[:, None], across)) * np.exp(1j * phases), (height, width))
    return noise / max(float(noise.std()), 1e-12)


def _grid(height: int, width: int) -> tuple[Doubles, Doubles]:
    """(H, W) row numbers and column numbers."""
    i, j = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    return i, j


def _added(x: Floats, more: NDArray[np.floating]) -> Floats:
    return (x + more).clip(0, 1).astype(np.float32)


IMAGENET_C_BAR: dict[str, Callable[[Floats, int, float, np.random.Generator], Floats]] = {
    "blue_noise_sample": blue_noise_sample,
    "brownish_noise": brownish_noise,
    "caustic_refraction": caustic_refraction,
    "checkerboard_cutout": checkerboard_cutout,
    "cocentric_sine_waves": cocentric_sine_waves,
    "inverse_sparkles": inverse_sparkles,
    "perlin_noise": perlin_noise,
    "plasma_noise": plasma_noise,
    "single_frequency_greyscale": single_frequency_greyscale,
    "sparkles": sparkles,
}
