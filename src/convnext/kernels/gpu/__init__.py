"""The ConvNeXt block as Triton kernels, for NVIDIA GPUs from Ampere on; plain torch answers everywhere else.

    block(x, weights, keep)           the whole block, with gradients; `weights` as kernels/block.py has them
    depthwise_norm(...)               its first half, for blocks that go on otherwise
    prepare(weights), block_fp8(x, .) float8 inference: the second takes what the first makes
    unavailable(x)                    why plain torch would answer, or None

Files: `triton_*` hold the kernels, `depthwise` and `gemm` launch them, `reference` says what they compute, `tuning`
chooses tile sizes, `operators` and `autograd` make torch operators of them. Triton loads at the first call.
"""

from convnext.kernels.gpu import autograd
from convnext.kernels.gpu.available import unavailable, unavailable_fp8
from convnext.kernels.gpu.fp8 import Fp8Weights, block_fp8, prepare
from convnext.kernels.gpu.operators import block, depthwise_norm

__all__ = [
    "Fp8Weights",
    "autograd",
    "block",
    "block_fp8",
    "depthwise_norm",
    "prepare",
    "unavailable",
    "unavailable_fp8",
]
