"""The block's training step on the compiled kernels: forward with the weights as they are, and every gradient.

Only x is kept for the way back, which recomputes the rest a few thousand pixels at a time, of V2 whole images.
Axes: N images, H W rows and columns, C channels, E = 4C expanded channels, K kernel. Maps are (N, H, W, C), float32.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from convnext.kernels import structs
from convnext.kernels.block import BlockWeights
from convnext.kernels.build import compiled
from convnext.kernels.cpu.library import longs, pointer, threads


def forward(weights: BlockWeights, x: Tensor, scale: Tensor | None, *, bf16: bool = False) -> Tensor:
    """x (N, H, W, C) + scale (N,) * branch(x); the same shape. The weights are float32 and contiguous.

    `bf16`: the matmuls take values rounded to bfloat16, where `library.bf16_matmuls` says that the processor has such ones.
    Raises MemoryError where memory is short, as `backward` does.
    """
    out = torch.empty_like(x)
    if x.numel():
        _call("cn_forward", weights, x, scale, bf16, [pointer(out)])
    return out


def backward(
    weights: BlockWeights, x: Tensor, scale: Tensor | None, gradient: Tensor, *, bf16: bool = False
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of the loss by x and by each of the weights, from its gradient by the output (N, H, W, C)."""
    own = weights.tensors
    if not x.numel():
        return gradient.clone(), [None if weight is None else torch.zeros_like(weight) for weight in own]
    by_x = torch.empty_like(x)
    by_weights = [None if weight is None else torch.empty_like(weight) for weight in own]
    places = structs.Gradients(*map(structs.address, (by_x, *by_weights)))
    _call("cn_backward", weights, x, scale, bf16, [pointer(gradient), ctypes.byref(places)])
    return by_x, by_weights


def _call(name: str, weights: BlockWeights, x: Tensor, scale: Tensor | None, bf16: bool, places: list[Any]) -> None:
    addresses = map(structs.address, (*weights.tensors, scale))
    (hidden, channels), kernel = weights.expand.shape, weights.spatial.shape[-1]
    described = structs.Weights(*addresses, channels, hidden, kernel, bf16, weights.eps)
    n, height, width, _ = x.shape
    call = getattr(compiled().library, name)
    if call(ctypes.byref(described), pointer(x), *places, *longs(n, height, width), threads()):
        raise MemoryError(f"no memory is left for the step of a block on {n} images of {height} x {width}")
