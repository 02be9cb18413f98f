"""3x3 convolutions of stride 1 on the compiled kernels, by Winograd's F(4x4, 3x3) (arXiv 1509.09308): inference only.

Axes: N images, I inputs, O outputs, H W rows and columns of a map.
"""

import ctypes
from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels import structs
from convnext.kernels.cpu.library import library_or_refuse, longs, pointer, threads
from convnext.kernels.cpu.packed import pack_matrix, pad
from convnext.kernels.structs import addresses

TILE = 4  # outputs a side, of which winograd.h makes one tile
_POINTS = [Fraction(0), *(Fraction(each, 4) for each in (3, -3, 6, -6))]  # and infinity: winograd.h's P and Q


class PackedConvolution:
    """A 3x3 convolution of stride 1 with zeros around the map, its bias, and ReLU where `relu` says so.

    weight (O, I, 3, 3), bias (O,) or None. Called with x (N, I, H, W) float32 on the CPU, best in channels-last memory, in
    which the answer (N, O, H, W) is. Its values do not depend on threads or the other images of a batch. The error against
    float64 is a few millionths of the largest value, twice that of a sum of nine products. The packed weight is four times
    as large as the plain one. Raises ConvNeXtError where there are no compiled kernels.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, relu: bool):
        self.outputs, self.inputs = weight.shape[:2]
        self.relu = relu
        bias = weight.new_zeros(self.outputs) if bias is None else bias
        self.tensors = {"weight": _pack(weight), "bias": pad(bias, library_or_refuse().cn_lanes())}

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.inputs or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ConvNeXtError(
                f"the compiled kernels got {tuple(x.shape)} {x.dtype} on {x.device}: give (N, {self.inputs}, H, W) float32 "
                "on the CPU."
            )
        rows = x.detach().permute(0, 2, 3, 1).contiguous()
        n, height, width, _ = rows.shape
        out = rows.new_empty(n, height, width, self.outputs)
        if out.numel():
            sizes = {"inputs": self.inputs, "outputs": self.outputs, "relu": self.relu}
            struct = structs.Convolution(**addresses(self.tensors), **sizes)
            given = (pointer(rows), *longs(n, height, width), pointer(out))
            library_or_refuse().cn_convolution(ctypes.byref(struct), *given, ctypes.c_int(threads()))
        return out.permute(0, 3, 1, 2)


def fewer_multiplications(height: int, width: int) -> bool:
    """Whether the tiles of a map have fewer than the plain sum of nine products: 36 a tile against 9 a position."""
    return -(-height // TILE) * -(-width // TILE) * TILE < height * width


def _pack(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> G w G', computed in float64, in the order in which winograd.h reads."""
    library = library_or_refuse()
    lanes, panel = library.cn_lanes(), library.cn_panel()
    outputs, inputs = weight.shape[:2]
    full, last = outputs // panel, -(-(outputs % panel) // lanes) * lanes
    g = torch.tensor(_transform(), dtype=torch.float64)  # (6, 3)
    columns = torch.einsum("oiyx,vx->voiy", weight.detach().double(), g)  # (6, O, I, 3)
    packed = []
    for factors in g:
        matrices = (columns @ factors).float()  # (6, O, I)
        rows = torch.stack([pack_matrix(each)[: (full * panel + last) * inputs] for each in matrices])
        whole, rest = rows.split([full * panel * inputs, last * inputs], 1)
        packed += [whole.view(len(g), full, panel * inputs).transpose(0, 1).flatten(), rest.flatten()]
    return torch.cat(packed)


def _transform() -> list[list[float]]:
    """G, (6, 3): a polynomial of second degree at each point, over the product of the point's distances to the others."""
    rows = []
    for point in _POINTS:
        over = prod(point - other for other in _POINTS if other != point)
        rows.append([float(point**power / over) for power in range(3)])
    return [*rows, [0.0, 0.0, 1.0]]
