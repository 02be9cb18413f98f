"""Small annotated data sets that tests make for themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from convnext.data.masks import boxes_of
from convnext.data.sample import Instances, Sample

HEIGHT, WIDTH = 24, 32


def write_image(file: Path, *, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def square(x: float, y: float, side: float) -> list[float]:
    """A polygon of COCO."""
    return [x, y, x, y + side, x + side, y + side, x + side, y]


def coco(count: int = 4) -> dict[str, Any]:
    """Categories 3 and 7, in each image but the last two objects, in the last none."""
    images = [{"id": 10 * n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(1, count + 1)]
    annotations = []
    for n in range(1, count):
        for category, x in ((7, 2.0), (3, 14.0 + n)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 * n,
                    "category_id": category,
                    "bbox": [x, 4.0, 8.0, 8.0],
                    "area": 64.0,
                    "iscrowd": 0,
                    "segmentation": [square(x, 4.0, 8.0)],
                }
            )
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path, content: dict[str, Any] | None = None, *, name: str = "instances.json") -> Path:
    """annotations/<name> and images/*; the file of annotations."""
    content = coco() if content is None else content
    for n, image in enumerate(content["images"]):
        write_image(folder / "images" / image["file_name"], height=image["height"], width=image["width"], seed=n)
    file = folder / "annotations" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_maps(folder: Path, maps: dict[str, np.ndarray], *, images: str = "images", labels: str = "labels") -> Path:
    """images/<name>.jpg beside labels/<name>.png, by default."""
    for n, (name, values) in enumerate(maps.items()):
        write_image(folder / images / f"{name}.jpg", height=values.shape[0], width=values.shape[1], seed=n)
        file = folder / labels / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(file)
    return folder


def sample_of(image: np.ndarray, masks: np.ndarray, semantic: np.ndarray | None = None) -> Sample:
    """A sample whose boxes are those of its masks."""
    count = len(masks)
    found = Instances(
        boxes_of(masks),
        np.arange(count, dtype=np.int64),
        masks.astype(np.uint8),
        np.zeros(count, bool),
        masks.sum(axis=(1, 2)).astype(np.float32),
        np.arange(1, count + 1, dtype=np.int64),
    )
    return Sample(image, found, semantic, "x.png", 1, (image.shape[0], image.shape[1]))


@st.composite
def rectangles(draw: st.DrawFn, count: int = 3) -> Sample:
    """An image with filled rectangles: each object's pixels are its mask, its colour and its class in the map."""
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    image, semantic = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    for n in range(count):
        top, left = draw(st.integers(0, height - 4)), draw(st.integers(0, width - 4))
        down, right = draw(st.integers(top + 4, height)), draw(st.integers(left + 4, width))
        masks[n, top:down, left:right] = 1
        image[top:down, left:right] = 80 * (n + 1)
        semantic[top:down, left:right] = n + 1
    return sample_of(image, masks, semantic)
