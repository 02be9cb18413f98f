"""An image in any of the forms that people have one in, as pixels."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.decode import decode
from convnext.data.opening import open_unlabelled

ImageInput = str | Path | bytes | Image.Image | NDArray[np.uint8]  # a path, encoded bytes, PIL's, or (H, W, C)


def pixels_of(image: ImageInput, channels: int) -> tuple[str, NDArray[np.uint8]]:
    """A name for messages, and (H, W, C) uint8. Raises DataError when the image cannot be read."""
    if isinstance(image, str | Path):
        entry = open_unlabelled([str(image)])
        name = entry.entries[0].path
        return name, decode(entry.store.read(name), channels=channels)
    if isinstance(image, bytes):
        return "<bytes>", decode(image, channels=channels)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    image.save(stream, "png")
    return "<image>", decode(stream.getvalue(), channels=channels)
