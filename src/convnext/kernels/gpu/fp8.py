"""The ConvNeXt block with float8 (e4m3) products, for inference on Ada, Hopper and newer cards.

Weights have one scale an output channel. The normed map has one a position, which the depthwise kernel finds while it
holds the position's channels; hidden activations have one for each run of 128 channels. Sums are float32, and the
residual stays in the dtype of x. The error is that of 3 bits of mantissa: some percent of what a block adds to x.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from convnext.kernels.gpu import reference
from convnext.kernels.gpu.available import unavailable_fp8

LARGEST = 448.0  # of float8 e4m3
FP8 = torch.float8_e4m3fn


class Fp8Weights(NamedTuple):
    """A block's parameters as `block_fp8` takes them: `prepare` makes them, once."""

    spatial_weight: Tensor  # (C, 1, K, K)
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


def prepare(
    spatial_weight: Tensor,
    spatial_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    expand_weight: Tensor,
    expand_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    gamma: Tensor | None = None,
) -> Fp8Weights:
    """Round the products' weights to float8. The parameters are those of `block`."""
    with torch.no_grad():
        wide = expand_weight.float()
        shifted = expand_bias.float() if norm_bias is None else expand_bias.float() + wide @ norm_bias.float()
        expand, expand_quanta = quantise(wide if norm_weight is None else wide * norm_weight.float())
        project, project_quanta = quantise(project_weight)
    given = [None if each is None else each.detach() for each in (spatial_weight, spatial_bias, project_bias, gamma)]
    assert given[0] is not None and given[2] is not None
    return Fp8Weights(
        given[0], given[1], shifted, given[2], given[3], expand, expand_quanta, project, project_quanta, eps
    )


def block_fp8(x: Tensor, weights: Fp8Weights) -> Tensor:
    """The block on x (N, C, H, W) in inference; without float8 on this card, the rounded weights in x's own dtype."""
    if unavailable_fp8(x) is not None:
        expand = weights.expand.float() * weights.expand_quanta[:, None]
        project = weights.project.float() * weights.project_quanta[:, None]
        small: list[Any] = [weights.spatial_weight, weights.spatial_bias, None, None, weights.eps, expand]
        small += [weights.expand_bias, project, weights.project_bias, weights.gamma]
        everything: Any = [each.to(x.dtype) if isinstance(each, Tensor) else each for each in small]
        return reference.block(x, *everything)
    return _block(x, *weights)


@torch.library.custom_op("convnext::block_fp8", mutates_args=())
def _block(
    x: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor | None,
    expand_bias: Tensor,
    project_bias: Tensor,
    gamma: Tensor | None,
    expand: Tensor,
    expand_quanta: Tensor,
    project: Tensor,
    project_quanta: Tensor,
    eps: float,
) -> Tensor:
    from convnext.kernels.gpu import depthwise, gemm

    rows = x.permute(0, 2, 3, 1).contiguous()
    normed = depthwise.convolve_norm(rows, spatial_weight, spatial_bias, None, None, eps, dtype=FP8)
    assert normed.quanta is not None
    hidden, quanta = gemm.scaled_gelu(normed.answer, normed.quanta, expand, expand_quanta, expand_bias)
    answer = gemm.scaled_residual(hidden, quanta, project, project_quanta, project_bias, gamma, rows)
    return answer.permute(0, 3, 1, 2)


@_block.register_fake
def _shapes(x: Tensor, *others: object) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, h, w, c)).permute(0, 3, 1, 2)
