"""Data sets and results as COCO's JSON, whatever form they came in."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from convnext.data.dataset import DenseDataset, size_of, upright
from convnext.data.masks import Rle, Shape, encode
from convnext.data.store import printable
from convnext.errors import DataError


def to_coco(
    dataset: DenseDataset,
    which: Iterable[int] | None = None,
    sizes: Mapping[int, tuple[int, int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The images at the places `which` (None: all) and their objects as a COCO annotation file holds them.

    Numbers are those of the file they came from, at full precision. `sizes`: place -> (H, W) of images that were read,
    as people see them; else the size is that of the annotations. An image whose size is written nowhere is looked at;
    raises DataError when it cannot be read.
    """
    if dataset.task != "detection":
        raise DataError("masks of classes have no form in COCO's JSON of objects.")
    images, annotations = [], []
    for place in range(len(dataset.entries)) if which is None else which:
        entry = dataset.entries[place]
        height, width = size = sizes.get(place) or size_of(dataset, place)
        images.append({"id": entry.image_id, "file_name": printable(entry.path), "height": height, "width": width})
        objects = upright(dataset, place, size)
        if objects is None:
            continue
        for row in range(len(objects)):
            x0, y0, x1, y1 = objects.boxes[row].tolist()
            annotation = {
                "id": int(objects.ids[row]),
                "image_id": entry.image_id,
                "category_id": dataset.category_ids[int(objects.labels[row])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(objects.area[row]),
                "iscrowd": int(objects.crowd[row]),
            }
            shape = objects.shapes[row]
            annotations.append(annotation if shape is None else annotation | {"segmentation": segmentation(shape)})
    categories = [
        {"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def segmentation(shape: Shape) -> list[list[float]] | dict[str, Any]:
    """An outline or run lengths as COCO's JSON has them."""
    if isinstance(shape, Rle):
        return {"size": [shape.height, shape.width], "counts": shape.counts.decode("ascii")}
    return [points.ravel().tolist() for points in shape]


def results(
    category_ids: Sequence[int],
    image_id: int,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    masks: np.ndarray | Sequence[Rle] | None = None,
) -> list[dict[str, Any]]:
    """Detections of one image as COCO's result file lists them; boxes and masks in pixels of the original image.

    `category_ids` is COCO's number of each class, as a data set and a checkpoint have it.
    """
    rows = []
    for row, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4).tolist()):
        found = {
            "image_id": image_id,
            "category_id": category_ids[int(labels[row])],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": float(scores[row]),
        }
        if masks is not None:
            mask = masks[row]
            found["segmentation"] = segmentation(mask if isinstance(mask, Rle) else encode(mask))
        rows.append(found)
    return rows
