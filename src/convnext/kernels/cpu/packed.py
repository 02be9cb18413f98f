"""The layers of a ConvNeXt, packed for the compiled kernels and run in one call: inference only.

Maps and sums are float32. The two matmuls of a block whose matrices are bfloat16 take bf16 values, twice as fast, on
processors that have such matmuls (`bf16_matmuls`); every other matrix is widened to float32.

Axes: N images, H W feature rows and columns, C channels, E = 4C expanded channels, I inputs, O outputs, K kernel, P patch.
Maps are (N, H, W, C) here. Results are the same to the bit for the same input and the same number of threads.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.errors import ConvNeXtError
from convnext.kernels.build import built
from convnext.kernels.cpu.library import describe, library_or_refuse, longs, pointer, threads

Shape = tuple[int, int, int, int]  # (N, H, W, C)
DTYPES = (torch.float32, torch.bfloat16)  # of maps that are given


def bf16_matmuls() -> bool:
    """Whether this processor multiplies bf16 values."""
    return bool(library_or_refuse().cn_bf16())


class PackedLayers:
    """Packed layers one after the other; what lies between two of them never leaves the memory of the kernels.

    Called with x (N, H, W, I), float32 or bfloat16 on the CPU, of any strides: returns the maps of the layers that `wanted`
    names by their places, which rise, in x's dtype; the last one's alone where it names none. Layers behind those are not
    run. `out`: where to write the maps, float32, contiguous, never the memory of x. Raises ConvNeXtError for another x,
    MemoryError where memory is short.
    """

    def __init__(self, layers: Sequence["PackedBlock | PackedPatch | PackedHead"]):
        self.layers = list(layers)
        self._structs = [layer.struct() for layer in self.layers]  # held: `_array` points at them
        places = [place for layer, made in zip(self.layers, self._structs, strict=True) for place in layer.places(made)]
        self._array = (ctypes.c_void_p * len(places))(*places)

    def __reduce__(self) -> Any:
        return PackedLayers, (self.layers,)  # a copy has tensors of its own, and structs that point at them

    def __call__(self, x: Tensor, wanted: Sequence[int] = (), out: Sequence[Tensor] = ()) -> list[Tensor]:
        x, first, dtype = x.detach(), self.layers[0], x.dtype
        if x.ndim != 4 or x.shape[-1] != first.inputs or dtype not in DTYPES or x.device.type != "cpu":
            raise ConvNeXtError(
                f"the compiled kernels got {tuple(x.shape)} {dtype} on {x.device}: give (N, H, W, {first.inputs}) "
                "float32 on the CPU."
            )
        x = x.float()
        x = x if isinstance(first, PackedPatch) else x.contiguous()
        n, height, width, inputs = shape = tuple(x.shape)
        wanted = wanted or (len(self.layers) - 1,)
        layers, made = self.layers[: wanted[-1] + 1], list[Tensor]()
        outs = (ctypes.c_void_p * len(layers))()
        for place, layer in enumerate(layers):
            shape = layer.shape(*shape)
            if place in wanted:
                made.append(out[len(made)] if out else x.new_empty(shape))
                outs[place] = made[-1].data_ptr()
        if x.numel():
            strides = (ctypes.c_long * 4)(*x.stride())
            maps = (pointer(x), strides, *longs(n, height, width, inputs), outs)
            if built().library.cn_network(self._array, *longs(len(layers)), *maps, threads()):  # type: ignore[union-attr]
                raise MemoryError(f"no memory is left for the maps of {n} images: use a smaller batch.")
        return [each.to(dtype) for each in made]


class PackedBlock:
    """x + project(grn(gelu(expand(normalise(spatial(x)))))) of one block, its weights folded and packed.

    spatial (C, K, K) with K odd, spatial_bias (C,), expand (E, C), expand_bias (E,), project (C, E), project_bias (C,).
    `normalise` is a LayerNorm over C without affine part: fold its weight and bias into `expand`, layer scale into
    `project`. `grn` (E,): the weights of V2's global response normalisation, whose bias belongs to `project`; None in V1.
    The error against the same block in float64 is about 1e-6 of the largest value.
    """

    def __init__(
        self,
        spatial: Tensor,
        spatial_bias: Tensor,
        expand: Tensor,
        expand_bias: Tensor,
        project: Tensor,
        project_bias: Tensor,
        eps: float = 1e-6,
        grn: Tensor | None = None,
    ):
        lanes = library_or_refuse().cn_lanes()
        self.inputs, self.kernel, self.hidden, self.eps = spatial.shape[0], spatial.shape[-1], expand.shape[0], eps
        self.bf16 = expand.dtype is torch.bfloat16 and grn is None and bf16_matmuls()
        pack = pack_pairs if self.bf16 else pack_matrix
        self.tensors: list[Tensor | None] = [
            pack_spatial(spatial, lanes),
            pad(spatial_bias, lanes),
            pack(expand),
            pad(expand_bias, lanes),
            pack(project),
            pad(project_bias, lanes),
            None,  # no drop path
        ]
        self.grn = None if grn is None else grn.detach().float().contiguous()

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        return n, height, width, channels

    def struct(self) -> "ctypes.Array[ctypes.c_char]":
        """As block.h's Block."""
        return describe(self.tensors, self.eps, self.inputs, self.hidden, self.kernel)

    def places(self, struct: "ctypes.Array[ctypes.c_char]") -> list[int]:
        """As network.h's Layer: addresses of a patch, a block, the weights of its GRN, a head, a bf16 block."""
        place = ctypes.addressof(struct)
        if self.bf16:
            return [0, 0, 0, 0, place]
        return [0, place, 0 if self.grn is None else self.grn.data_ptr(), 0, 0]


