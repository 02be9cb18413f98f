"""Compiled for this processor: the layers of inference, the moves of augmentation, and why they may be unavailable."""

from convnext.kernels.cpu.affine import affine
from convnext.kernels.cpu.library import product_rate, unavailable
from convnext.kernels.cpu.packed import PackedBlock, PackedHead, PackedLayers, PackedPatch, brain_products

__all__ = [
    "PackedBlock",
    "PackedHead",
    "PackedLayers",
    "PackedPatch",
    "affine",
    "brain_products",
    "product_rate",
    "unavailable",
]
