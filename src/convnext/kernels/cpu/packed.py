"""The layers of a ConvNeXt, packed for the compiled kernels and run in one call: inference only.

Maps and sums are float32. The matmuls of a block or a downsampling layer whose matrices are bfloat16 take bf16 values on
processors where that is faster (`bf16_matmuls`); every other matrix is widened to float32.

Axes: N images, H W feature rows and columns, C channels, E = 4C expanded channels, I inputs, O outputs, K kernel, P patch.
Maps are (N, H, W, C) here. Results are the same to the bit for the same input and the same number of threads.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.errors import ConvNeXtError
from convnext.kernels import structs
from convnext.kernels.block import BlockWeights
from convnext.kernels.build import compiled
from convnext.kernels.cpu.library import bf16_matmuls, library_or_refuse, longs, pointer, threads
from convnext.kernels.structs import Kind, addresses

Shape = tuple[int, int, int, int]  # (N, H, W, C)
CHANNELS_LAST = torch.channels_last
DTYPES = (torch.float32, torch.bfloat16)  # of maps that are given


class Packed(Protocol):
    """A layer of a network, packed; it holds the tensors that its structure points at."""

    inputs: int  # channels
    kind: Kind
    exact: bool  # whether nothing was rounded: `matrix(name)` then makes the plain one again of the one in `tensors`

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""

    def struct(self) -> ctypes.Structure:
        """What the kernel of `kind` reads."""


class PackedLayers:
    """Packed layers one after the other; what lies between two of them never leaves the memory of the kernels.

    Called with x (N, H, W, I), float32 or bfloat16 on the CPU, of any strides: returns the maps of the layers that `wanted`
    names by their places, which rise, in x's dtype; the last one's alone where it names none. Layers behind those are not
    run. `out`: where to write the maps, float32, contiguous, never the memory of x. Raises ConvNeXtError for another x,
    MemoryError where memory is short.
    """

    def __init__(self, layers: Sequence[Packed]):
        self.layers = list(layers)
        self._structs = [layer.struct() for layer in self.layers]  # held: `_array` points at them
        pairs = zip(self.layers, self._structs, strict=True)
        self._array = (structs.Layer * len(layers))(
            *(structs.Layer(layer.kind, ctypes.addressof(made)) for layer, made in pairs)
        )

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
        x = x if isinstance(first, PackedPatch | PackedStem) else x.contiguous()
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
            if compiled().library.cn_network(self._array, *longs(len(layers)), *maps, threads()):  # type: ignore[union-attr]
                raise MemoryError(f"no memory is left for the maps of {n} images: use a smaller batch.")
        return [each.to(dtype) for each in made]


class PackedBlock:
    """A block packed from weights that are `folded`, of spatial's layout (C, 1, K, K).

    `expand` in bfloat16 asks for bf16 matmuls, where they are faster. The error against the same block in
    float64 is about 1e-6 of the largest value.
    """

    def __init__(self, weights: BlockWeights):
        assert weights.norm is None and weights.norm_bias is None and weights.gamma is None and weights.grn_bias is None
        lanes, expand, grn = library_or_refuse().cn_lanes(), weights.expand, weights.grn
        self.hidden, self.inputs = expand.shape
        self.kernel, self.eps = weights.spatial.shape[-1], weights.eps
        bf16 = expand.dtype is torch.bfloat16 and bf16_matmuls()
        self.kind = Kind.BLOCK_BF16 if bf16 else Kind.BLOCK
        self.exact = not bf16
        pack = pack_pairs if bf16 else pack_matrix
        bias = weights.spatial.new_zeros(self.inputs) if weights.spatial_bias is None else weights.spatial_bias
        self.tensors: dict[str, Tensor] = {
            "spatial": pack_spatial(weights.spatial, lanes),
            "spatial_bias": pad(bias, lanes),
            "expand": pack(expand),
            "expand_bias": pad(weights.expand_bias, lanes),
            "project": pack(weights.project),
            "project_bias": pad(weights.project_bias, lanes),
        }
        if grn is not None:
            self.tensors["grn"] = grn.detach().float().contiguous()

    def matrix(self, name: str) -> Tensor:
        """'expand', (E, C), or 'project', (C, E), float32: to the bit what was packed."""
        shape = (self.hidden, self.inputs) if name == "expand" else (self.inputs, self.hidden)
        return unpack_matrix(self.tensors[name], *shape)

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        return n, height, width, channels

    def struct(self) -> structs.Block:
        """What the kernel of `kind` reads."""
        return structs.Block(
            **addresses(self.tensors), channels=self.inputs, hidden=self.hidden, kernel=self.kernel, epsilon=self.eps
        )


class PackedPatch:
    """A PxP convolution of stride P, after a norm of the input's pixels, or before one of the output's.

    weight (O, I, P, P), bias (O,); `normalise`: LayerNorm over I without affine part first (a downsampling layer), where a
    weight in bfloat16 asks for bf16 matmuls; `after`: weight and bias (O,) of a LayerNorm over O that follows (the stem). A
    map of fewer than P rows or columns is repeated to P first, as the plain downsampling layer does.
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
        bf16 = normalise and weight.dtype is torch.bfloat16 and bf16_matmuls()
        self.kind = Kind.PATCH_BF16 if bf16 else Kind.PATCH
        self.exact = not bf16
        self._order = (0, 2, 3, 1) if normalise else (0, 2, 1, 3)  # patch.h says why
        rows = weight.permute(self._order).reshape(self.outputs, -1)  # (O, P * P * I)
        self.tensors = {"weight": (pack_pairs if bf16 else pack_matrix)(rows), "bias": pad(bias, lanes)}
        if after:
            self.tensors |= {"norm_weight": pad(after[0], lanes), "norm_bias": pad(after[1], lanes)}

    def matrix(self, name: str) -> Tensor:
        """'weight', (O, I, P, P) float32 in channels-last memory: to the bit what was packed."""
        sides = (self.outputs, self.inputs, self.patch, self.patch)
        rows = unpack_matrix(self.tensors[name], self.outputs, self.inputs * self.patch**2)
        places = [self._order.index(axis) for axis in range(4)]
        return rows.view([sides[axis] for axis in self._order]).permute(places).contiguous(memory_format=CHANNELS_LAST)

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        height, width = (max(side // self.patch, min(side, 1)) for side in (height, width))
        return n, height, width, self.outputs

    def struct(self) -> structs.Patch:
        """What the kernel of `kind` reads."""
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "size": self.patch, "normalise": self.normalise}
        return structs.Patch(**addresses(self.tensors), **sizes, stride=self.patch, epsilon=self.eps)


@dataclass(frozen=True)
class StemLayer:
    """A convolution (O, I, K, K) of stride S that sees zeros around the map, and what follows it.

    `norm`: weight and bias (O,) of a LayerNorm over O, or None; then GELU or not. `shift`: (I,) is taken from every pixel
    of the map, but not from the zeros, or None.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int
    norm: tuple[Tensor, Tensor] | None
    eps: float
    gelu: bool
    shift: Tensor | None


class PackedStem:
    """Overlapping convolutions one after the other, in float32."""

    kind = Kind.STEM
    exact = False

    def __init__(self, layers: Sequence[StemLayer]):
        self.inputs = layers[0].weight.shape[1]
        self._sides = [(layer.weight.shape[-1], layer.stride, layer.padding) for layer in layers]
        self.outputs = layers[-1].weight.shape[0]
        self.tensors = [_stem_tensors(layer) for layer in layers]
        self._sizes = [
            {
                "inputs": layer.weight.shape[1],
                "outputs": layer.weight.shape[0],
                "size": layer.weight.shape[-1],
                "stride": layer.stride,
                "padding": layer.padding,
                "gelu": layer.gelu,
                "epsilon": layer.eps,
            }
            for layer in layers
        ]

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        for size, stride, padding in self._sides:
            height, width = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
        return n, height, width, self.outputs

    def struct(self) -> structs.Stem:
        """What the kernel of `kind` reads."""
        pairs = zip(self.tensors, self._sizes, strict=True)
        array = (structs.Patch * len(self.tensors))(
            *(structs.Patch(**addresses(tensors), **sizes) for tensors, sizes in pairs)
        )
        made = structs.Stem(layers=ctypes.addressof(array), count=len(array))
        made.held = array
        return made


def _stem_tensors(layer: StemLayer) -> dict[str, Tensor]:
    lanes, (outputs, inputs, size, _) = library_or_refuse().cn_lanes(), layer.weight.shape
    rows = layer.weight.permute(0, 2, 3, 1).reshape(outputs, -1)  # (O, K * K * I)
    found = {"weight": pack_matrix(rows), "bias": pad(layer.bias, lanes)}
    if layer.norm:
        found |= {"norm_weight": pad(layer.norm[0], lanes), "norm_bias": pad(layer.norm[1], lanes)}
    if layer.shift is not None:
        found["shift"] = layer.shift.detach().float().reshape(inputs).repeat(size * size)
    return found


class PackedHead:
    """linear(normalise(mean over space)): the end of a classifier, (N, H, W, C) -> (N, 1, 1, K classes).

    weight (K, C), bias (K,); `normalise` is a LayerNorm over C without affine part: fold its own into these two.
    """

    kind = Kind.HEAD
    exact = True

    def __init__(self, weight: Tensor, bias: Tensor, eps: float = 1e-6):
        self.outputs, self.inputs = weight.shape
        self.eps = eps
        self.tensors = {"weight": pack_matrix(weight), "bias": pad(bias, library_or_refuse().cn_lanes())}

    def matrix(self, name: str) -> Tensor:
        """'weight', (K, C) float32: to the bit what was packed."""
        return unpack_matrix(self.tensors[name], self.outputs, self.inputs)

    def shape(self, n: int, height: int, width: int, channels: int) -> Shape:
        """Of the answer to a map of that shape."""
        return n, 1, 1, self.outputs

    def struct(self) -> structs.Head:
        """What the kernel of `kind` reads."""
        return structs.Head(**addresses(self.tensors), inputs=self.inputs, outputs=self.outputs, epsilon=self.eps)


def pad(vector: Tensor, lanes: int) -> Tensor:
    """(n,) -> float32 (n rounded up to whole vectors,), zeros behind."""
    return F.pad(vector.detach().float(), (0, -len(vector) % lanes)).contiguous()


def pack_spatial(weight: Tensor, lanes: int) -> Tensor:
    """(C, 1, K, K) -> (C / lanes, K, K, lanes): the order in which the kernel reads."""
    channels, _, kernel, _ = weight.shape
    padded = F.pad(weight.detach()[:, 0].float(), (0, 0, 0, 0, 0, -channels % lanes))
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


def unpack_matrix(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    """The (outputs, inputs) that `pack_matrix` was given, float32, to the bit."""
    panel, lanes = library_or_refuse().cn_panel(), library_or_refuse().cn_lanes()
    found = torch.empty(outputs, inputs)
    for first, rows in enumerate(found.split(panel)):
        wide, begin = -(-len(rows) // lanes) * lanes, first * panel * inputs  # the last panel has whole vectors
        rows.copy_(packed[begin : begin + inputs * wide].view(inputs, wide).T[: len(rows)])
    return found


def pack_pairs(weight: Tensor) -> Tensor:
    """The same in bfloat16: panels of [inputs / 2][outputs][2], zeros behind, of inputs too."""
    library = library_or_refuse()
    lanes, panel, multiple = library.cn_lanes(), library.cn_panel(), library.cn_bf16_rows()
    outputs, inputs = weight.shape
    rows = F.pad(weight.detach().bfloat16(), (0, -inputs % multiple, 0, -outputs % lanes))
    panels = rows.split(panel)  # (columns of a panel, inputs)
    return torch.cat([each.view(len(each), -1, 2).transpose(0, 1).flatten() for each in panels])