class PackedPatch:
    """A PxP convolution of stride P, after a norm of the input's pixels, or before one of the output's.

    weight (O, I, P, P), bias (O,); `normalise`: LayerNorm over I without affine part first (a downsampling layer);
    `after`: weight and bias (O,) of a LayerNorm over O that follows (the stem). A map of fewer than P rows or columns is
    repeated to P first, as the plain downsampling layer does.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        normalise: bool = False,
        eps: float = 1e-6,
        after: tuple[Tensor, Tensor] | None = None,
    ):
        lanes = library_or_refuse().cn_lanes()
        self.outputs, self.inputs, self.patch, _ = weight.shape
        self.normalise, self.eps = normalise, eps
        order = (0, 2, 3, 1) if normalise else (0, 2, 1, 3)  # patch.h says why
        rows = weight.permute(order).reshape(self.outputs, -1)  # (O, P * P * I)
        self.tensors: list[Tensor | None] = [pack_matrix(rows), pad(bias, lanes)]
        self.tensors += [pad(after[0], lanes), pad(after[1], lanes)] if after else [None, None]

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        height, width = (max(side // self.patch, min(side, 1)) for side in (height, width))
        return n, height, width, self.outputs

    def struct(self) -> "ctypes.Array[ctypes.c_char]":
        """As patch.h's Patch."""
        return describe(self.tensors, self.eps, self.inputs, self.outputs, self.patch, self.normalise)

    def places(self, struct: "ctypes.Array[ctypes.c_char]") -> list[int]:
        """As network.h's Layer."""
        return [ctypes.addressof(struct), 0, 0, 0, 0]


class PackedHead:
    """linear(normalise(mean over space)): the end of a classifier, (N, H, W, C) -> (N, 1, 1, K classes).

    weight (K, C), bias (K,); `normalise` is a LayerNorm over C without affine part: fold its own into these two.
    """

    def __init__(self, weight: Tensor, bias: Tensor, eps: float = 1e-6):
        self.outputs, self.inputs = weight.shape
        self.eps = eps
        self.tensors: list[Tensor | None] = [pack_matrix(weight), pad(bias, library_or_refuse().cn_lanes())]

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        return n, 1, 1, self.outputs

    def struct(self) -> "ctypes.Array[ctypes.c_char]":
        """As head.h's Head."""
        return describe(self.tensors, self.eps, self.inputs, self.outputs)

    def places(self, struct: "ctypes.Array[ctypes.c_char]") -> list[int]:
        """As network.h's Layer."""
        return [0, 0, 0, ctypes.addressof(struct), 0]


def pad(vector: Tensor, lanes: int) -> Tensor:
    """(n,) -> float32 (n rounded up to whole vectors,), zeros behind."""
    return F.pad(vector.detach().float(), (0, -len(vector) % lanes)).contiguous()


def pack_spatial(weight: Tensor, lanes: int) -> Tensor:
    """(C, K, K) -> (C / lanes, K, K, lanes): the order in which the kernel reads."""
    channels, kernel, _ = weight.shape
    padded = F.pad(weight.detach().float(), (0, 0, 0, 0, 0, -channels % lanes))
    return padded.view(-1, lanes, kernel, kernel).permute(0, 2, 3, 1).contiguous()


def pack_matrix(weight: Tensor) -> Tensor:
    """A linear layer's (outputs, inputs) in the panels that the matmuls read."""
    library = library_or_refuse()
    weight = weight.detach().float().contiguous()
    outputs, inputs = weight.shape
    lanes = library.cn_lanes()
    packed = torch.zeros((outputs + lanes) // lanes * lanes * inputs)
    library.cn_pack(pointer(weight), *longs(1, inputs, inputs, outputs), pointer(packed))
    return packed


def pack_pairs(weight: Tensor) -> Tensor:
    """The same in bfloat16: panels of [inputs / 2][outputs][2], zeros behind."""
    library = library_or_refuse()
    lanes, panel = library.cn_lanes(), library.cn_panel()
    outputs, inputs = weight.shape
    rows = F.pad(weight.detach().bfloat16(), (0, inputs % 2, 0, -outputs % lanes))
    panels = rows.split(panel)  # (columns of a panel, inputs)
    return torch.cat([each.view(len(each), -1, 2).transpose(0, 1).flatten() for each in panels])
