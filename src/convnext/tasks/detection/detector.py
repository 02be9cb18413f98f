"""The whole detector: backbone, pyramid, proposals, heads; losses from annotated images, detections from any.

Axes: N images, C channels, H W rows and columns of the padded batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convnext.config import DetectorHeadConfig, ModelConfig
from convnext.tasks.backbone import Backbone
from convnext.tasks.detection.box_head import BoxHead
from convnext.tasks.detection.cascade import CascadeHeads
from convnext.tasks.detection.fpn import FPN
from convnext.tasks.detection.mask_head import MaskHead
from convnext.tasks.detection.mask_rcnn import MaskRCNNHeads
from convnext.tasks.detection.rpn import RPN
from convnext.tasks.detection.types import Detections, Images, Targets, require_finite

HEADS: dict[str, Callable[..., nn.Module]] = {"mask_rcnn": MaskRCNNHeads, "cascade": CascadeHeads}  # kind: its heads


class _Seen(NamedTuple):
    """What backbone, pyramid and proposal network make of images."""

    pyramid: list[Tensor]  # of each level, (N, channels, H / stride, W / stride)
    shapes: list[tuple[int, int]]  # its (rows, columns)
    scores: list[Tensor]  # of each level, (N, anchors)
    deltas: list[Tensor]  # (N, anchors, 4)


class Detector(nn.Module):
    """Mask R-CNN or Cascade Mask R-CNN on any backbone with stages.

    `model(images, targets)` are losses and `model(images)` detections, so that wrappers such as DDP see both.
    Images are normalised, of any sizes; `Images.of` pads them.
    """

    def __init__(self, backbone: ModelConfig, config: DetectorHeadConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(backbone, fixed_batch_norm=config.fixed_batch_norm)
        self.fpn = FPN(self.backbone.widths, config.channels)
        strides = self.backbone.strides
        self.rpn = RPN(config, (*strides, 2 * strides[-1]))
        self.heads: Any = HEADS[config.kind](config, strides)

    def forward(
        self, images: Images | Sequence[Tensor], targets: Sequence[Targets] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        return self.detect(images) if targets is None else self.losses(images, targets)

    def compiled_parts(self) -> list[nn.Module]:
        """What `--compile` compiles: what works on whole maps and whole lists of boxes.

        Which boxes there are depends on what was found: matching, sampling and suppression between these parts stay as
        they are, or every image would be another graph.
        """
        heads = [part for part in self.heads.modules() if isinstance(part, BoxHead | MaskHead)]
        return [self.backbone, self.fpn, self.rpn, *heads]

    def losses(
        self,
        images: Images | Sequence[Tensor],
        targets: Sequence[Targets],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Every part of the loss by name, to be summed: 'rpn_score', 'rpn_box', and those of the heads.

        `generator` draws the samples of anchors and proposals, on the images' device; without one, torch's own does.
        """
        images = _batched(images)
        return self._losses(images, self._look(images), targets, generator)

    @torch.no_grad()
    def detect(self, images: Images | Sequence[Tensor]) -> list[Detections]:
        """What is in each image, in its own pixels. Call `.eval()` before, as for any network."""
        images = _batched(images)
        return self._detections(images, self._look(images))

    @torch.no_grad()
    def judge(
        self,
        images: Images | Sequence[Tensor],
        targets: Sequence[Targets],
        generator: torch.Generator | None = None,
    ) -> tuple[dict[str, Tensor], list[Detections]]:
        """`losses` and `detect` from one look at the images, for evaluation."""
        images = _batched(images)
        seen = self._look(images)
        return self._losses(images, seen, targets, generator), self._detections(images, seen)

    def pyramid(self, images: Images) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """Of each level, (N, channels, H / stride, W / stride) and its (rows, columns)."""
        levels = self.fpn(self.backbone(images.x))
        return levels, [(level.shape[-2], level.shape[-1]) for level in levels]

    def _look(self, images: Images) -> _Seen:
        pyramid, shapes = self.pyramid(images)
        return _Seen(pyramid, shapes, *self.rpn(pyramid))

    def _losses(
        self, images: Images, seen: _Seen, targets: Sequence[Targets], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        losses = self.rpn.losses(seen.scores, seen.deltas, seen.shapes, images.sizes, targets, generator)
        proposals = self.rpn.proposals(seen.scores, seen.deltas, seen.shapes, images, training=True)
        return losses | self.heads.losses(seen.pyramid, proposals, targets, images.sizes, generator)

    def _detections(self, images: Images, seen: _Seen) -> list[Detections]:
        require_finite(*seen.scores, *seen.deltas)
        proposals = self.rpn.proposals(seen.scores, seen.deltas, seen.shapes, images, training=False)
        return self.heads.detect(seen.pyramid, proposals, images.sizes)


def _batched(images: Images | Sequence[Tensor]) -> Images:
    return images if isinstance(images, Images) else Images.of(images)
