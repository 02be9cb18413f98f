"""Mask heads: the shape of an object inside its box (arXiv 1703.06870, section 3).

Axes: R boxes of all images, C channels, S = 14 side of a pooled map, 2S of a mask, K classes, D detections,
M objects, H W rows and columns of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from convnext.config import DetectorHeadConfig
from convnext.tasks.convolution import convolution
from convnext.tasks.detection.assign import Sampled, places
from convnext.tasks.detection.roi import pool
from convnext.tasks.detection.types import Detections, Targets, require_finite

POOLED = 14
CONVOLUTIONS = 4


class MaskHead(nn.Module):
    """Four convolutions, twice the resolution, and one mask for each class, so that classes do not compete."""

    def __init__(self, config: DetectorHeadConfig):
        super().__init__()
        width = config.channels
        self.convolutions = nn.Sequential(*(convolution(width, width) for _ in range(CONVOLUTIONS)))
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.relu = nn.ReLU()
        self.mask = nn.Conv2d(width, config.classes, 1)
        for layer in (self.upsample, self.mask):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:  # (R, C, S, S) -> (R, K, 2S, 2S) logits
        return self.mask(self.relu(self.upsample(self.convolutions(x)))).float()


def mask_loss(logits: Tensor, labels: Tensor, ground_truth: Tensor) -> Tensor:
    """Mean binary cross-entropy of (R, K, 2S, 2S) logits, of each box's own class only, with (R, 2S, 2S) ground truth of 0, 1.

    Without any box it is 0, and still a function of the logits.
    """
    if not len(logits):
        return logits.sum() * 0
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(own, ground_truth)


def sampled_mask_loss(
    head: MaskHead,
    pyramid: Sequence[Tensor],
    strides: Sequence[int],
    sampled: Sequence[Sampled],
    targets: Sequence[Targets],
) -> Tensor:
    """The loss over every sampled box with an object, in the images whose masks are known."""
    boxes, labels, shown = [], [], []
    for each, target in zip(sampled, targets, strict=True):
        masks = target.single().masks
        count = len(each.objects) if masks is not None else 0
        boxes.append(each.boxes[:count])
        labels.append(each.labels[:count])
        if masks is not None and count:
            shown.append((masks, each.objects, boxes[-1]))
    ground_truth = mask_targets(shown)
    logits = head(pool(pyramid, boxes, strides, POOLED))
    return mask_loss(logits, torch.cat(labels), torch.cat(ground_truth) if ground_truth else logits[:0, 0])


def with_masks(
    found: Sequence[Detections], heads: Sequence[MaskHead], pyramid: Sequence[Tensor], strides: Sequence[int]
) -> list[Detections]:
    """Detections with the masks inside their boxes: the mean of the heads' probabilities."""
    pooled = pool(pyramid, [each.boxes for each in found], strides, POOLED)
    labels = torch.cat([each.labels for each in found])
    logits = [head(pooled) for head in heads]
    require_finite(*logits)
    masks = torch.stack([own_masks(each, labels) for each in logits]).mean(0)
    parts = masks.split([len(each) for each in found])
    return [Detections(each.boxes, each.scores, each.labels, part) for each, part in zip(found, parts, strict=True)]


def mask_targets(images: Sequence[tuple[Tensor, Tensor, Tensor]], size: int = 2 * POOLED) -> list[Tensor]:
    """Of each image, (R, size, size) of 0 and 1: what (M, H, W) masks show under each of (R, 4) boxes.

    `images`: of each its masks, the (R,) objects that say whose mask is meant, and the boxes.
    """
    learnt = [torch.zeros(len(masks), dtype=torch.bool, device=masks.device) for masks, _, _ in images]
    for flags, (_, objects, _) in zip(learnt, images, strict=True):
        flags[objects] = True
    found = []
    for used, flags, (masks, objects, boxes) in zip(places(learnt), learnt, images, strict=True):
        place = flags.cumsum(0)[objects] - 1  # only those that are learnt become float32
        rois = torch.cat([place[:, None].to(boxes.dtype), boxes], 1)
        inside = roi_align(masks[used, None].float(), rois, size, 1.0, sampling_ratio=0, aligned=True)
        found.append((inside[:, 0] >= 0.5).float())
    return found


def own_masks(logits: Tensor, labels: Tensor) -> Tensor:
    """(R, 2S, 2S) probabilities of each box's own class."""
    return logits[torch.arange(labels.shape[0], device=labels.device), labels].sigmoid()
