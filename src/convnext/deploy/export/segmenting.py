"""A segmenter as one graph: images at the size of evaluation in, the logits of every pixel out.

Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from convnext.config import SegmentationRecipe
from convnext.data.bands import kind_of_pixels
from convnext.data.evaluation import white_of
from convnext.deploy import graph
from convnext.deploy.export.pixels import Normalised
from convnext.deploy.forms.table import LOGITS
from convnext.models.fused import unfuse

MULTIPLE = 32  # of the sides of an image that is seen at once
_MOST = 512  # times that
_TRACED = (3, 5)  # times that, of what is traced


class Segmenting(nn.Module):
    """`network` behind the normalisation; what lies beyond the `size` of an image is 0, the mean of its channel."""

    def __init__(self, network: nn.Module, recipe: SegmentationRecipe):
        super().__init__()
        self.normalised, self.network = Normalised(recipe.input, white_of(kind_of_pixels(recipe.input))), network

    def forward(self, images: Tensor, size: Tensor) -> dict[str, Tensor]:  # (N, H, W, C), (2,) -> (N, K, H, W)
        x = self.normalised(images.permute(0, 3, 1, 2).float())
        inside = (torch.arange(x.shape[2]) < size[0])[:, None] & (torch.arange(x.shape[3]) < size[1])
        return {LOGITS: self.network(torch.where(inside, x, torch.zeros_like(x))).float()}


class Pooled(nn.Module):
    """Adaptive average pooling to a square of `side`, for a map of any size: two products, as exporters understand them."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, side, side)
        return self._weights(torch.arange(x.shape[2])) @ x @ self._weights(torch.arange(x.shape[3])).t()

    def _weights(self, along: Tensor) -> Tensor:
        """(side, L): the mean over the pixels that a cell touches."""
        cells, length = torch.arange(self.side)[:, None], along[-1:] + 1
        first, behind = cells * length // self.side, ((cells + 1) * length + self.side - 1) // self.side
        inside = ((along >= first) & (along < behind)).float()
        return inside / inside.sum(1, keepdim=True)


def traced(model: nn.Module, recipe: SegmentationRecipe, *, half: bool) -> ExportedProgram:
    """The graph of a segmenter: of windows, where it slides them, else of images whose sides are multiples of 32."""
    network = copy.deepcopy(model).to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    unfuse(network)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.AdaptiveAvgPool2d):
                setattr(parent, name, Pooled(_side(module)))
    window = recipe.head.window_px
    free: dict[int, Any] = {0: graph.BATCH}
    if not window:
        free |= {axis: MULTIPLE * Dim(f"tiles{axis}", min=1, max=_MOST) for axis in (1, 2)}
    height, width = (window, window) if window else (MULTIPLE * _TRACED[0], MULTIPLE * _TRACED[1])
    kind = torch.float32 if recipe.input.wide else torch.uint8
    images = torch.zeros(2, height, width, len(recipe.input.mean), dtype=kind)
    return graph.trace(Segmenting(network, recipe), images, free=free, size=torch.tensor([height, width]), half=half)


def _side(pool: nn.AdaptiveAvgPool2d) -> int:
    """Of the square that it gives."""
    side: Any = pool.output_size
    return int(side if isinstance(side, int) else side[0])
