"""A picture in any of the forms that people have one in, as pixels."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convnext.data.decode import decode
from convnext.data.source import open_unlabelled

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]  # a path, encoded bytes, PIL's, or (H, W, C)


def pixels(picture: Picture, channels: int) -> tuple[str, NDArray[np.uint8]]:
    """A name for messages, and (H, W, C) uint8. Raises DataError when the picture cannot be read."""
    if isinstance(picture, str | Path):
        entry = open_unlabelled([str(picture)])
        name = entry.entries[0].path
        return name, decode(entry.store.read(name), channels=channels)
    if isinstance(picture, bytes):
        return "<bytes>", decode(picture, channels=channels)
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    stream = io.BytesIO()
    picture.save(stream, "png")
    return "<image>", decode(stream.getvalue(), channels=channels)
