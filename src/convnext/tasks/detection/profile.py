"""Parameters and operations of a detector, by the counting rule of arXiv 2201.03545's COCO tables (section 4, 1280 x 800).

The published figures follow mmcv's counter: multiply-accumulates of convolutions (also transposed), linears and the
products of attention, and for every element one for a convolution's bias, one for a ReLU, one read by a pooling layer,
two for a batch norm. A linear's bias, GELU, LayerNorm and everything that is no module are free. Without those extras
the count is `macs`. 1000 proposals go through every box head and 100 boxes through every mask head.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from convnext.config import DetectorHeadConfig, ModelConfig
from convnext.models.profile import count_parameters
from convnext.tasks.detection import box_head, mask_head
from convnext.tasks.detection.build import PUBLISHED, detector_values
from convnext.tasks.detection.detector import Detector
from convnext.tasks.profile import Cost, counted

PROPOSALS, SHOWN = 1000, 100
COCO_SIZE = (800, 1280)  # (height, width)


def rows() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'height', 'width'} of every published detector; 'macs' by mmcv's rule, in units of one."""
    height, width = COCO_SIZE
    costs = {name: cost(*detector_values(name)) for name in PUBLISHED}
    return [
        {"name": name, "params": each.params, "macs": each.published, "height": height, "width": width}
        for name, each in costs.items()
    ]


@cache
def cost(backbone: ModelConfig, config: DetectorHeadConfig, size: tuple[int, int] = COCO_SIZE) -> Cost:
    """Parameters and operations of a detector for one image of `size`; only shapes are computed."""
    with torch.device("meta"):
        model = Detector(backbone, config)
        images = torch.empty(1, backbone.in_channels, *size)
        proposals = torch.empty(PROPOSALS, config.channels, box_head.POOLED, box_head.POOLED)
        shown = torch.empty(SHOWN, config.channels, mask_head.POOLED, mask_head.POOLED)
    model.eval()
    with counted(model) as count:
        model.rpn(model.fpn(model.backbone(images)))
        for head in _each(model.heads.box):
            head(proposals)
        for head in _each(model.heads.mask):
            head(shown)
    return Cost(count_parameters(model), count["macs"], count["macs"] + count["extras"])


def _each(heads: nn.Module | None) -> Sequence[nn.Module]:
    if heads is None:
        return []
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]
