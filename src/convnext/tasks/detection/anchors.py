"""Anchors: the boxes that region proposals start from (arXiv 1506.01497, section 3.1.1), one scale for each level.

Axes: H W rows and columns of a level, A anchors of a position. Anchors lie as (H * W * A, 4), as mmdetection orders them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from convnext.kernels.transfer import listed


class Anchors:
    """For every position of every level, one box for each ratio, centred on the position's top left pixel corner."""

    def __init__(self, strides: Sequence[int], *, scale: float, ratios: Sequence[float]):
        self.strides, self.ratios = tuple(strides), tuple(ratios)
        self.sides = [  # of each level, the (width, height) of its anchors: all of one area
            [(scale * stride / ratio**0.5, scale * stride * ratio**0.5) for ratio in ratios] for stride in strides
        ]

    def grid(self, shapes: Sequence[tuple[int, int]], device: torch.device | str) -> list[Tensor]:
        """The (H * W * A, 4) anchors of each level, given the levels' (H, W)."""
        return [self._level(level, shape, device) for level, shape in enumerate(shapes)]

    def inside(
        self, shapes: Sequence[tuple[int, int]], size: tuple[int, int], device: torch.device | str
    ) -> list[Tensor]:
        """Of each level, (H * W * A,) whether the position is one of an image of `size`, not of its padding."""
        found = []
        for (rows, columns), stride in zip(shapes, self.strides, strict=True):
            down = torch.arange(rows, device=device) * stride < size[0]
            right = torch.arange(columns, device=device) * stride < size[1]
            places = down[:, None] & right
            found.append(places.flatten().repeat_interleave(len(self.ratios)))
        return found

    def _level(self, level: int, shape: tuple[int, int], device: torch.device | str) -> Tensor:
        stride = self.strides[level]
        y = torch.arange(shape[0], device=device, dtype=torch.float32) * stride
        x = torch.arange(shape[1], device=device, dtype=torch.float32) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        corners = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)  # (H * W, 1, 4)
        halves = [(-width / 2, -height / 2, width / 2, height / 2) for width, height in self.sides[level]]
        return (corners + listed(halves, corners)).reshape(-1, 4)
