"""Images of squares and discs with maps of their classes, which a few steps learn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ground", "square", "disc")


def shape_image(seed: int, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) image and (H, W) map: a red square and a blue disc on dark noise, and a frame that does not count."""
    rng = np.random.default_rng(seed)
    image, labels = rng.integers(0, 60, (height, width, 3)), np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for label, colour in ((1, (200, 60, 60)), (2, (60, 80, 210))):
        side = int(rng.integers(height // 3, height // 2))
        y, x = (int(rng.integers(side // 2, extent - side // 2)) for extent in (height, width))
        inside = np.maximum(abs(rows - y), abs(columns - x)) <= side // 2
        if label == 2:
            inside = np.hypot(rows - y, columns - x) <= side / 2
        image[inside] = colour + rng.integers(-20, 20, 3)
        labels[inside] = label
    labels[:1] = labels[-1:] = 255
    return np.clip(image, 0, 255).astype(np.uint8), labels


def write_shapes(folder: Path, *, train: int = 12, val: int = 5) -> Path:
    """train/ and val/, each with images/*.png and labels/*.png, and classes.json."""
    for part, count, first in (("train", train, 0), ("val", val, 1000)):
        for name in ("images", "labels"):
            (folder / part / name).mkdir(parents=True)
        for i in range(count):
            image, labels = shape_image(first + i, 40, 56 + 8 * (i % 2))
            Image.fromarray(image).save(folder / part / "images" / f"{i:03d}.png")
            Image.fromarray(labels).save(folder / part / "labels" / f"{i:03d}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": list(CLASSES), "ignore_index": 255}))
    return folder
