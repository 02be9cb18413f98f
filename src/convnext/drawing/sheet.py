"""Several images on one, in rows."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from convnext.drawing.letters import fitted, lettered

GAP_PX = 6  # between two images
_TITLE_PX = 15  # size of its letters
_CAPTION_PX = 16  # height of what stands above one image


def captioned(image: Image.Image, caption: str, side_px: int) -> Image.Image:
    """The image, shrunk to at most `side_px` with the `caption` that then stands above it."""
    image.thumbnail((side_px, side_px - _CAPTION_PX), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (image.width, image.height + _CAPTION_PX), "white")
    text, font = lettered(caption, _CAPTION_PX - 4)
    ImageDraw.Draw(whole).text(
        (0, _CAPTION_PX / 2), fitted(text, font, image.width), font=font, fill="black", anchor="lm"
    )
    whole.paste(image, (0, _CAPTION_PX))
    return whole


def sheet(images: Sequence[Image.Image], *, columns: int, side_px: int, title: str = "") -> bytes:
    """A JPEG of images in rows of `columns`, each shrunk to at most `side_px` and in the middle of its cell.

    It is wide enough for all of `title`.
    """
    for image in images:
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    columns = min(columns, len(images))
    width, height = (max(image.size[axis] for image in images) + GAP_PX for axis in (0, 1))
    above = 2 * _TITLE_PX if title else 0
    text, font = lettered(title, _TITLE_PX)
    across = max(columns * width, math.ceil(font.getlength(text)) + 2 * GAP_PX if title else 0)
    whole = Image.new("RGB", (across, above + math.ceil(len(images) / columns) * height), "white")
    if title:
        ImageDraw.Draw(whole).text((GAP_PX, above / 2), text, font=font, fill="black", anchor="lm")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left, top = (width - image.width) // 2, (height - image.height) // 2
        whole.paste(image, (column * width + left, above + row * height + top))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=85)
    return file.getvalue()
