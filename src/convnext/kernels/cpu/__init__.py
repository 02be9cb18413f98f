"""The fused block on the CPU: PackedBlock and PackedPatch for inference, and why they may be unavailable."""

from convnext.kernels.cpu.block import PackedBlock, PackedPatch, product_rate, unavailable

__all__ = ["PackedBlock", "PackedPatch", "product_rate", "unavailable"]
