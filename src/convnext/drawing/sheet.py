"""Several images on one, in rows."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from convnext.drawing.letters import fitted, lettered

GAP_PX = 6  # between two images
_TITLE_PX = 15  # size of its letters


def sheet(images: Sequence[Image.Image], *, columns: int, side_px: int, title: str = "") -> bytes:
    """A JPEG of images in rows of `columns`, each shrunk to at most `side_px` and in the middle of its cell."""
    for image in images:
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    columns = min(columns, len(images))
    width, height = (max(image.size[axis] for image in images) + GAP_PX for axis in (0, 1))
    above = 2 * _TITLE_PX if title else 0
    whole = Image.new("RGB", (columns * width, above + math.ceil(len(images) / columns) * height), "white")
    if title:
        text, font = lettered(title, _TITLE_PX)
        text = fitted(text, font, whole.width - 2 * GAP_PX)
        ImageDraw.Draw(whole).text((GAP_PX, above / 2), text, font=font, fill="black", anchor="lm")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left, top = (width - image.width) // 2, (height - image.height) // 2
        whole.paste(image, (column * width + left, above + row * height + top))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=85)
    return file.getvalue()
