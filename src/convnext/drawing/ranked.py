"""What a classifier says of an image, drawn on it: a line for each class, its score as a bar. Axes: H W rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from convnext.drawing.letters import fitted, lettered, letters_px
from convnext.drawing.overlay import NAMED_PX, in_colour
from convnext.drawing.palette import Colour, colour_of

_PLATE: Colour = (18, 22, 26)
_INK: Colour = (255, 255, 255)
_SOFT: Colour = (255, 214, 102)  # of what is said of the whole answer
_COVER = 0.75  # how much of the image the plate covers
_BAR = 0.5  # how much of the plate a bar covers
_MOST = 0.5  # of the image's height that the lines may take


@dataclass(frozen=True)
class Line:
    """One line: a class with its score, or a remark."""

    text: str
    number: int = 0  # for `colour_of`
    score: float | None = None  # 0 to 1; None: a remark


def draw_lines(image: NDArray[np.uint8], lines: Sequence[Line]) -> NDArray[np.uint8]:
    """A copy of (H, W, C) `image` in colour with the lines at its lower edge, and a frame in the colour of the first class.

    As many lines as fit in half the height, remarks first. Below 96 px there is room for the frame alone.
    """
    canvas = Image.fromarray(in_colour(image))
    height, width = image.shape[:2]
    scored = [line for line in lines if line.score is not None]
    if min(height, width) >= NAMED_PX and lines:
        _write_all(canvas, lines)
    if scored:
        thick = max(1, round(min(height, width) / 250))
        ImageDraw.Draw(canvas).rectangle(
            (0, 0, width - 1, height - 1), outline=colour_of(scored[0].number), width=thick
        )
    return np.asarray(canvas)


def _write_all(canvas: Image.Image, lines: Sequence[Line]) -> None:
    size_px = letters_px(canvas.size)
    row_px = round(1.6 * size_px)
    room = max(1, int(_MOST * canvas.height / row_px))
    remarks = [line for line in lines if line.score is None][:room]
    scored = [line for line in lines if line.score is not None]
    kept = [*remarks, *scored[: max(0, room - len(remarks))]]
    top = canvas.height - row_px * len(kept)
    _cover(canvas, (0, top, canvas.width, canvas.height), _PLATE, _COVER)
    for place, line in enumerate(kept):
        _write(canvas, line, top + place * row_px, row_px, size_px)


def _write(canvas: Image.Image, line: Line, top: int, row_px: int, size_px: int) -> None:
    """A name on its bar, with the score on the right."""
    gap, width = max(3, size_px // 3), canvas.width
    if line.score is not None:
        bar_px = round(min(1.0, max(0.0, line.score)) * width)
        _cover(canvas, (0, top, bar_px, top + row_px), colour_of(line.number), _BAR)
    pen, middle = ImageDraw.Draw(canvas), top + row_px / 2
    said = "" if line.score is None else f"{line.score:.1%}"
    _, plain = lettered(said, size_px)
    room = width - 2 * gap - (plain.getlength(said) + gap if said else 0)
    text, font = lettered(line.text, size_px)
    ink = _INK if said else _SOFT
    pen.text((gap, middle), fitted(text, font, room), font=font, fill=ink, anchor="lm")
    pen.text((width - gap, middle), said, font=plain, fill=ink, anchor="rm")


def _cover(canvas: Image.Image, place: tuple[int, int, int, int], colour: Colour, share: float) -> None:
    """Mix `colour` into a part of the image: left, top, right, bottom."""
    if place[2] > place[0] and place[3] > place[1]:
        part = canvas.crop(place)
        canvas.paste(Image.blend(part, Image.new("RGB", part.size, colour), share), place[:2])
