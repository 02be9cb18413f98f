"""Steps from one sample to the next: pixels, boxes, masks and label maps move together.

Axes: H W pixel rows and columns, C channels, M objects, N images. Every step is a pure function; `frame` remembers
the way back. `policy.py` decides which steps a training image takes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from convnext.config import Bands, Statistics
from convnext.data.masks import boxes_of
from convnext.data.sample import IGNORE, Instances, Sample

Size = tuple[int, int]  # (H, W)

_GREY = (124, 116, 104)  # ImageNet's mean colour in 8 bit: 0 after normalisation


def fitted(size: Size, short_px: float, long_px: float) -> Size:
    """The largest size of the same shape whose shorter side is at most `short_px` and longer at most `long_px`."""
    factor = min(short_px / min(size), long_px / max(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def padded_size(size: Size, multiple: int) -> Size:
    """The next size whose sides are multiples of `multiple`."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def resize(sample: Sample, size: Size) -> Sample:
    """The whole image at another size: bilinear for pixels, the nearest pixel for masks and maps."""
    old_h, old_w = sample.image.shape[:2]
    height, width = size
    if (old_h, old_w) == size:
        return sample
    image = _resized(sample.image, size)
    rows, columns = _nearest(old_h, height), _nearest(old_w, width)
    scale_x, scale_y = width / old_w, height / old_h
    found = sample.instances
    if found is not None:
        scale = np.array([scale_x, scale_y, scale_x, scale_y])
        found = replace(
            found,
            boxes=(found.boxes * scale).astype(np.float32),
            masks=None if found.masks is None else found.masks.take(rows, axis=1).take(columns, axis=2),
            area=(found.area * (scale_x * scale_y)).astype(np.float32),
        )
    return replace(
        sample,
        image=image,
        instances=found,
        semantic=None if sample.semantic is None else sample.semantic.take(rows, axis=0).take(columns, axis=1),
        frame=sample.frame.then(scale_x, scale_y, 0, 0),
    )


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    """(H, W, C) uint8 or float32 at another size; other channels than grey and colour one by one."""
    height, width = size
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    bands = (Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(image, 2, 0))
    return np.stack([np.array(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands], 2)


def crop(sample: Sample, top: int, left: int, size: Size) -> Sample:
    """The window of `size` at (top, left), which must lie inside; objects that it does not show are gone.

    An object that the window cuts gets the box and the area of what is left of its mask, where it has one.
    """
    height, width = size
    old_h, old_w = sample.image.shape[:2]
    assert 0 <= top <= old_h - height and 0 <= left <= old_w - width
    if size == (old_h, old_w):
        return sample
    window = (slice(top, top + height), slice(left, left + width))
    found = sample.instances
    return replace(
        sample,
        image=sample.image[window],
        instances=None if found is None else _cropped(found, window),
        semantic=None if sample.semantic is None else sample.semantic[window],
        frame=sample.frame.then(1, 1, -left, -top),
    )


def _cropped(found: Instances, window: tuple[slice, slice]) -> Instances:
    top, left = window[0].start, window[1].start
    height, width = window[0].stop - top, window[1].stop - left
    moved = found.boxes - np.array([left, top, left, top], np.float32)
    boxes = np.clip(moved, 0, np.array([width, height, width, height], np.float32))
    shown = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    cut = (boxes != moved).any(axis=1)
    if found.masks is None:
        share = _sides(boxes) / np.maximum(_sides(moved), np.finfo(np.float32).tiny)
        return replace(found, boxes=boxes, area=np.where(cut, found.area * share, found.area)).take(shown)
    kept = replace(found, boxes=boxes, masks=None).take(shown)
    masks = found.masks[np.flatnonzero(shown)][(slice(None), *window)]
    pixels = np.count_nonzero(masks, axis=(1, 2))
    cut = cut[shown]
    kept = replace(
        kept,
        boxes=np.where(cut[:, None], boxes_of(masks), kept.boxes),
        masks=masks,
        area=np.where(cut, pixels, kept.area).astype(np.float32),
    )
    return kept.take(~cut | (pixels > 0))


def flip(sample: Sample, *, vertical: bool = False) -> Sample:
    """Left and right exchanged, or top and bottom."""
    height, width = sample.image.shape[:2]
    axis, side = (0, height) if vertical else (1, width)
    found = sample.instances
    if found is not None:
        boxes = found.boxes.copy()
        low, high = (1, 3) if vertical else (0, 2)
        boxes[:, low], boxes[:, high] = side - found.boxes[:, high], side - found.boxes[:, low]
        masks = None if found.masks is None else _flipped(found.masks, axis + 1)
        found = replace(found, boxes=boxes, masks=masks)
    return replace(
        sample,
        image=_flipped(sample.image, axis),
        instances=found,
        semantic=None if sample.semantic is None else _flipped(sample.semantic, axis),
        frame=sample.frame.then(1, -1, 0, height) if vertical else sample.frame.then(-1, 1, width, 0),
    )


def pad(sample: Sample, size: Size, fill: Sequence[float] = _GREY) -> Sample:
    """More pixels to the right and below, of colour `fill`; they belong to no object and count for no class."""
    height, width = sample.image.shape[:2]
    below, right = size[0] - height, size[1] - width
    assert below >= 0 and right >= 0
    if not below and not right:
        return sample
    image = np.empty((*size, sample.image.shape[2]), sample.image.dtype)
    image[:] = _colour(fill, sample.image.shape[2])
    image[:height, :width] = sample.image
    found, semantic = sample.instances, sample.semantic
    if found is not None and found.masks is not None:
        found = replace(found, masks=np.pad(found.masks, ((0, 0), (0, below), (0, right))))
    if semantic is not None:
        semantic = np.pad(semantic, ((0, below), (0, right)), constant_values=IGNORE)
    return replace(sample, image=image, instances=found, semantic=semantic)


def distort(image: np.ndarray, sampled: Sequence[float]) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each half of the time (arXiv 1512.02325): (H, W, C) uint8 to the same.

    Brightness by at most 32 levels, contrast and saturation by 0.5 to 1.5, hue by at most 36 degrees; contrast comes
    before or after the colours. `sampled`: nine values in [0, 1).
    """
    levels = np.arange(256, dtype=np.float32)
    table = levels
    contrast = 0.5 + sampled[3] if sampled[2] < 0.5 else 1.0
    if sampled[0] < 0.5:
        table = np.clip(table + 64 * (sampled[1] - 0.5), 0, 255)
    first = sampled[8] < 0.5
    if first:
        table = np.clip(table * contrast, 0, 255)
    image = _mapped(image, table)
    if image.shape[2] == 3 and (sampled[4] < 0.5 or sampled[6] < 0.5):
        colours = np.array(Image.fromarray(image).convert("HSV"))
        if sampled[4] < 0.5:
            colours[:, :, 1] = _mapped(colours[:, :, 1], levels * (0.5 + sampled[5]))
        if sampled[6] < 0.5:
            turn = round((sampled[7] - 0.5) * 2 * 36 / 360 * 256)
            colours[:, :, 0] = (colours[:, :, 0].astype(np.int16) + turn).astype(np.uint8)  # a circle of 256 steps
        planes = [Image.fromarray(colours[:, :, place]) for place in range(3)]
        image = np.array(Image.merge("HSV", planes).convert("RGB"))
    return image if first else _mapped(image, levels * contrast)


def without_slivers(sample: Sample, least_px: float = 1.0) -> Sample:
    """Without the objects that are less than `least_px` wide or high, or whose mask has no pixel left."""
    found = sample.instances
    if found is None:
        return sample
    kept = ((found.boxes[:, 2:] - found.boxes[:, :2]) >= least_px).all(axis=1)
    if found.masks is not None:
        kept &= np.logical_or.reduce(found.masks, axis=(1, 2))
    return sample if kept.all() else replace(sample, instances=found.take(kept))


def stacked(images: Sequence[np.ndarray], multiple: int = 32, fill: Sequence[float] = _GREY) -> np.ndarray:
    """Images (H, W, C) of different sizes -> (N, H, W, C) of the same type, at the top left, sides multiples of `multiple`."""
    channels = images[0].shape[2]
    height, width = padded_size((max(one.shape[0] for one in images), max(one.shape[1] for one in images)), multiple)
    batch = np.empty((len(images), height, width, channels), images[0].dtype)
    batch[:] = _colour(fill, channels)
    for place, image in enumerate(images):
        batch[place, : image.shape[0], : image.shape[1]] = image
    return batch


def fill_of(config: Statistics) -> Sequence[float]:
    """What stands where an image ends: grey or ImageNet's mean colour, of bands their mean. 0 after normalisation."""
    if not isinstance(config, Bands) or not config.bands:
        return _GREY
    return config.mean if config.wide else tuple(round(255 * value) for value in config.mean)


def _nearest(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels the one of `old` under its centre."""
    return np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)


def _flipped(pixels: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.flip(pixels, axis))  # torch takes no array that runs backwards


def _sides(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _mapped(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each level replaced by what `table` has for it."""
    return np.rint(np.clip(table, 0, 255)).astype(np.uint8)[pixels]


def _colour(fill: Sequence[float], channels: int) -> np.ndarray:
    return np.array(fill if channels == len(fill) else [round(sum(fill) / len(fill))])
