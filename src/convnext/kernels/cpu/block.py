"""A ConvNeXt block and the patch convolutions of the network, packed for the compiled kernels: float32, inference only.

Axes: N images, H W feature rows and columns, C channels, E = 4C expanded channels, I inputs, O outputs, K kernel, P patch.
Maps are (N, H, W, C) here. Results are the same to the bit for the same input and the same number of threads.
"""

import ctypes
import os
import time

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.build import built
from convnext.kernels.choice import SWITCH


def unavailable() -> str | None:
    """Why the compiled CPU kernels are not used, in words for a person; None where they are. Compiles them if need be."""
    if os.environ.get(SWITCH) == "plain":
        return f"{SWITCH}=plain turns them off"
    return built().reason


def threads() -> int:
    """As many as torch uses; 1 where the library could not be built with OpenMP."""
    return torch.get_num_threads() if built().parallel else 1


def product_rate(seconds: float = 0.2) -> float:
    """GFLOP/s of this machine's fused multiply-adds out of the first cache, on torch's threads: what no product exceeds."""
    library, rate, end = library_or_refuse(), 0.0, time.perf_counter() + seconds
    library.cn_products.restype = ctypes.c_long
    while time.perf_counter() < end:
        start = time.perf_counter()
        work = library.cn_products(ctypes.c_long(2000), threads())
        rate = max(rate, work / (time.perf_counter() - start) / 1e9)
    return rate


class PackedBlock:
    """x + project(response(gelu(expand(normalise(spatial(x)))))) of one block, its weights folded and packed.

    spatial (C, K, K) with K odd, spatial_bias (C,), expand (E, C), expand_bias (E,), project (C, E), project_bias (C,).
    `normalise` is a LayerNorm over C without affine part: fold its weight and bias into `expand`, layer scale into
    `project`. `response` (E,): the weights of V2's response normalisation, whose bias belongs to `project`; None in V1.
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
        response: Tensor | None = None,
    ):
        library = library_or_refuse()
        self.channels, self.kernel = spatial.shape[0], spatial.shape[-1]
        self.hidden, self.eps = expand.shape[0], eps
        lanes = library.cn_lanes()
        self.tensors: list[Tensor | None] = [
            pack_spatial(spatial, lanes),
            pad(spatial_bias, lanes),
            pack_matrix(expand),
            pad(expand_bias, lanes),
            pack_matrix(project),
            pad(project_bias, lanes),
            None,  # no drop path
        ]
        self.response = None if response is None else response.detach().float().contiguous()

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(N, H, W, C) float32 -> (N, H, W, C); into `out` where given: contiguous, and not the memory of x."""
        x = x.detach().contiguous()
        n, height, width, _ = check(x, self.channels)
        out = torch.empty_like(x) if out is None else out
        if x.numel():
            sizes = (ctypes.c_long * 3)(self.channels, self.hidden, self.kernel)
            described = describe(self.tensors, bytes(sizes), bytes(ctypes.c_float(self.eps)))
            maps = (pointer(x), pointer(out), *longs(n, height, width), threads())
            if self.response is None:
                built().library.cn_block(described, *maps)  # type: ignore[union-attr]
            else:
                built().library.cn_block_v2(described, pointer(self.response), *maps)  # type: ignore[union-attr]
        return out


class PackedPatch:
    """A PxP convolution of stride P, after a norm of the input's pixels, or before one of the output's.

    weight (O, I, P, P), bias (O,); `normalise`: LayerNorm over I without affine part first (a halving layer);
    `after`: weight and bias (O,) of a LayerNorm over O that follows (the stem).
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
        rows = weight.permute(0, 2, 3, 1).reshape(self.outputs, -1)  # (O, P * P * I): kernel row, column, input
        self.tensors: list[Tensor | None] = [pack_matrix(rows), pad(bias, lanes)]
        self.tensors += [pad(after[0], lanes), pad(after[1], lanes)] if after else [None, None]

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(N, H, W, I) float32, any strides -> (N, H // P, W // P, O); into `out` where given.

        A map of fewer than P rows or columns is repeated to P first, as the plain halving layer does.
        """
        x = x.detach()
        for axis in (1, 2):
            if 0 < x.shape[axis] < self.patch:
                x = torch.cat([x, x.narrow(axis, -1, 1).repeat_interleave(self.patch - x.shape[axis], axis)], axis)
        n, height, width, _ = check(x, self.inputs)
        if out is None:
            out = x.new_empty(n, height // self.patch, width // self.patch, self.outputs)
        if out.numel():
            sizes = (ctypes.c_long * 4)(self.inputs, self.outputs, self.patch, self.normalise)
            strides = (ctypes.c_long * 4)(*x.stride())
            described = describe(self.tensors, bytes(sizes), bytes(ctypes.c_float(self.eps)))
            built().library.cn_patch(  # type: ignore[union-attr]
                described, pointer(x), strides, *longs(n, height, width), pointer(out), threads()
            )
        return out


def describe(tensors: list[Tensor | None], sizes: bytes, eps: bytes) -> "ctypes.Array[ctypes.c_char]":
    """The C struct of a layer: its pointers, its sizes, its epsilon. Made at each call, so that layers copy and pickle."""
    places = (ctypes.c_void_p * len(tensors))(*(0 if tensor is None else tensor.data_ptr() for tensor in tensors))
    return ctypes.create_string_buffer(bytes(places) + sizes + eps + bytes(4))


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor's values start."""
    return ctypes.c_void_p(tensor.data_ptr())


def longs(*values: int) -> list[ctypes.c_long]:
    """C's longs."""
    return [ctypes.c_long(value) for value in values]


def check(x: Tensor, channels: int) -> tuple[int, int, int, int]:
    """The shape of a float32 CPU map (N, H, W, channels); raises ConvNeXtError for anything else."""
    if x.ndim != 4 or x.shape[-1] != channels or x.dtype != torch.float32 or x.device.type != "cpu":
        raise ConvNeXtError(
            f"the compiled kernels got {tuple(x.shape)} {x.dtype} on {x.device}: give (N, H, W, {channels}) float32 on the CPU."
        )
    n, height, width, _ = x.shape
    return n, height, width, channels


def library_or_refuse() -> ctypes.CDLL:
    """The loaded library; raises ConvNeXtError with the reason where there is none."""
    reason, library = unavailable(), built().library
    if reason or library is None:
        raise ConvNeXtError(f"the compiled CPU kernels are unavailable: {reason}. Use the plain path.")
    return library


def pad(vector: Tensor, lanes: int) -> Tensor:
    """(n,) -> float32 (n rounded up to whole vectors,), zeros behind."""
    return torch.nn.functional.pad(vector.detach().float(), (0, -len(vector) % lanes)).contiguous()


def pack_spatial(weight: Tensor, lanes: int) -> Tensor:
    """(C, K, K) -> (C / lanes, K, K, lanes): the order in which the kernel reads."""
    channels, kernel, _ = weight.shape
    padded = torch.nn.functional.pad(weight.detach().float(), (0, 0, 0, 0, 0, -channels % lanes))
    return padded.view(-1, lanes, kernel, kernel).permute(0, 2, 3, 1).contiguous()


def pack_matrix(weight: Tensor) -> Tensor:
    """A linear layer's (outputs, inputs) in the panels that the products read."""
    library = library_or_refuse()
    weight = weight.detach().float().contiguous()
    outputs, inputs = weight.shape
    lanes = library.cn_lanes()
    packed = torch.zeros((outputs + lanes) // lanes * lanes * inputs)
    library.cn_pack(pointer(weight), *longs(1, inputs, inputs, outputs), pointer(packed))
    return packed
