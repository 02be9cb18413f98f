"""Small detectors and small annotated images for tests."""

from typing import Any

import torch
from torch import Tensor

from convnext.config import ConvNeXtConfig, DetectorHeadConfig, parse
from convnext.recipes.dense import CASCADE_HEAD
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.types import Targets

BACKBONE = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), layer_scale=0.1, classes=0)
SMALL = {
    "classes": 3,
    "channels": 16,
    "hidden": 32,
    "head_norm": "group",
    "roi_samples": 32,
    "candidates_train": 100,
    "candidates_test": 50,
    "proposals_train": 60,
    "proposals_test": 30,
    "most": 10,
    "score": 0.0,
}


def head(kind: str = "mask_rcnn", **fields: Any) -> DetectorHeadConfig:
    """A narrow head with few samples."""
    start = CASCADE_HEAD if kind == "cascade" else DetectorHeadConfig()
    return parse(DetectorHeadConfig, start.model_dump() | SMALL | fields, where="test")


def small_detector(kind: str = "mask_rcnn", **fields: Any) -> Detector:
    """The same weights at every call."""
    torch.manual_seed(0)
    return Detector(BACKBONE, head(kind, **fields))


def rectangles(size: tuple[int, int], boxes: list[list[float]], labels: list[int], *, masks: bool = True) -> Targets:
    """Objects that fill their boxes."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    filled = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(filled, corners.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    return Targets(corners, torch.tensor(labels, dtype=torch.int64), filled if masks else None)


def random_boxes(count: int, *, seed: int, size: float = 100.0, least: float = 1.0) -> Tensor:
    """(count, 4) boxes of at least `least` pixels a side inside a square of `size`."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * (size - least)
    side = least + torch.rand(count, 2, generator=generator) * (size - least - corner)
    return torch.cat([corner, corner + side], 1)
