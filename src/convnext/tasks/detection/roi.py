"""RoIAlign over a pyramid: every box is read from the level that fits its size (arXiv 1703.06870; 1612.03144, eq. 1).

Axes: N images, R boxes of all images, C channels, S side of a pooled map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from convnext.kernels import cpu, dispatch
from convnext.tasks.detection.boxes import area

FINEST = 14  # a box of up to twice as many strides of the finest level a side (112 px of stride 4) is read from it


def level_of(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """(R,) level for each of (R, 4) boxes: one coarser for every doubling of its side from 28 strides on."""
    side = area(boxes).clamp(min=0).sqrt()
    level = torch.log2(side / (FINEST * strides[0]) + 1e-6).floor()
    return level.clamp(0, len(strides) - 1).long()


def pool(pyramid: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], size: int) -> Tensor:
    """(R, C, S, S) float32: bilinear samples under each image's boxes, averaged in S x S bins, images in order.

    A bin has as many samples as map positions; sample points are pixel centres ("aligned"). Levels without a stride of
    their own (the last of the pyramid, which only proposes) are not read.
    """
    numbers = [torch.full_like(each[:, :1], image) for image, each in enumerate(boxes)]
    flat = torch.cat([torch.cat(list(pair), 1) for pair in zip(numbers, boxes, strict=True)])  # (R, 5) image, box
    levels = level_of(flat[:, 1:], strides)
    order = levels.argsort(stable=True)
    counts = (
        (levels[:, None] == torch.arange(len(strides), device=levels.device)).sum(0).tolist()
    )  # one look at the device
    read = [
        (features.float(), here, 1 / stride)  # half precision has too few digits for coordinates
        for features, here, stride in zip(pyramid, order.split(counts), strides, strict=False)
    ]
    if all(dispatch.fits_pooling(maps, dispatch.allowed(maps.device)) for maps, _, _ in read):
        pooled = flat.new_empty(len(flat), read[0][0].shape[1], size, size, dtype=torch.float32)
        for maps, here, scale in read:
            cpu.roi_align(maps, flat.float(), here, scale, pooled)
        return pooled
    parts = [roi_align(maps, flat[here], size, scale, sampling_ratio=0, aligned=True) for maps, here, scale in read]
    return torch.cat(parts)[order.argsort()]
