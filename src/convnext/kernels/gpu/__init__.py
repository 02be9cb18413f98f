"""The ConvNeXt block as Triton kernels, for NVIDIA cards from Ampere on; plain torch answers everywhere else.

    block(x, spatial.weight, spatial.bias, norm.weight, norm.bias, eps, expand.weight, expand.bias, project.weight,
          project.bias, gamma, keep)       the whole block, with gradients
    depthwise_norm(...)                    its first half, for blocks that go on otherwise
    prepare(...), block_fp8(x, weights)    float8 inference
    graphed(model, example)                small batches as one CUDA graph
    unavailable(x)                         why plain torch would answer, or None

Files: `triton_*` hold the kernels, `depthwise` and `gemm` launch them, `reference` says what they compute, `tuning`
chooses tile sizes, `operators` and `autograd` make torch operators of them. Triton loads at the first call.
"""

from convnext.kernels.gpu import autograd
from convnext.kernels.gpu.available import unavailable, unavailable_fp8
from convnext.kernels.gpu.fp8 import Fp8Weights, block_fp8, prepare
from convnext.kernels.gpu.graphs import graphed
from convnext.kernels.gpu.operators import block, depthwise_norm

__all__ = [
    "Fp8Weights",
    "autograd",
    "block",
    "block_fp8",
    "depthwise_norm",
    "graphed",
    "prepare",
    "unavailable",
    "unavailable_fp8",
]
