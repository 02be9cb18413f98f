"""What each part of the block computes, in plain torch: any dtype (float64 for tests), any device, differentiable.

The whole block is `kernels.block.plain`.

Axes: N images, H W rows and columns, C channels, E = 4C hidden channels. Maps are (N, H, W, C).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Depthwise convolution of (N, H, W, C) by (C, 1, K, K) that keeps the size."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])
    return y.permute(0, 2, 3, 1)


def depthwise_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None, eps: float
) -> Tensor:
    """LayerNorm over the channels of `convolve`; scale and shift (C,) or None."""
    y = convolve(x, weight, bias)
    return F.layer_norm(y, y.shape[-1:], scale, shift, eps)


def turned_convolve(gradient: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
    """The gradient of the input of `convolve`, from that of its answer, plus `added`."""
    y = convolve(gradient, weight.flip(-2, -1))
    return y if added is None else y + added


def filter_gradient(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """The gradient (C, 1, K, K) of the filter of `convolve`: one correlation a tap."""
    half, (h, w) = kernel // 2, x.shape[1:3]
    padded = F.pad(x, (0, 0, half, half, half, half))
    taps = [(padded[:, i : i + h, j : j + w] * gradient).sum((0, 1, 2)) for i in range(kernel) for j in range(kernel)]
    return torch.stack(taps, -1).reshape(-1, 1, kernel, kernel)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x @ weight.T + bias), GELU by erf."""
    return F.gelu(F.linear(x, weight, bias))


def linear_residual(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """residual + keep * gamma * (x @ weight.T + bias); gamma (C,), keep (N,)."""
    y = F.linear(x, weight, bias)
    if gamma is not None:
        y = y * gamma
    if keep is not None:
        y = y * keep.to(y.dtype).view(-1, *[1] * (y.dim() - 1))
    return residual + y


def gelu_backward(
    normal: Tensor, expand: tuple[Tensor, Tensor], gradient: Tensor, project: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient before GELU, keep * gelu(...), the first one's sum over positions); project (C, E)."""
    x = F.linear(normal, *expand)
    share = 0.5 * torch.special.erfc(-x * 0.5**0.5)
    density = torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
    scale = torch.ones((), dtype=x.dtype) if keep is None else keep.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    scale = scale.to(x.device)
    gradient_before = scale * (gradient @ project) * (share + x * density)
    return gradient_before, scale * x * share, gradient_before.flatten(0, -2).sum(0)
