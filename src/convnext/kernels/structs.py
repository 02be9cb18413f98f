"""The structures that the compiled kernels read, as the files of cpu/ declare them: pointers, then sizes, then epsilon.

A structure holds no tensor: whoever fills one in keeps the tensors as long as it is used.
"""

import ctypes
from enum import IntEnum

from torch import Tensor


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's values start; null for none."""
    return None if tensor is None else tensor.data_ptr()


def addresses(tensors: dict[str, Tensor]) -> dict[str, int | None]:
    """Where each of them starts."""
    return {name: address(tensor) for name, tensor in tensors.items()}


def _pointers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


def _sizes(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_long) for name in names]


def _floats(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_float) for name in names]


_EPSILON = ("epsilon", ctypes.c_float)
_LAYERS = ("spatial", "spatial_bias", "norm", "norm_bias", "expand", "expand_bias", "project", "project_bias")
_BRANCH = (*_LAYERS, "gamma", "grn", "grn_bias")


class Block(ctypes.Structure):
    """A block for inference, folded and packed (block.h)."""

    _fields_ = (
        *_pointers("spatial", "spatial_bias", "expand", "expand_bias", "project", "project_bias", "scale", "grn"),
        *_sizes("channels", "hidden", "kernel"),
        _EPSILON,
    )


class Patch(ctypes.Structure):
    """A convolution that makes a map smaller (patch.h)."""

    _fields_ = (
        *_pointers("weight", "bias", "norm_weight", "norm_bias", "shift"),
        *_sizes("inputs", "outputs", "size", "normalise", "stride", "padding", "gelu"),
        _EPSILON,
    )


class Stem(ctypes.Structure):
    """Several of them, as an array and how many they are (patch.h)."""

    held: ctypes.Array[Patch]  # the array: it lives as long as this
    _fields_ = (*_pointers("layers"), *_sizes("count"))


class Head(ctypes.Structure):
    """The end of a classifier (head.h)."""

    _fields_ = (*_pointers("weight", "bias"), *_sizes("inputs", "outputs"), _EPSILON)


class Int8Block(ctypes.Structure):
    """A block of 8-bit matmuls (int8_layers.h)."""

    _fields_ = (
        *_pointers("spatial", "spatial_bias", "expand", "expand_scale", "expand_bias", "gelu"),
        *_pointers("project", "project_scale", "project_bias", "grn"),
        *_sizes("channels", "hidden", "kernel"),
        *_floats("epsilon", "gain", "offset", "zero", "smallest", "again_gain", "again_offset"),
    )


class Int8Patch(ctypes.Structure):
    """A downsampling layer of 8-bit matmuls (int8_layers.h)."""

    _fields_ = (
        *_pointers("weight", "scale", "bias"),
        *_sizes("inputs", "outputs", "size"),
        *_floats("epsilon", "gain", "offset"),
    )


class Convolution(ctypes.Structure):
    """A 3x3 convolution of stride 1 (winograd.h)."""

    _fields_ = (*_pointers("weight", "bias"), *_sizes("inputs", "outputs", "relu"))


class Kind(IntEnum):
    """What a layer is (network.h)."""

    PATCH, BLOCK, BLOCK_BF16, HEAD, BLOCK_INT8, PATCH_INT8, STEM, PATCH_BF16 = range(8)


class Layer(ctypes.Structure):
    """One layer of a network: its kind, and the address of the structure above that belongs to it (network.h)."""

    _fields_ = (*_sizes("kind"), *_pointers("parameters"))


class Weights(ctypes.Structure):
    """A block for a training step, its weights as they are (training.h)."""

    _fields_ = (*_pointers(*_BRANCH, "scale"), *_sizes("channels", "hidden", "kernel", "bf16"), _EPSILON)


class Gradients(ctypes.Structure):
    """Where a training step writes (training.h)."""

    _fields_ = tuple(_pointers("x", *_BRANCH))


STRUCTURES = (Block, Patch, Stem, Head, Int8Block, Int8Patch, Convolution, Layer, Weights, Gradients)


def mismatch(library: ctypes.CDLL) -> str | None:
    """Why the library would read these structures wrongly, in one line; None where their sizes are its own."""
    for structure in STRUCTURES:
        name, here = structure.__name__, ctypes.sizeof(structure)
        there = library.cn_size(name.encode())
        if there != here:
            return f"the compiled kernels take a {name} of {there} bytes, and this package gives one of {here}"
    return None
