"""The layers of 8-bit matmuls, packed for the compiled kernels: inference only. Axes as in `kernels.int8`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.kernels import structs
from convnext.kernels.cpu.library import library_or_refuse, longs, pointer
from convnext.kernels.cpu.packed import Shape, pack_spatial, pad
from convnext.kernels.int8 import Int8Block, Int8Patch
from convnext.kernels.structs import Kind, addresses

FORMS = ("widened to 16 bits", "AVX-VNNI", "AVX512-VNNI", "AMX")  # by the library's number
_TUPLE = 4  # TUPLE of int8.h


def int8_form() -> str:
    """How this processor multiplies bytes; the answers are the same."""
    return FORMS[library_or_refuse().cn_int8()]


class PackedInt8Block:
    """A block packed from its int8 form."""

    kind = Kind.BLOCK_INT8
    exact = False

    def __init__(self, weights: Int8Block):
        lanes = library_or_refuse().cn_lanes()
        self.hidden, self.inputs = weights.expand.shape
        self.kernel, self.eps = weights.spatial.shape[-1], weights.eps
        self.normed: list[float] = weights.normed.tolist()
        self.mixed: list[float] = [0.0] * 4 if weights.mixed is None else weights.mixed.tolist()
        self.tensors: dict[str, Tensor] = {
            "spatial": pack_spatial(weights.spatial, lanes),
            "spatial_bias": pad(weights.spatial_bias, lanes),
            "expand": pack_tuples(weights.expand),
            "expand_scale": pad(weights.expand_scale, lanes),
            "expand_bias": pad(weights.expand_bias, lanes),
            "gelu": weights.gelu.contiguous(),
            "project": pack_tuples(weights.project),
            "project_scale": pad(weights.project_scale, lanes),
            "project_bias": pad(weights.project_bias, lanes),
        }
        if weights.grn is not None:
            self.tensors["grn"] = weights.grn.contiguous()

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        return n, height, width, channels

    def struct(self) -> structs.Int8Block:
        """What the kernel of `kind` reads."""
        sizes = {"channels": self.inputs, "hidden": self.hidden, "kernel": self.kernel}
        floats = dict(zip(("zero", "smallest", "again_gain", "again_offset"), self.mixed, strict=True))
        gain, offset = self.normed
        return structs.Int8Block(
            **addresses(self.tensors), **sizes, epsilon=self.eps, gain=gain, offset=offset, **floats
        )


class PackedInt8Patch:
    """A downsampling layer packed from its int8 form."""

    kind = Kind.PATCH_INT8
    exact = False

    def __init__(self, weights: Int8Patch):
        lanes = library_or_refuse().cn_lanes()
        self.outputs, self.patch, _, self.inputs = weights.weight.shape
        self.eps, self.normed = weights.eps, weights.normed.tolist()
        self.tensors = {
            "weight": pack_tuples(weights.weight.flatten(1)),
            "scale": pad(weights.scale, lanes),
            "bias": pad(weights.bias, lanes),
        }

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        height, width = (max(side // self.patch, min(side, 1)) for side in (height, width))
        return n, height, width, self.outputs

    def struct(self) -> structs.Int8Patch:
        """What the kernel of `kind` reads."""
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "size": self.patch}
        gain, offset = self.normed
        return structs.Int8Patch(**addresses(self.tensors), **sizes, epsilon=self.eps, gain=gain, offset=offset)


def pack_tuples(weight: Tensor) -> Tensor:
    """(outputs, inputs) int8 in panels of [inputs / 4][outputs][4], zeros behind, of inputs too."""
    library = library_or_refuse()
    outputs, inputs = weight.shape
    rows = F.pad(weight, (0, -inputs % library.cn_int8_rows(), 0, -outputs % library.cn_lanes()))
    panels = rows.split(library.cn_panel())
    return torch.cat([each.reshape(len(each), -1, _TUPLE).transpose(0, 1).flatten() for each in panels])


def multiplied(held: Tensor, weight: Tensor) -> Tensor:
    """(rows, I) uint8 times (O, I) int8 -> (rows, O) int32 by the kernels' matmul."""
    library = library_or_refuse()
    (rows, inputs), outputs = held.shape, len(weight)
    block = library.cn_int8_block()
    tile = (
        F.pad(held, (0, -inputs % block)).view(rows, -1, block).transpose(0, 1)
    )  # and rows that may be read behind it
    tile = torch.cat([tile.flatten(), tile.new_zeros(32 * block)])
    packed, found = pack_tuples(weight), torch.empty(rows, outputs, dtype=torch.int32)
    library.cn_int8_matmul(pointer(tile), pointer(packed), *longs(rows, inputs, outputs), pointer(found))
    return found
