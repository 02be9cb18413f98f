"""An image as a few kilobytes inside a page, with the pixels that the network saw; of many bands three, stretched."""

import base64
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.bands import shown_to_eyes
from convnext.data.decode import to_pillow

Shown = Callable[..., NDArray[np.uint8]]  # (bytes of a file, least_px) -> (H, W, 1 or 3)
SIDE_PX = 160  # the longer side at most


def thumbnail(read: Callable[[str], bytes], path: str, shown: Shown = shown_to_eyes) -> tuple[str, int] | None:
    """(data URI of a small JPEG, its longer side in pixels), or None when the image cannot be shown.

    `shown`: a file as an image to be drawn; another than this one knows which bands a network reads.
    """
    try:
        small = to_pillow(shown(read(path), least_px=2 * SIDE_PX))
        small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
        return jpeg(small), max(small.size)
    except Exception:  # noqa: BLE001 # whatever a broken file does, a report is not the place to fail
        return None


def jpeg(image: Image.Image) -> str:
    """An image in colour or grey as a data URI."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, subsampling=0, optimize=True)
    return as_uri(file.getvalue())


def as_uri(data: bytes) -> str:
    """The bytes of a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
