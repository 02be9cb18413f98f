"""How the operators behave for torch: shapes without data, and their gradients.

Importing this file completes `operators`; the package does.
"""

from typing import Any

import torch
from torch import Tensor

from convnext.kernels.gpu import operators


@operators.block_inference.register_fake
def _inference_shapes(x: Tensor, *others: Any) -> Tensor:
    return _like_map(x)


@operators.block_training.register_fake
def _training_shapes(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights, (_, dtype, again) = operators.taken(others)
    (n, c, h, w), hidden = x.shape, weights.expand.shape[0]
    before = x.new_empty(0, dtype=dtype) if again else x.new_empty((n, h, w, hidden), dtype=dtype)
    return (
        _like_map(x),
        x.new_empty((n, h, w, c), dtype=dtype),
        x.new_empty((n, h, w), dtype=torch.float32),
        before,
    )


@operators.block_backward.register_fake
def _backward_shapes(gradient: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    weights, _ = operators.taken(others[3:])
    shapes = [(0,) if each is None else each.shape for each in weights.tensors]
    shapes[1] = weights.spatial.shape[:1]  # the bias's gradient comes in any case
    return [_like_map(x), *(x.new_empty(shape, dtype=weights.expand.dtype) for shape in shapes)]


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
    x, *given = inputs
    weights, (keep, *_) = operators.taken(tuple(given))
    ctx.set_materialize_grads(False)
    ctx.eps, ctx.inputs = weights.eps, len(inputs)
    ctx.save_for_backward(x, *output[1:], keep, *weights.tensors)


def _block_gradients(ctx: Any, gradient: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * ctx.inputs
    *made, keep = ctx.saved_tensors[:5]
    tensors = ctx.saved_tensors[5:]
    found = operators.block_backward(gradient, *made, *tensors, ctx.eps, keep)
    wanted = [
        each if need and given is not None else None
        for each, need, given in zip(found, ctx.needs_input_grad, (made[0], *tensors), strict=False)
    ]
    return (*wanted, *[None] * (ctx.inputs - len(wanted)))


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
