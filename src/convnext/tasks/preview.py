"""Maps small enough to be kept in a run's files, for the images that its report shows. Axes: H W rows and columns."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.decode import decode_indices
from convnext.data.masks import Rle, thinned

SIDE_PX = 480  # the longer side at most


def preview_size(height: int, width: int) -> tuple[int, int]:
    """(H, W) of an image's preview: the same shape, nowhere larger than the image."""
    scale = min(1.0, SIDE_PX / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def preview(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H, W) labels or masks -> the same at (H, W) `size`: of each small pixel, what lies at its middle."""
    rows, columns = map(_middles, size, values.shape)
    return values[np.ix_(rows, columns)]


def preview_of(mask: Rle, size: tuple[int, int]) -> Rle:
    """`preview` of a mask by its runs, whose cost follows the mask's own box and not the image."""
    return thinned(mask, _middles(size[0], mask.height), _middles(size[1], mask.width))


def _middles(small: int, full: int) -> NDArray[np.int64]:
    """The places of `full` pixels that lie at the middle of each of `small`."""
    return ((np.arange(small) + 0.5) * (full / small)).astype(np.int64)


def to_png(labels: NDArray[np.uint8]) -> bytes:
    """(H, W) labels as a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue()


def as_text(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(data).decode("ascii")


def labels_of(text: str) -> NDArray[np.uint8]:
    """The (H, W) labels of a PNG as text. Raises ValueError, and DataError, where it is none."""
    return decode_indices(base64.b64decode(text, validate=True))
