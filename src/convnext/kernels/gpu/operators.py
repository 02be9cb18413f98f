"""The ConvNeXt block on a GPU: torch operators around the kernels, which torch.compile, autocast and DDP take as they are.

In training LayerNorm's scale and shift live inside `expand` and layer scale inside `project`, once a step: the normed
map is then both the input of `expand` and all that LayerNorm's gradient needs, and the gradients of scale, shift and
layer scale come out of the two weight gradients without another pass over the positions.

Axes: N images, H W rows and columns, C channels, E = 4C hidden channels. Maps are (N, C, H, W) in channels-last memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef  # type: ignore[attr-defined]

from convnext.kernels.block import BlockWeights, fold_affine, plain, schema
from convnext.kernels.gpu import reference
from convnext.kernels.gpu.available import unavailable

FIELDS = len(BlockWeights._fields)
RECOMPUTED = 256  # channels up to which the hidden layer is computed again in the backward: cheaper than its memory


def _operator(name: str, before: str, after: str, returns: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """A torch operator on the block's weights, taken one by one: operators know no other values than tensors and numbers."""
    spelled = schema(BlockWeights, before, after, returns)
    return torch.library.custom_op(f"convnext::{name}", mutates_args=(), schema=spelled)


def taken(given: tuple[Any, ...]) -> tuple[BlockWeights, tuple[Any, ...]]:
    """The weights at the front of an operator's arguments, and what stands behind them."""
    return BlockWeights(*given[:FIELDS]), given[FIELDS:]


def block(x: Tensor, weights: BlockWeights, keep: Tensor | None = None) -> Tensor:
    """The block, `kernels.block.plain`, on x (N, C, H, W), in the dtype of x.

    keep (N,): 0 for a dropped image, 1 / (1 - rate) for a kept one. Matmuls are taken in x's dtype, or in autocast's. Plain
    torch answers for a block of V2, and where `unavailable(x)` names a reason.
    """
    if weights.grn is not None or unavailable(x) is not None:
        return plain(x, weights, keep)
    dtype = product_dtype(x)
    learning = any(each is not None and each.requires_grad for each in (x, *weights.tensors))
    if learning and torch.is_grad_enabled():
        return block_training(x, *weights, keep, dtype, weights.expand.shape[1] <= RECOMPUTED)[0]
    return block_inference(x, *weights, keep, dtype)


