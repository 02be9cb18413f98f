"""Compiled for this processor: the layers of inference, and the moves of augmentation."""

from convnext.kernels.cpu.affine import affine
from convnext.kernels.cpu.library import matmul_rate
from convnext.kernels.cpu.packed import PackedBlock, PackedHead, PackedLayers, PackedPatch, bf16_matmuls

__all__ = [
    "PackedBlock",
    "PackedHead",
    "PackedLayers",
    "PackedPatch",
    "affine",
    "bf16_matmuls",
    "matmul_rate",
]
