"""Compiled for this processor: the fused block of inference, the moves of augmentation, and why they may be unavailable."""

from convnext.kernels.cpu.affine import affine
from convnext.kernels.cpu.block import PackedBlock, PackedPatch, product_rate, unavailable

__all__ = ["PackedBlock", "PackedPatch", "affine", "product_rate", "unavailable"]
