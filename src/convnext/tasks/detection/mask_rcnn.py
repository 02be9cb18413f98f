"""Mask R-CNN (He et al. 2017, arXiv 1703.06870): one box head and one mask head on the proposals.

Axes: N images, K classes. A pyramid is (N, C, H, W) for each level, proposals are (P, 4) for each image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnext.config import DetectorHeadConfig
from convnext.tasks.detection import box_head
from convnext.tasks.detection.assign import sample_proposals
from convnext.tasks.detection.box_head import BoxHead, box_losses, select
from convnext.tasks.detection.found import Size
from convnext.tasks.detection.mask_head import MaskHead, sampled_mask_loss, with_masks
from convnext.tasks.detection.roi import pool
from convnext.tasks.detection.types import Detections, Targets


class MaskRCNNHeads(nn.Module):
    """What is in each proposal, its box and its shape; `mask` is None in a detector of boxes."""

    def __init__(self, config: DetectorHeadConfig, strides: Sequence[int]):
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        self.stage = config.stages[0]
        self.box = BoxHead(config)
        self.mask = MaskHead(config) if config.masks else None

    def losses(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Targets],
        sizes: Sequence[Size],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """'score', 'box' and, with a mask head, 'mask'."""
        sampled = sample_proposals(proposals, targets, self.config, self.stage, generator)
        pooled = pool(pyramid, [each.boxes for each in sampled], self.strides, box_head.POOLED)
        scores, deltas = self.box(pooled)
        losses = box_losses(scores, deltas, sampled, self.config, self.stage)
        if self.mask is not None:
            losses["mask"] = sampled_mask_loss(self.mask, pyramid, self.strides, sampled, targets)
        return losses

    def detect(self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Detections]:
        """What is shown of each image."""
        counts = [len(boxes) for boxes in proposals]
        scores, deltas = self.box(pool(pyramid, proposals, self.strides, box_head.POOLED))
        parts = zip(proposals, scores.split(counts), deltas.split(counts), sizes, strict=True)
        found = [select(*part, self.config, self.stage) for part in parts]
        return found if self.mask is None else with_masks(found, [self.mask], pyramid, self.strides)
