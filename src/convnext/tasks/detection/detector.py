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

Maps = tuple[list[Tensor], list[Tensor], list[Tensor]]  # of each level: features, scores and deltas, as in _Seen
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
        return self._losses(images, self._seen(images), targets, generator)

    @torch.no_grad()
    def detect(
        self, images: Images | Sequence[Tensor], look: Callable[[Tensor], Maps] | None = None
    ) -> list[Detections]:
        """What is in each image, in its own pixels. Call `.eval()` before, as for any network.

        `look`: what answers in the place of the method of that name.
        """
        images = _batched(images)
        return self._detections(images, self._seen(images, look))

    @torch.no_grad()
    def judge(
        self,
        images: Images | Sequence[Tensor],
        targets: Sequence[Targets],
        generator: torch.Generator | None = None,
        look: Callable[[Tensor], Maps] | None = None,
    ) -> tuple[dict[str, Tensor], list[Detections]]:
        """`losses` and `detect` from one look at the images, for evaluation."""
        images = _batched(images)
        seen = self._seen(images, look)
        return self._losses(images, seen, targets, generator), self._detections(images, seen)

    def look(self, x: Tensor) -> Maps:  # (N, C, H, W) -> of each level (N, channels, H / stride, W / stride), ...
        """What backbone, pyramid and proposal network make of images: the same work for all of one shape."""
        pyramid: list[Tensor] = self.fpn(self.backbone(x))
        return pyramid, *self.rpn(pyramid)

    def _seen(self, images: Images, look: Callable[[Tensor], Maps] | None = None) -> _Seen:
        pyramid, scores, deltas = (look or self.look)(images.x)
        return _Seen(pyramid, [(level.shape[-2], level.shape[-1]) for level in pyramid], scores, deltas)

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