def depthwise_norm(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """LayerNorm(depthwise convolution) of x (N, C, H, W) as (N, H, W, C), for blocks that go on otherwise (V2's).

    weight (C, 1, K, K) with odd K, scale and shift (C,). Where `unavailable(x)` names a reason, plain torch answers.
    """
    if unavailable(x) is not None:
        return reference.depthwise_norm(x.permute(0, 2, 3, 1), weight, bias, scale, shift, eps)
    return norm_forward(x, weight, bias, scale, shift, eps, product_dtype(x))[0]


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype that products are taken in: autocast's where it is on, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@_operator("block_inference", "Tensor x", "Tensor? keep, ScalarType dtype", "Tensor")
def block_inference(x: Tensor, *given: Any) -> Tensor:
    """`block` without anything kept for a backward."""
    from convnext.kernels.gpu import depthwise, mlp  # Triton loads here

    weights, (keep, dtype) = taken(given)
    rows, parts = _rows(x), (weights.spatial, weights.spatial_bias, weights.norm, weights.norm_bias)
    y = depthwise.convolve_norm(rows, *parts, weights.eps, dtype=dtype).answer
    expand, project = (weights.expand.to(dtype), weights.expand_bias), (weights.project.to(dtype), weights.project_bias)
    return _map(mlp.mlp(y, expand, project, weights.gamma, _factor(keep), rows))


@_operator(
    "block_training", "Tensor x", "Tensor? keep, ScalarType dtype, bool again", "(Tensor, Tensor, Tensor, Tensor)"
)
def block_training(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(answer, normed map (N, H, W, C), rstd (N, H, W), what stood before GELU (N, H, W, E) or nothing with `again`)."""
    from convnext.kernels.gpu import depthwise, mlp

    weights, (keep, dtype, again) = taken(given)
    rows, spatial = _rows(x), (weights.spatial, weights.spatial_bias)
    normed = depthwise.convolve_norm(rows, *spatial, None, None, weights.eps, dtype=dtype, keep_stats=True)
    expand, project = _folded(weights, dtype), (weights.project.to(dtype), weights.project_bias)
    if again:
        answer = mlp.mlp(normed.answer, expand, project, weights.gamma, _factor(keep), rows)
        before = x.new_empty(0, dtype=dtype)
    else:
        hidden, kept = mlp.expand_gelu(normed.answer, expand, keep=True)
        assert kept is not None
        before = kept
        answer = mlp.project_residual(hidden, project, weights.gamma, _factor(keep), rows)
    assert normed.rstd is not None
    return _map(answer), normed.answer, normed.rstd, before


@_operator(
    "block_backward",
    "Tensor gradient, Tensor x, Tensor normal, Tensor rstd, Tensor before",
    "Tensor? keep",
    "Tensor[]",
)
def block_backward(
    gradient: Tensor, x: Tensor, normal: Tensor, rstd: Tensor, before: Tensor, *given: Any
) -> list[Tensor]:
    """Gradients of x and of every tensor of the weights; empty where there is none."""
    from convnext.kernels.gpu import depthwise, mlp

    weights, (keep,) = taken(given)
    dtype, channels, factor = normal.dtype, normal.shape[-1], _factor(keep)
    rows, push = _rows(x), _rows(gradient)
    pushed = push.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        expand, gamma = _folded(weights, dtype), weights.gamma
        project = weights.project if gamma is None else weights.project.float() * gamma.float()[:, None]
        kept = before if before.numel() else None
        found = mlp.mlp_backward(normal, expand, kept, pushed, project.to(dtype), factor)
        of_expand, of_project, bias_gradient = found.expand, found.project, found.expand_bias
        a_sample = push.flatten(1, 2).sum(1, dtype=torch.float32)  # (N, C)
        pushes = a_sample.sum(0) if factor is None else (a_sample * factor[:, None]).sum(0)
        normed = depthwise.norm_backward(
            found.normal, normal.flatten(0, 2), None, rstd, None, dtype=dtype, affine=False
        )
        map_gradient = normed.before.view(normal.shape)
        of_x = depthwise.convolve_add(map_gradient, weights.spatial, push, dtype=x.dtype)
        of_spatial = depthwise.filter_gradient(rows, map_gradient, weights.spatial.shape[-1])
        of_norm, of_shift, of_gamma = (x.new_empty(0) for _ in range(3))
        scaled = of_expand
        if weights.norm is not None:
            of_norm = (weights.expand.float() * of_expand).sum(0)
            scaled = of_expand * weights.norm.float()
        if weights.norm_bias is not None:
            of_shift = weights.expand.float().t() @ bias_gradient
            scaled = torch.addr(scaled, bias_gradient, weights.norm_bias.float())
        of_bias = pushes
        if gamma is not None:
            of_gamma = (weights.project.float() * of_project).sum(1) + weights.project_bias.float() * pushes
            of_project, of_bias = of_project * gamma.float()[:, None], pushes * gamma.float()
    assert of_spatial.shape[0] == channels
    out = [of_spatial, normed.total, of_norm, of_shift, scaled, bias_gradient, of_project, of_bias, of_gamma]
    out += [x.new_empty(0), x.new_empty(0)]  # grn's two
    return [_map(of_x), *(each.to(weights.expand.dtype) for each in out)]


@torch.library.custom_op("convnext::norm_forward", mutates_args=())
def norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(answer, convolution, mean, rstd) of `depthwise_norm`, all over (N, H, W)."""
    from convnext.kernels.gpu import depthwise

    made = depthwise.convolve_norm(
        _rows(x), weight, bias, scale, shift, eps, dtype=dtype, keep_raw=True, keep_stats=True
    )
    assert made.raw is not None and made.mean is not None and made.rstd is not None
    return made.answer, made.raw, made.mean, made.rstd


@torch.library.custom_op("convnext::norm_backward", mutates_args=())
def norm_backward(
    gradient: Tensor, x: Tensor, raw: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, scale: Tensor
) -> list[Tensor]:
    """Gradients of x, weight, bias, scale and shift of `depthwise_norm`."""
    from convnext.kernels.gpu import depthwise

    found = depthwise.norm_backward(gradient.contiguous(), raw, mean, rstd, scale, dtype=x.dtype, affine=True)
    of_x = depthwise.convolve_add(found.before, weight, None, dtype=x.dtype)
    of_weight = depthwise.filter_gradient(_rows(x), found.before, weight.shape[-1])
    assert found.scale is not None and found.shift is not None
    out = (of_weight, found.total, found.scale, found.shift)
    return [_map(of_x), *(each.to(weight.dtype) for each in out)]


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as contiguous (N, H, W, C): no copy where the memory is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _map(rows: Tensor) -> Tensor:
    return rows.permute(0, 3, 1, 2)


def _factor(keep: Tensor | None) -> Tensor | None:
    return None if keep is None else keep.reshape(-1).float()


def _folded(weights: BlockWeights, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`expand` as (weight, bias) on the normed map without scale and shift."""
    given = weights.expand, weights.expand_bias, weights.norm, weights.norm_bias
    with torch.autocast(weights.expand.device.type, enabled=False):
        weight, bias = fold_affine(*given, torch.float32)
    return weight.to(dtype), bias
