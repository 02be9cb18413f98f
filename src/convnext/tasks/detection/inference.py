"""From samples to what was found in them, in pixels of the original images; evaluation and prediction both go this way.

Axes: N images, C channels, H W rows and columns of the padded batch, D detections, S side of a predicted mask.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import DetectionRecipe
from convnext.data.annotated_transforms import stacked
from convnext.data.formats.export import results
from convnext.data.masks import Rle, encode_inside
from convnext.data.sample import Instances, Sample
from convnext.data.transforms import normalise
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.mask_head import paste
from convnext.tasks.detection.types import Detections, Images, NoNumbers, Size, Targets
from convnext.tasks.finite import NotFinite


@dataclass(frozen=True)
class Found:
    """What was found in one image, best score first, in pixels of the original."""

    path: str
    image_id: int
    size: Size  # (height, width) of the original image
    boxes: NDArray[np.float32]  # (D, 4) x0 y0 x1 y1
    scores: NDArray[np.float32]  # (D,) 0 to 1
    labels: NDArray[np.int64]  # (D,)
    masks: tuple[Rle, ...] | None  # of the whole image; None from a detector of boxes

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Found":
        """Only what has at least this score."""
        return self._take(np.flatnonzero(self.scores >= score))

    def first(self, count: int) -> "Found":
        """Only the `count` best."""
        return self._take(np.arange(min(count, len(self))))

    def _take(self, which: NDArray[np.int64]) -> "Found":
        masks = None if self.masks is None else tuple(self.masks[place] for place in which)
        kept = (self.boxes[which], self.scores[which], self.labels[which])
        return Found(self.path, self.image_id, self.size, *kept, masks)

    def rows(self, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The same as COCO's result file lists it; `category_ids` is COCO's number of each class."""
        return results(category_ids, self.image_id, self.boxes, self.labels, self.scores, self.masks)


def images_of(samples: Sequence[Sample], recipe: DetectionRecipe, device: torch.device) -> Images:
    """A batch of samples on `device`: normalised, then zeros right of and below each."""
    images = torch.from_numpy(stacked([sample.image for sample in samples], recipe.input.multiple))
    x = normalise(images.to(device, non_blocking=True), recipe.input)
    sizes = tuple((sample.image.shape[0], sample.image.shape[1]) for sample in samples)
    for image, (height, width) in zip(x, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return Images(x, sizes)


def targets_of(found: Instances | None, device: torch.device) -> Targets:
    """The objects of one sample as tensors; none where nothing is annotated."""
    if found is None:
        return Targets(torch.zeros(0, 4, device=device), torch.zeros(0, dtype=torch.int64, device=device))
    masks = None if found.masks is None else torch.from_numpy(np.ascontiguousarray(found.masks))
    boxes, labels, crowd = (torch.from_numpy(np.array(each)) for each in (found.boxes, found.labels, found.crowd))
    return Targets(boxes, labels, masks, crowd).to(device)


def find(model: Detector, sample: Sample, recipe: DetectionRecipe) -> Found:
    """What `model`, in its present mode and precision, finds in a sample as evaluation sees it."""
    device = next(model.parameters()).device
    with named(sample):
        (found,) = model.detect(images_of([sample], recipe, device))
    return in_original(found, sample)


@contextlib.contextmanager
def named(sample: Sample) -> Iterator[None]:
    """NotFinite, with the image's name, where what a detector makes of `sample` meanwhile is inf or nan."""
    try:
        yield
    except NoNumbers:
        raise NotFinite(sample.path) from None


def in_original(found: Detections, sample: Sample) -> Found:
    """Detections of a resized sample, brought back to its original image; masks are cut out at 0.5."""
    height, width = sample.size
    back = found.resized((sample.image.shape[0], sample.image.shape[1]), sample.size).to("cpu")
    boxes = np.clip(back.boxes.float().numpy(), 0, np.array([width, height, width, height], np.float32))
    masks = None
    if back.masks is not None:
        pairs = zip(back.masks.double(), boxes.astype(np.float64), strict=True)
        masks = tuple(outline(mask, box, sample.size) for mask, box in pairs)
    scores, labels = back.scores.float().numpy(), back.labels.numpy()
    return Found(sample.path, sample.image_id, sample.size, boxes, scores, labels, masks)


def outline(mask: Tensor, box: NDArray[np.float64], size: Size) -> Rle:
    """The mask of (height, width) `size` that (S, S) probabilities inside one `box` (4,) are; drawn in that box alone.

    A mask is nowhere as likely as 0.5 outside of its box, so nothing is lost.
    """
    height, width = size
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if right <= left or bottom <= top:
        return encode_inside(np.zeros((0, 0), bool), 0, 0, height, width)
    inside = torch.from_numpy(box - np.array([left, top, left, top]))
    part = paste(mask[None], inside[None], (bottom - top, right - left))[0]
    return encode_inside(part.numpy(), top, left, height, width)
