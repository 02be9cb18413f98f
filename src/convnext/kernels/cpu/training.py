"""The block's training step on the compiled kernels: forward with the weights as they are, and every gradient.

Only x is kept for the way back, which recomputes the rest a few thousand pixels at a time.
Axes: N images, H W rows and columns, C channels, E = 4C expanded channels, K kernel. Maps are (N, H, W, C), float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convnext.errors import TrainingError
from convnext.kernels.cpu.library import describe, library_or_refuse, longs, pointer, threads

# spatial (C, 1, K, K), its bias (C,), norm weight and bias (C,), expand (E, C), its bias (E,), project (C, E), its bias
# (C,), gamma (C,) or None
Weights = Sequence[Tensor | None]


def forward(weights: Weights, x: Tensor, scale: Tensor | None, eps: float) -> Tensor:
    """x (N, H, W, C) + scale (N,) * branch(x); the same shape."""
    out = torch.empty_like(x)
    if x.numel():
        _call("cn_forward", weights, x, scale, eps, [pointer(out)])
    return out


def backward(
    weights: Weights, x: Tensor, scale: Tensor | None, eps: float, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of the loss by x and by each of the weights, from its gradient by the output (N, H, W, C)."""
    if not x.numel():
        return gradient.clone(), [None if weight is None else torch.zeros_like(weight) for weight in weights]
    by_x = torch.empty_like(x)
    by_weights = [None if weight is None else torch.empty_like(weight) for weight in weights]
    places = describe([by_x, *by_weights], 0.0)
    _call("cn_backward", weights, x, scale, eps, [pointer(gradient), places])
    return by_x, by_weights


def _call(name: str, weights: Weights, x: Tensor, scale: Tensor | None, eps: float, places: list[Any]) -> None:
    spatial, expand = weights[0], weights[4]
    assert spatial is not None and expand is not None
    described = describe([*weights, scale], eps, spatial.shape[0], expand.shape[0], spatial.shape[-1])
    n, height, width, _ = x.shape
    call = getattr(library_or_refuse(), name)
    if call(described, pointer(x), *places, *longs(n, height, width), threads()):
        raise TrainingError(f"no memory is left for the step of a block on {tuple(x.shape)}: use a smaller --batch.")
