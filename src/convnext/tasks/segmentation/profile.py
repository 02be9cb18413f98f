"""Parameters and operations of UperNet by the counting rule of arXiv 2201.03545's ADE20K table.

The published figures follow mmcv's counter (see `tasks.profile`) for 512 x 2048 or 640 x 2560 pixels. They
count the network that predicts, without the auxiliary head; the published parameters include that head.
"""

from functools import cache
from typing import Any

import torch

from convnext.config import ModelConfig, SegmentationHeadConfig, UperNetConfig
from convnext.models.profile import count_parameters
from convnext.recipes.architectures import architecture
from convnext.tasks.profile import Cost, counted
from convnext.tasks.segmentation.segmenter import Segmenter

PUBLISHED: dict[str, tuple[str, int]] = {  # name: (backbone, shorter side in pixels; the longer is four times that)
    "upernet_tiny": ("tiny", 512),
    "upernet_small": ("small", 512),
    "upernet_base": ("base", 512),
    "upernet_base_640": ("base", 640),
    "upernet_large": ("large", 640),
    "upernet_xlarge": ("xlarge", 640),
}


def rows() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'height', 'width'} of every published segmenter; 'macs' by mmcv's rule, in units of one."""
    found = []
    for name, (backbone, side) in PUBLISHED.items():
        cost = published_cost(backbone, side)
        found.append({"name": name, "params": cost.params, "macs": cost.published, "height": side, "width": 4 * side})
    return found


@cache
def published_cost(backbone: str, side: int) -> Cost:
    """The cost of UperNet on `backbone` for one image of side x (4 side), 150 classes, auxiliary head included."""
    return cost(architecture(backbone), UperNetConfig(), (side, 4 * side))


def cost(backbone: ModelConfig, head: SegmentationHeadConfig, size: tuple[int, int]) -> Cost:
    """Parameters (auxiliary head included) and operations (without it) for an image of `size`; only shapes are computed."""
    with torch.device("meta"):
        model = Segmenter(backbone, head)
    model.eval()
    with torch.no_grad(), counted(model) as total:
        model(torch.empty(1, backbone.in_channels, *size, device="meta"))
    return Cost(count_parameters(model), total["macs"], total["macs"] + total["extras"])
