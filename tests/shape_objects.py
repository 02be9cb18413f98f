"""Squares and discs as objects in COCO's form, and a detector that a test can afford."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convnext.config import Recipe, override
from convnext.data.formats.export import segmentation
from convnext.data.masks import boxes_of, encode
from convnext.recipes import recipe
from shapes import CLASSES, shape_image

NAMES = CLASSES[1:]
IDS = (9, 4)  # COCO's numbers, in another order than ours


def write_objects(folder: Path, *, train: int = 6, val: int = 4, masks: bool = True) -> Path:
    """train/*.png, val/*.png and annotations/instances_{train,val}.json; the last image of each part is empty."""
    for part, count, first in (("train", train, 0), ("val", val, 1000)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        (folder / part).mkdir(parents=True)
        for i in range(count):
            image, labels = shape_image(first + i, 40, 56 + 8 * (i % 2))
            image = np.full_like(image, 30) if i == count - 1 else image
            Image.fromarray(image).save(folder / part / f"{i:03d}.png")
            size = {"height": image.shape[0], "width": image.shape[1]}
            images.append({"id": first + i + 1, "file_name": f"{i:03d}.png", **size})
            if i < count - 1:
                annotations += _annotations(labels, first + i + 1, len(annotations) + 1, masks)
        categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def _annotations(labels: np.ndarray, image_id: int, first: int, masks: bool) -> list[dict[str, Any]]:
    found = []
    for place, number in enumerate(IDS):
        mask = labels == place + 1
        x0, y0, x1, y1 = boxes_of(mask[None])[0].tolist()
        row = {"id": first + place, "image_id": image_id, "category_id": number, "iscrowd": 0, "area": int(mask.sum())}
        row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        found.append(row | ({"segmentation": segmentation(encode(mask))} if masks else {}))
    return found


FIELDS: dict[str, Any] = {
    "precision": "fp32",  # on every machine the same numbers
    "model.depths": (1, 1, 1, 1),
    "model.widths": (8, 12, 16, 24),
    "head.channels": 16,
    "head.hidden": 32,
    "head.box_head": "linear",
    "head.roi_samples": 16,
    "head.candidates_train": 40,
    "head.candidates_test": 40,
    "head.proposals_train": 20,
    "head.proposals_test": 20,
    "head.most": 10,
    "input.short_px": (32, 40),
    "input.long_px": 64,
    "augment.scale": (1.0, 1.0),
    "input.crop_px": 0,
    "input.eval_short_px": 40,
    "input.eval_long_px": 64,
    "input.multiple": 16,
    "schedule.epochs": 3,
    "schedule.warmup_epochs": 0.5,
    "schedule.eval_epochs": 1,
}


def small(**changes: Any) -> Recipe:
    """Four blocks, two classes, three steps an epoch of six images."""
    made = recipe("small_detection", "atto", images=6, image_px=40, classes=2, batch=2)
    return override(made, FIELDS | {name.replace("__", "."): value for name, value in changes.items()})
