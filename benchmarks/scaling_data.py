"""What `benchmarks/scaling.py` measures on: hard links of a few small images, objects in COCO's form, fresh small networks."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convnext.config import override
from convnext.engine.checkpoint import save
from convnext.recipes import recipe
from convnext.tasks.table import row_of

SOURCES = 64  # images that the links lead to: file systems allow 65,000 links to one
BLOCKS: dict[str, Any] = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24)}
DETECTOR: dict[str, Any] = {
    "head.channels": 16, "head.hidden": 32, "head.box_head": "linear", "head.score": 0.0, "head.nms_iou": 1.0,
    "input.eval_short_px": 256, "input.eval_long_px": 256,
}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    "classification": BLOCKS | {"input.eval_size_px": 32},
    "detection": BLOCKS | DETECTOR,
    "segmentation": BLOCKS | {"head.width": 16, "head.aux_width": 8, "input.eval_short_px": 256},
}


def photo(side_px: int, seed: int) -> bytes:
    """A JPEG whose content is coarse, as that of photographs: noise of a few cells, made larger, with some fine noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((side_px, side_px), Image.BICUBIC)
    pixels = np.asarray(coarse)
    tile = random.integers(-6, 7, (min(side_px, 256), min(side_px, 256), 1))
    fine = np.tile(tile, (-(-side_px // len(tile)),) * 2 + (1,))[:side_px, :side_px]
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + fine, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_links(folder: Path, images: int, classes: int, *, side_px: int = 32) -> Path:
    """`folder`/<class>/*.jpg: `images` hard links, each class with its share. Raises SystemExit without room for them."""
    if folder.is_dir():
        return folder
    sources = folder.parent / f"sources_{side_px}"
    sources.mkdir(parents=True, exist_ok=True)
    files = [sources / f"{number}.jpg" for number in range(SOURCES)]
    for number, file in enumerate(files):
        if not file.is_file():
            file.write_bytes(photo(side_px, number))
    free = os.statvfs(folder.parent)
    if free.f_favail and free.f_favail < classes + 10_000:
        raise SystemExit(
            f"'{folder.parent}' has {free.f_favail:,} inodes left, and {classes:,} folders are to be made."
        )
    part = folder.with_suffix(".part")
    for label in range(classes):
        (part / f"class_{label:05d}").mkdir(parents=True)
    for number in range(images):
        os.link(files[number % SOURCES], part / f"class_{number % classes:05d}" / f"{number:07d}.jpg")
    part.rename(folder)
    return folder


def write_photos(folder: Path, images: int, side_px: int) -> Path:
    """`folder`/a/*.jpg and b/*.jpg: photographs of `side_px`, none of them linked."""
    for number in range(images):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        if not (place / f"{number}.jpg").is_file():
            (place / f"{number}.jpg").write_bytes(photo(side_px, number))
    return folder


def write_objects(folder: Path, images: int, objects: int, *, side_px: int = 256) -> Path:
    """`folder`/instances.json and images/*.jpg, with so many objects on each: outlines of twelve points, two classes."""
    if folder.is_dir():
        return folder
    random = np.random.default_rng(0)
    part = folder.with_suffix(".part")
    (part / "images").mkdir(parents=True, exist_ok=True)
    shown, annotations = [], []
    for number in range(1, images + 1):
        (part / "images" / f"{number}.jpg").write_bytes(photo(side_px, number))
        shown.append({"id": number, "file_name": f"images/{number}.jpg", "height": side_px, "width": side_px})
        for _ in range(objects):
            (x, y), (w, h) = random.integers(0, side_px - 24, 2).tolist(), random.integers(6, 24, 2).tolist()
            turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            points = np.stack([x + w / 2 * (1 + np.cos(turn)), y + h / 2 * (1 + np.sin(turn))], 1)
            row: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "area": 0.75 * w * h}
            row |= {"category_id": int(random.integers(1, 3)), "bbox": [x, y, w, h]}
            annotations.append(row | {"segmentation": [points.round(1).ravel().tolist()]})
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {"images": shown, "annotations": annotations, "categories": categories}
    (part / "instances.json").write_text(json.dumps(content))
    part.rename(folder)
    return folder


def write_run(
    folder: Path, task: str, classes: tuple[str, ...], *, fields: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """`folder`/best.safetensors and recipe.json of a network with fresh weights: tiny, or atto with these `fields`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "small" if task == "classification" else f"small_{task}"
    made = override(
        recipe(name, "atto", images=100, image_px=64, classes=len(classes)),
        (FIELDS[task] if fields is None else fields) | changes,
    )
    torch.manual_seed(0)
    model = row_of(task).build(made)
    metadata = {"recipe": made.model_dump(mode="json"), "task": task, "classes": list(classes)}
    save(folder / "best.safetensors", model.state_dict(), metadata)
    (folder / "recipe.json").write_text(made.model_dump_json(indent=1))
    return folder
