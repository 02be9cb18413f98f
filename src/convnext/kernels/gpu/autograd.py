"""How the operators behave for torch: shapes without data, and their gradients.

Importing this file completes `operators`; the package does.
"""

from typing import Any

import torch
from torch import Tensor

from convnext.kernels.gpu import operators

BLOCK_INPUTS = 10  # gradients that `block_backward` returns


@operators.block_inference.register_fake
def _inference_shapes(x: Tensor, *others: Any) -> Tensor:
    return _like_map(x)


@operators.block_training.register_fake
def _training_shapes(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (n, c, h, w), hidden = x.shape, others[5].shape[0]
    dtype, again = others[-2:]
    before = x.new_empty(0, dtype=dtype) if again else x.new_empty((n, h, w, hidden), dtype=dtype)
    return (
        _like_map(x),
        x.new_empty((n, h, w, c), dtype=dtype),
        x.new_empty((n, h, w), dtype=torch.float32),
        before,
    )


@operators.block_backward.register_fake
def _backward_shapes(gradient: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    _, _, _, spatial, norm_weight, norm_bias, expand, expand_bias, project, project_bias, gamma, _ = others
    shapes = [spatial.shape, spatial.shape[:1]]
    shapes += [(0,) if each is None else each.shape for each in (norm_weight, norm_bias)]
    shapes += [expand.shape, expand_bias.shape, project.shape, project_bias.shape]
    shapes += [(0,) if gamma is None else gamma.shape]
    return [_like_map(x), *(x.new_empty(shape, dtype=expand.dtype) for shape in shapes)]


@operators.norm_forward.register_fake
def _norm_shapes(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, c, h, w = x.shape
    statistics = [x.new_empty((n, h, w), dtype=torch.float32) for _ in range(2)]
    return x.new_empty((n, h, w, c), dtype=others[-1]), x.new_empty((n, h, w, c)), statistics[0], statistics[1]


@operators.norm_backward.register_fake
def _norm_backward_shapes(gradient: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    weight = others[3]
    return [_like_map(x), torch.empty_like(weight), *(weight.new_empty(weight.shape[0]) for _ in range(3))]


def _like_map(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty((n, h, w, c)).permute(0, 3, 1, 2)


def _keep_block(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, spatial_weight, spatial_bias, norm_weight, norm_bias, _, *layers, _, _ = inputs
    _, normal, rstd, before = output
    ctx.set_materialize_grads(False)
    ctx.has_bias = spatial_bias is not None
    ctx.save_for_backward(x, normal, rstd, before, spatial_weight, norm_weight, norm_bias, *layers)


def _block_gradients(ctx: Any, gradient: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 14
    found: list[Tensor | None] = list(operators.block_backward(gradient, *ctx.saved_tensors))
    norm_weight, norm_bias, gamma = ctx.saved_tensors[5], ctx.saved_tensors[6], ctx.saved_tensors[11]
    for index, given in ((2, ctx.has_bias), (3, norm_weight is not None), (4, norm_bias is not None)):
        found[index] = found[index] if given else None
    found[9] = None if gamma is None else found[9]
    wanted = [
        each if need else None
        for each, need in zip(found, _without_eps(ctx.needs_input_grad), strict=True)
    ]  # fmt: skip
    return (*wanted[:5], None, *wanted[5:], None, None, None)


def _without_eps(needs: tuple[bool, ...]) -> tuple[bool, ...]:
    return (*needs[:5], *needs[6 : BLOCK_INPUTS + 1])


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, scale, *_ = inputs
    ctx.set_materialize_grads(False)
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, *output[1:], weight, scale)


def _norm_gradients(ctx: Any, gradient: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 7
    of_x, of_weight, of_bias, of_scale, of_shift = operators.norm_backward(gradient, *ctx.saved_tensors)
    return of_x, of_weight, of_bias if ctx.has_bias else None, of_scale, of_shift, None, None


operators.block_training.register_autograd(_block_gradients, setup_context=_keep_block)
operators.norm_forward.register_autograd(_norm_gradients, setup_context=_keep_norm)
