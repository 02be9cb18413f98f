"""RoIAlign on the compiled kernels: forward alone, many times as fast as torchvision's on a CPU.

Axes: N images, R boxes of all images, C channels, H W rows and columns of a map, S side of a pooled map.
"""

import ctypes

from torch import Tensor

from convnext.kernels.cpu.library import library_or_refuse, longs, pointer, threads


def roi_align(maps: Tensor, boxes: Tensor, places: Tensor, scale: float, pooled: Tensor) -> None:
    """Fill pooled[places], of (R, C, S, S) float32, from (N, C, H, W) float32 maps and boxes[places], of (R, 5) float32.

    A box is its image, left, top, right and bottom in pixels; `scale`: positions of the maps a pixel. The values are those of
    torchvision with `sampling_ratio=0, aligned=True`: bilinear samples, one for each position that a bin is long.
    Raises ConvNeXtError where there are no compiled kernels.
    """
    library = library_or_refuse()
    rows, boxes = maps.detach().permute(0, 2, 3, 1).contiguous(), boxes.contiguous()
    if places.numel() and maps.numel():
        given = (pointer(rows), *longs(*rows.shape), pointer(boxes), pointer(places), *longs(len(places)))
        library.cn_roi_align(
            *given, ctypes.c_float(scale), *longs(pooled.shape[-1]), pointer(pooled), ctypes.c_int(threads())
        )
