"""Cascade Mask R-CNN (Cai and Vasconcelos 2019, arXiv 1906.09756): stages that each take the boxes of the one before.

Later stages are trained for a higher overlap, and are given boxes that have it. Boxes are class-specific, as in the
configurations released with arXiv 2201.03545. Axes: N images, R proposals of all images, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnext.config import DetectorHeadConfig, StageConfig
from convnext.tasks.detection import box_head
from convnext.tasks.detection.assign import Sampled, sample_proposals
from convnext.tasks.detection.box_head import BoxHead, box_losses, select
from convnext.tasks.detection.boxes import clip, decode
from convnext.tasks.detection.found import Size
from convnext.tasks.detection.mask_head import MaskHead, sampled_mask_loss, with_masks
from convnext.tasks.detection.roi import pool
from convnext.tasks.detection.types import Detections, Targets


class CascadeHeads(nn.Module):
    """A box head and a mask head for each stage; scores and masks are averaged over the stages when it is used."""

    def __init__(self, config: DetectorHeadConfig, strides: Sequence[int]):
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        self.box = nn.ModuleList(BoxHead(config) for _ in config.stages)
        self.mask = nn.ModuleList(MaskHead(config) for _ in config.stages) if config.masks else None

    def losses(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Targets],
        sizes: Sequence[Size],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """'stage0_score', 'stage0_box', 'stage0_mask', 'stage1_score', ..., each times its stage's weight."""
        losses: dict[str, Tensor] = {}
        for i, stage in enumerate(self.config.stages):
            sampled = sample_proposals(proposals, targets, self.config, stage, generator)
            pooled = pool(pyramid, [each.boxes for each in sampled], self.strides, box_head.POOLED)
            scores, deltas = self.box[i](pooled)
            found = box_losses(scores, deltas, sampled, self.config, stage)
            if self.mask is not None:
                head: MaskHead = self.mask[i]  # type: ignore[assignment]
                found["mask"] = stage.weight * sampled_mask_loss(head, pyramid, self.strides, sampled, targets)
            losses |= {f"stage{i}_{name}": loss for name, loss in found.items()}
            proposals = _next_proposals(scores, deltas, sampled, sizes, stage)
        return losses

    def detect(self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Detections]:
        """What is shown of each image: the last stage's boxes by the mean of all stages' logits."""
        counts = [len(boxes) for boxes in proposals]
        total: Tensor | None = None
        for stage, head in zip(self.config.stages, self.box, strict=True):
            scores, deltas = head(pool(pyramid, proposals, self.strides, box_head.POOLED))
            total = scores if total is None else total + scores
            parts = list(zip(proposals, scores.split(counts), deltas.split(counts), sizes, strict=True))
            if stage is not self.config.stages[-1]:
                proposals = [
                    _refined(boxes, logits[:, :-1].argmax(1), of_class, size, stage)
                    for boxes, logits, of_class, size in parts
                ]
        assert total is not None
        means = (total / len(self.config.stages)).split(counts)
        found = [
            select(boxes, mean, of_class, size, self.config, self.config.stages[-1])
            for (boxes, _, of_class, size), mean in zip(parts, means, strict=True)
        ]
        return found if self.mask is None else with_masks(found, list(self.mask), pyramid, self.strides)  # type: ignore[arg-type]


@torch.no_grad()
def _next_proposals(
    scores: Tensor, deltas: Tensor, sampled: Sequence[Sampled], sizes: Sequence[Size], stage: StageConfig
) -> list[Tensor]:
    """For each image, the sampled boxes as the stage moved them; annotated boxes are left out, the next adds them."""
    counts, classes = [len(each) for each in sampled], deltas.shape[1]
    proposals = []
    for each, logits, of_class, size in zip(sampled, scores.split(counts), deltas.split(counts), sizes, strict=True):
        object_here = (each.labels >= 0) & (each.labels < classes)
        labels = torch.where(object_here, each.labels, logits[:, :-1].argmax(1))
        proposals.append(_refined(each.boxes, labels, of_class, size, stage)[~each.given])
    return proposals


def _refined(boxes: Tensor, labels: Tensor, deltas: Tensor, size: Size, stage: StageConfig) -> Tensor:
    """(R, 4) boxes moved by the deltas of their class, cut at the image's borders."""
    chosen = deltas[torch.arange(len(labels), device=labels.device), labels]
    return clip(decode(boxes, chosen, stage.stds), size)
