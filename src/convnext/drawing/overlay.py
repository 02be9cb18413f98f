"""Boxes, masks and names drawn on an image. Axes: H W pixel rows and columns, M objects."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from convnext.data.masks import Shape, render
from convnext.data.sample import IGNORE
from convnext.drawing.letters import letters_px, write_name
from convnext.drawing.palette import ON_IMAGES, colour_of

NAMED_PX = 96  # shorter side from which on an image has room for names: on smaller ones they would hide everything
_COVER = 0.45  # how much of a mask's colour covers the image
_HEAT = 0.75  # how much of the strongest colour of a heat map does
_UNSEEN = 0.4  # brightness of what a network did not see


def draw_objects(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    colours: Sequence[int],
    names: Sequence[str] = (),
    masks: Sequence[Shape | None] = (),
) -> NDArray[np.uint8]:
    """A copy of (H, W, C) `image` in colour with (M, 4) boxes x0 y0 x1 y1, the last on top.

    `colours` are numbers for `colour_of`, `names` what is written at each box, '' for nothing, `masks` outlines or run
    lengths, which tint what is inside. Below 96 px there is no room for names.
    """
    drawn = in_colour(image)
    for number, mask in zip(colours, masks, strict=bool(masks)):
        if mask is not None:
            inside = render(mask, *image.shape[:2]).astype(bool)
            drawn[inside] = ((1 - _COVER) * drawn[inside] + _COVER * np.array(colour_of(number))).astype(np.uint8)
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(min(image.shape[:2]) / 250))
    size_px = letters_px(image.shape)
    for place, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4).tolist()):
        colour = colour_of(colours[place])
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=line)
        if names and names[place] and min(image.shape[:2]) >= NAMED_PX:
            write_name(pen, names[place], (x0, y0), colour, size_px, image.shape[1])
    return np.asarray(canvas)


def draw_map(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[str] = ()) -> NDArray[np.uint8]:
    """A copy of (H, W, C) `image` in colour, tinted by the class of each pixel in (H, W) `labels`; IGNORE is not.

    `classes`: names, written in the middle of those that have a hundredth of the pixels or more, from 96 px on.
    """
    drawn = in_colour(image)
    counted = labels != IGNORE
    tints = np.array([colour_of(number) for number in range(256)], np.float64)[labels[counted]]
    drawn[counted] = ((1 - _COVER) * drawn[counted] + _COVER * tints).astype(np.uint8)
    canvas = Image.fromarray(drawn)
    pen, size_px = ImageDraw.Draw(canvas), letters_px(labels.shape)
    for number, name in enumerate(classes if min(labels.shape) >= NAMED_PX else ()):
        places = np.argwhere(labels == number)
        if len(places) >= labels.size / 100:
            away = ((places - places.mean(0)) ** 2).sum(1)
            row, column = places[away.argmin()].tolist()  # the mean itself may lie outside
            write_name(pen, name, (column, row), colour_of(number), size_px, labels.shape[1])
    return np.asarray(canvas)


def draw_heat(
    image: NDArray[np.uint8], heat: NDArray[np.floating], seen: tuple[float, float, float, float], name: str = ""
) -> NDArray[np.uint8]:
    """(H, W, C) `image` in greys, tinted by (H, W) `heat`: orange what speaks for something, blue what speaks against.

    The strongest value, of whichever sign, has the full colour. `seen`: left, top, right and bottom of what a network
    saw, in pixels; outside of it the image is darkened. `name`: written at the top, from 96 px on.
    """
    grey = np.asarray(Image.fromarray(in_colour(image)).convert("L"))
    most = float(np.abs(heat).max()) or 1.0
    strength = _HEAT * np.abs(heat)[:, :, None] / most
    tints = np.where(heat[:, :, None] > 0, ON_IMAGES["wrong"], ON_IMAGES["right"])
    drawn = ((1 - strength) * grey[:, :, None] + strength * tints).round()
    drawn[~_inside(heat.shape, seen)] *= _UNSEEN
    canvas = Image.fromarray(drawn.astype(np.uint8))
    if name and min(heat.shape) >= NAMED_PX:
        pen = ImageDraw.Draw(canvas)
        write_name(pen, name, (0, 0), ON_IMAGES["wrong"], letters_px(heat.shape), heat.shape[1])
    return np.asarray(canvas)


def heat_layer(heat: NDArray[np.floating], seen: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """(H, W, 4) to lay over an image in greys: red, green, blue and how much they cover; the colours of `draw_heat`."""
    most = float(np.abs(heat).max()) or 1.0
    layer = np.empty((*heat.shape, 4), np.uint8)
    layer[:, :, :3] = np.where(heat[:, :, None] > 0, ON_IMAGES["wrong"], ON_IMAGES["right"])
    layer[:, :, 3] = (255 * _HEAT * np.abs(heat) / most).round()
    layer[~_inside(heat.shape, seen)] = (0, 0, 0, round(255 * (1 - _UNSEEN)))
    return layer


def in_colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of (H, W, C) `image` as (H, W, 3)."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3].copy()


def names_of(labels: Sequence[int], scores: Sequence[float], classes: Sequence[str]) -> list[str]:
    """'dog 0.97' for each detection."""
    return [f"{classes[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]


def colours_of(labels: Sequence[int], classes: Sequence[str]) -> list[int]:
    """By class; where there is one class, by object, so that neighbours can be told apart."""
    return list(range(len(labels))) if len(classes) == 1 else [int(label) for label in labels]


def _inside(shape: Sequence[int], seen: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """(H, W) whether a pixel's centre lies within left, top, right and bottom."""
    rows, columns = (np.arange(length) + 0.5 for length in shape)
    left, top, right, bottom = seen
    inside: NDArray[np.bool_] = ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))
    return inside
