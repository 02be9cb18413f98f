"""Compiled for this processor: the layers of inference, boxes' maps, and how images are resized and moved."""

from convnext.kernels.cpu.affine import affine
from convnext.kernels.cpu.convolution import PackedConvolution, fewer_multiplications
from convnext.kernels.cpu.int8 import PackedInt8Block, PackedInt8Patch, int8_form
from convnext.kernels.cpu.library import bf16_matmuls, matmul_rate, origin
from convnext.kernels.cpu.packed import (
    Packed,
    PackedBlock,
    PackedHead,
    PackedLayers,
    PackedPatch,
    PackedStem,
    StemLayer,
)
from convnext.kernels.cpu.resize import resize
from convnext.kernels.cpu.roi import roi_align

__all__ = [
    "Packed",
    "PackedBlock",
    "PackedConvolution",
    "PackedHead",
    "PackedInt8Block",
    "PackedInt8Patch",
    "PackedLayers",
    "PackedPatch",
    "PackedStem",
    "StemLayer",
    "affine",
    "bf16_matmuls",
    "fewer_multiplications",
    "int8_form",
    "matmul_rate",
    "origin",
    "resize",
    "roi_align",
]
