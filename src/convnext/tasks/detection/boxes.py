"""Arithmetic of boxes: coding by deltas, overlaps, clipping.

Axes: A candidates, M objects. Boxes are (x0, y0, x1, y1) in pixels, without the "+ 1" of old conventions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convnext.kernels.transfer import listed

LARGEST_STRETCH = math.log(1000 / 16)  # of a side, either way, so that an untrained head makes no infinite box


def encode(boxes: Tensor, goals: Tensor, stds: Sequence[float]) -> Tensor:
    """(A, 4) deltas that turn `boxes` into `goals`, in units of `stds`.

    Shifts of the centre are in sides of the box, changes of the sides are logarithms (arXiv 1311.2524, appendix C).
    """
    x, y, width, height = _centred(boxes)
    to_x, to_y, to_width, to_height = _centred(goals)
    deltas = [(to_x - x) / width, (to_y - y) / height, (to_width / width).log(), (to_height / height).log()]
    return torch.stack(deltas, -1) / listed(stds, boxes)


def decode(boxes: Tensor, deltas: Tensor, stds: Sequence[float]) -> Tensor:
    """The goals of `encode` from (A, 4) boxes and (A, 4) deltas; (A, K, 4) deltas give K goals for each box."""
    if deltas.ndim > boxes.ndim:
        boxes = boxes[:, None]
    x, y, width, height = _centred(boxes)
    dx, dy, dw, dh = (deltas * listed(stds, deltas)).unbind(-1)
    x, y = x + dx * width, y + dy * height
    half_width = width * dw.clamp(-LARGEST_STRETCH, LARGEST_STRETCH).exp() / 2
    half_height = height * dh.clamp(-LARGEST_STRETCH, LARGEST_STRETCH).exp() / 2
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) boxes cut at the borders of an image of `size` (height, width)."""
    height, width = size
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1)


def area(boxes: Tensor) -> Tensor:
    """(...) square pixels of (..., 4) boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def ious(boxes: Tensor, others: Tensor) -> Tensor:
    """(A, M) intersection over union of every one of (A, 4) with every one of (M, 4); 0 for two empty boxes."""
    shared = _intersections(boxes, others)
    union = area(boxes)[:, None] + area(others) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def covers(boxes: Tensor, others: Tensor) -> Tensor:
    """(A, M) share of each box's own area that lies inside each of `others`; 0 for an empty box."""
    return _intersections(boxes, others) / area(boxes).clamp(min=torch.finfo(boxes.dtype).tiny)[:, None]


def gious(boxes: Tensor, others: Tensor) -> Tensor:
    """(A,) generalised IoU (arXiv 1902.09630) of each box with the one in the same place, from -1 to 1; differentiable.

    IoU, less the share of the smallest box around both that neither fills.
    """
    inner = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    outer = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    shared = inner.prod(-1)
    least = 1e-6  # square pixels
    union = (area(boxes) + area(others) - shared).clamp(min=least)
    around = outer.prod(-1).clamp(min=least)
    return shared / union - (around - union) / around


def _intersections(boxes: Tensor, others: Tensor) -> Tensor:
    """(A, M) shared square pixels; by columns, because 100,000 anchors by 100 objects are large in four dimensions."""
    width = torch.minimum(boxes[:, 2, None], others[:, 2]) - torch.maximum(boxes[:, 0, None], others[:, 0])
    height = torch.minimum(boxes[:, 3, None], others[:, 3]) - torch.maximum(boxes[:, 1, None], others[:, 1])
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width, height of (..., 4) boxes."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
