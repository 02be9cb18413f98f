"""The ConvNeXt block on a GPU: torch operators around the kernels, which torch.compile, autocast and DDP take as they are.

In training LayerNorm's scale and shift live inside `expand` and layer scale inside `project`, once a step: the normed
map is then both the input of `expand` and all that LayerNorm's gradient needs, and the gradients of scale, shift and
layer scale come out of the two weight gradients without another pass over the positions.

Axes: N images, H W rows and columns, C channels, E = 4C hidden channels. Maps are (N, C, H, W) in channels-last memory.
"""

from typing import Any

import torch
from torch import Tensor

from convnext.kernels.gpu import reference
from convnext.kernels.gpu.available import unavailable

RECOMPUTED = 256  # channels up to which the hidden layer is computed again in the backward: cheaper than its memory


def block(
    x: Tensor,
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
    keep: Tensor | None = None,
) -> Tensor:
    """x + keep * gamma * project(gelu(expand(norm(spatial(x))))) for x (N, C, H, W), in the dtype of x.

    spatial (C, 1, K, K) with odd K, expand (E, C), project (C, E), keep (N,): 0 for a dropped sample, 1 / (1 - rate) for
    a kept one. Products are taken in x's dtype, or in autocast's. Where `unavailable(x)` names a reason, plain torch answers.
    """
    parts = (spatial_weight, spatial_bias, norm_weight, norm_bias)
    layers = (expand_weight, expand_bias, project_weight, project_bias, gamma)
    if unavailable(x) is not None:
        everything: tuple[Any, ...] = (*parts, eps, *layers, keep)
        return reference.block(x, *everything)
    dtype = product_dtype(x)
    learning = any(each is not None and each.requires_grad for each in (x, *parts, *layers))
    if learning and torch.is_grad_enabled():
        again = expand_weight.shape[1] <= RECOMPUTED
        return block_training(x, *parts, eps, *layers, keep, dtype, again)[0]
    return block_inference(x, *parts, eps, *layers, keep, dtype)


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


@torch.library.custom_op("convnext::block_inference", mutates_args=())
def block_inference(
    x: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    expand_weight: Tensor,
    expand_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    gamma: Tensor | None,
    keep: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """`block` without anything kept for a backward."""
    from convnext.kernels.gpu import depthwise, gemm  # Triton loads here

    rows = _rows(x)
    parts = (spatial_weight, spatial_bias, norm_weight, norm_bias)
    y = depthwise.convolve_norm(rows, *parts, eps, dtype=dtype).answer
    expand, project = (expand_weight.to(dtype), expand_bias), (project_weight.to(dtype), project_bias)
    return _map(gemm.mlp(y, expand, project, gamma, _factor(keep), rows))


@torch.library.custom_op("convnext::block_training", mutates_args=())
def block_training(
    x: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    expand_weight: Tensor,
    expand_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    gamma: Tensor | None,
    keep: Tensor | None,
    dtype: torch.dtype,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(answer, normed map (N, H, W, C), rstd (N, H, W), what stood before GELU (N, H, W, E) or nothing with `again`)."""
    from convnext.kernels.gpu import depthwise, gemm

    rows = _rows(x)
    normed = depthwise.convolve_norm(rows, spatial_weight, spatial_bias, None, None, eps, dtype=dtype, keep_stats=True)
    expand, project = _folded(norm_weight, norm_bias, expand_weight, expand_bias, dtype), project_weight.to(dtype)
    if again:
        answer = gemm.mlp(normed.answer, expand, (project, project_bias), gamma, _factor(keep), rows)
        before = x.new_empty(0, dtype=dtype)
    else:
        hidden, kept = gemm.linear_gelu(normed.answer, *expand, keep=True)
        assert kept is not None
        before = kept
        answer = gemm.linear_residual(hidden, project, project_bias, gamma, _factor(keep), rows)
    assert normed.rstd is not None
    return _map(answer), normed.answer, normed.rstd, before


@torch.library.custom_op("convnext::block_backward", mutates_args=())
def block_backward(
    gradient: Tensor,
    x: Tensor,
    normal: Tensor,
    rstd: Tensor,
    before: Tensor,
    spatial_weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    gamma: Tensor | None,
    keep: Tensor | None,
) -> list[Tensor]:
    """Gradients of x, spatial weight and bias, norm weight and bias, expand's two, project's two, gamma; empty if absent."""
    from convnext.kernels.gpu import depthwise, gemm

    dtype, channels, factor = normal.dtype, normal.shape[-1], _factor(keep)
    rows, push = _rows(x), _rows(gradient)
    pushed = push.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        expand = _folded(norm_weight, norm_bias, expand_weight, expand_bias, dtype)
        project = project_weight if gamma is None else project_weight.float() * gamma.float()[:, None]
        kept = before if before.numel() else None
        slope, hidden, slopes = gemm.gelu_backward(normal, expand, kept, pushed, project.to(dtype), factor)
        flat = slope.flatten(0, 2)
        inner = torch.mm(flat, expand[0])  # (M, C): the gradient of the normed map
        of_expand = torch.mm(flat.t(), normal.flatten(0, 2)).float()  # (E, C)
        of_project = torch.mm(pushed.flatten(0, 2).t(), hidden.flatten(0, 2)).float()  # (C, E)
        del slope, flat, hidden  # (M, E) each
        a_sample = push.flatten(1, 2).sum(1, dtype=torch.float32)  # (N, C)
        pushes = a_sample.sum(0) if factor is None else (a_sample * factor[:, None]).sum(0)
        normed = depthwise.norm_backward(inner, normal.flatten(0, 2), None, rstd, None, dtype=dtype, affine=False)
        map_gradient = normed.before.view(normal.shape)
        of_x = depthwise.convolve_add(map_gradient, spatial_weight, push, dtype=x.dtype)
        of_spatial = depthwise.filter_gradient(rows, map_gradient, spatial_weight.shape[-1])
        of_norm, of_shift, of_gamma = (x.new_empty(0) for _ in range(3))
        scaled = of_expand
        if norm_weight is not None:
            of_norm = (expand_weight.float() * of_expand).sum(0)
            scaled = of_expand * norm_weight.float()
        if norm_bias is not None:
            of_shift = expand_weight.float().t() @ slopes
            scaled = torch.addr(scaled, slopes, norm_bias.float())
        of_bias = pushes
        if gamma is not None:
            of_gamma = (project_weight.float() * of_project).sum(1) + project_bias.float() * pushes
            of_project, of_bias = of_project * gamma.float()[:, None], pushes * gamma.float()
    assert of_spatial.shape[0] == channels
    like = expand_weight.dtype
    out = [of_spatial, normed.total, of_norm, of_shift, scaled, slopes, of_project, of_bias, of_gamma]
    return [_map(of_x), *(each.to(like) for each in out)]


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


def _folded(
    norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`expand` as (weight, bias) on the normed map without scale and shift."""
    with torch.autocast(weight.device.type, enabled=False):
        shifted = bias if norm_bias is None else bias.float() + weight.float() @ norm_bias.float()
        scaled = weight if norm_weight is None else weight.float() * norm_weight.float()
    return scaled.to(dtype), shifted
