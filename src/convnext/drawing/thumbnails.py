"""An image as a few kilobytes inside the page."""

import base64
import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

SIDE_PX = 160  # the longer side at most


def thumbnail(read: Callable[[str], bytes], path: str) -> tuple[str, int] | None:
    """(data URI of a small JPEG, its longer side in pixels), or None when the image cannot be shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block or a very large image is no news here
            with Image.open(io.BytesIO(read(path))) as image:
                image.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))  # decodes large JPEGs at a fraction of their size
                small = _plain(ImageOps.exif_transpose(image))
            small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            return jpeg(small), max(small.size)
    except Exception:  # noqa: BLE001 # whatever a broken file does, a report is not the place to fail
        return None


def jpeg(image: Image.Image) -> str:
    """An image in colour or grey as a data URI."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _plain(image: Image.Image) -> Image.Image:
    """Eight bits, three channels, transparency over white."""
    if image.mode.startswith(("I", "F")):  # 16 and 32 bits a pixel: Pillow would clip instead of scale
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(under, image).convert("RGB")
    return image.convert("RGB")
