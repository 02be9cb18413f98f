"""The matmuls of wide blocks by torch's own library, with a kernel of ours for what its epilogue cannot do.

Each function answers as the one of the same name in `gemm`, and rounds once more: the library's answer is in the dtype of
its operands. The library adds the bias itself. Its GELU would be the one by tanh (`torch._addmm_activation` on a GPU): another
network.
"""

import torch
from torch import Tensor

from convnext.kernels.gpu import triton_pointwise as kernels
from convnext.kernels.gpu.tuning import Setting, launch, size_class

RUNS: tuple[Setting, ...] = ({"block": 1024, "num_warps": 4}, {"block": 2048, "num_warps": 4})  # values a program
PATCHES: tuple[Setting, ...] = tuple(  # positions and channels
    {"lines": lines, "block": block, "num_warps": 4} for lines, block in ((16, 128), (8, 256), (32, 64))
)
STRIPE = 128  # positions that one program of `apply_derivative` takes and sums, patch by patch


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
    """gelu(x @ weight.T + bias), and what stood before GELU where `keep`. x (..., C), weight (E, C), bias (E,)."""
    before = _linear(x, weight, bias)
    answer = torch.empty_like(before)
    count = before.numel()
    arguments = {"before": before, "answer": answer, "count": count, "fast": x.dtype != torch.float32}
    key = (size_class(count), x.dtype)
    launch(kernels.apply_gelu, lambda s: -(-count // s["block"]), RUNS, key, x, arguments)
    return answer, before if keep else None


def linear_residual(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor | None, keep: Tensor | None, residual: Tensor
) -> Tensor:
    """residual + keep * gamma * (x @ weight.T + bias), in the dtype of `residual` (N, H, W, C).

    x (N, H, W, E), weight (C, E), bias and gamma (C,), keep (N,) float32: one factor a sample.
    """
    branch = _linear(x, weight, bias)
    answer = torch.empty_like(residual)
    channels, positions = branch.shape[-1], branch.numel() // branch.shape[-1]
    arguments = {
        "branch": branch, "gamma": gamma, "kept": keep, "residual": residual, "answer": answer, "positions": positions,
        "wide": channels, "area": positions // x.shape[0], "scaled": gamma is not None, "drops": keep is not None,
    }  # fmt: skip
    key = (size_class(positions), channels, x.dtype, residual.dtype)

    def programs(setting: Setting) -> int:
        return -(-positions // setting["lines"]) * -(-channels // setting["block"])

    launch(kernels.add_residual, programs, PATCHES, key, x, arguments)
    return answer


def gelu_backward(
    normal: Tensor,
    expand: tuple[Tensor, Tensor],
    before: Tensor | None,
    gradient: Tensor,
    project: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient before GELU, keep * gelu(before), the first one's sum over positions as (E,) float32).

    normal and gradient (N, H, W, C), expand as ((E, C), (E,)), project (C, E) with layer scale in it; `before` is
    computed again where it is None.
    """
    wide, positions = project.shape[1], gradient.numel() // gradient.shape[-1]
    if before is None:
        before = _linear(normal, *expand)
    push = torch.mm(gradient.flatten(0, -2), project)
    answer, hidden = torch.empty_like(before), torch.empty_like(before)
    stripes = -(-positions // STRIPE)
    sums = torch.empty((stripes, wide), device=gradient.device)
    arguments = {
        "push": push, "before": before, "kept": keep, "answer": answer, "hidden": hidden, "sums": sums,
        "positions": positions, "wide": wide, "area": positions // gradient.shape[0], "stripe": STRIPE,
        "drops": keep is not None, "fast": gradient.dtype != torch.float32,
    }  # fmt: skip
    key = (size_class(positions), wide, gradient.dtype)
    launch(kernels.apply_derivative, lambda s: stripes * -(-wide // s["block"]), PATCHES, key, gradient, arguments)
    return answer, hidden, sums.sum(0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `nn.Linear`, on rows laid one below the other: the form in which torch asks cuBLASLt to add the bias itself."""
    rows = torch.addmm(bias.to(x.dtype), x.flatten(0, -2), weight.t())
    return rows.view(*x.shape[:-1], weight.shape[0])
