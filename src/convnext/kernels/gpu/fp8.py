"""The ConvNeXt block with float8 (e4m3) products, for inference on Ada, Hopper and newer GPUs.

Weights have one scale an output channel. The normed map has one a position, which the depthwise kernel finds while it
holds the position's channels; hidden activations have one for each run of 128 channels. Sums are float32, and the
residual stays in the dtype of x. The error is that of 3 bits of mantissa: some percent of what a block adds to x.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from convnext.kernels.block import BlockWeights, fold_affine, plain, schema
from convnext.kernels.gpu.available import unavailable_fp8

LARGEST = 448.0  # of float8 e4m3
FP8 = torch.float8_e4m3fn


class Fp8Weights(NamedTuple):
    """A block's parameters as `block_fp8` takes them: `prepare` makes them, once."""

    spatial: Tensor  # (C, 1, K, K)
    spatial_bias: Tensor | None  # (C,)
    expand_bias: Tensor  # (E,) with the shift of the norm in it
    project_bias: Tensor  # (C,)
    gamma: Tensor | None  # (C,)
    expand: Tensor  # (E, C) float8, with the scale of the norm in it
    expand_quanta: Tensor  # (E,) float32
    project: Tensor  # (C, E) float8
    project_quanta: Tensor  # (C,) float32
    eps: float


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(float8 weight, float32 scale of each row) of (outputs, inputs), so that the largest of a row is 448."""
    weight = weight.detach().float()
    quanta = weight.abs().amax(-1).clamp(min=1e-12) / LARGEST
    return (weight / quanta[:, None]).to(FP8), quanta


def prepare(weights: BlockWeights) -> Fp8Weights:
    """Round the matmuls' weights to float8."""
    weights = weights.map(torch.Tensor.detach)
    wide = fold_affine(weights.expand, weights.expand_bias.float(), weights.norm, weights.norm_bias, torch.float32)
    expand, expand_quanta = quantise(wide[0])
    project, project_quanta = quantise(weights.project)
    given = (weights.spatial, weights.spatial_bias, wide[1], weights.project_bias, weights.gamma)
    return Fp8Weights(*given, expand, expand_quanta, project, project_quanta, weights.eps)


def block_fp8(x: Tensor, weights: Fp8Weights) -> Tensor:
    """The block on x (N, C, H, W) in inference; without float8 on this GPU, the rounded weights in x's own dtype."""
    if unavailable_fp8(x) is not None:
        expand = weights.expand.float() * weights.expand_quanta[:, None]
        project = weights.project.float() * weights.project_quanta[:, None]
        biases = weights.expand_bias, weights.project_bias
        spatial = weights.spatial, weights.spatial_bias, None, None
        rounded = BlockWeights(*spatial, expand, biases[0], project, biases[1], weights.gamma, eps=weights.eps)
        return plain(x, rounded.map(lambda each: each.to(x.dtype)))
    return _block(x, *weights)


@torch.library.custom_op("convnext::block_fp8", mutates_args=(), schema=schema(Fp8Weights, "Tensor x", "", "Tensor"))
def _block(x: Tensor, *given: Any) -> Tensor:
    from convnext.kernels.gpu import depthwise, gemm

    weights, rows = Fp8Weights(*given), x.permute(0, 2, 3, 1).contiguous()
    normed = depthwise.convolve_norm(rows, weights.spatial, weights.spatial_bias, None, None, weights.eps, dtype=FP8)
    assert normed.quanta is not None
    expand = weights.expand, weights.expand_quanta, weights.expand_bias
    hidden, quanta = gemm.scaled_gelu(normed.answer, normed.quanta, *expand)
    project = weights.project, weights.project_quanta, weights.project_bias
    answer = gemm.scaled_residual(hidden, quanta, *project, weights.gamma, rows)
    return answer.permute(0, 3, 1, 2)


@_block.register_fake
def _shapes(x: Tensor, *others: object) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, h, w, c)).permute(0, 3, 1, 2)
