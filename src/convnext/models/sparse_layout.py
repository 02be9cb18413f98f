"""Checkpoints of masked pre-training (FCMAE, arXiv 2301.00808): sparse convolutions under official names and layouts.

    layer                    tensor, shape                    in PyTorch
    depthwise convolution    kernel (k k, C)                  weight (C, 1, k, k)
    convolution              kernel (k k, C_in, C_out)        weight (C_out, C_in, k, k)
    linear, norm             linear.weight, ln.weight, ...    weight, ...
    all                      bias (1, C)                      bias (C)
    grn                      gamma, beta (1, E)               gamma, beta (1, 1, 1, E)

The places of a kernel are counted down each column first.
"""

import math
import re
from collections.abc import Mapping

from torch import Tensor

_WRAPPED = re.compile(r"\.(linear|ln)(?=\.(weight|bias)$)")


def from_sparse(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with dense names and shapes; a tensor that is neither sparse nor one of a GRN stays as it is."""
    dense = {}
    for key, value in state.items():
        name = _WRAPPED.sub("", key)
        if name.endswith(".kernel") and value.ndim in (2, 3):
            name, value = name.removesuffix("kernel") + "weight", _kernel(value)
        elif name.endswith(".bias") and value.ndim == 2 and len(value) == 1:
            value = value[0]
        elif name.endswith((".grn.gamma", ".grn.beta")) and value.ndim == 2:
            value = value.reshape(1, 1, 1, -1)
        dense[name] = value
    return dense


def _kernel(value: Tensor) -> Tensor:
    """(k k, C) -> (C, 1, k, k); (k k, C_in, C_out) -> (C_out, C_in, k, k). Left alone where the places make no square."""
    side = math.isqrt(len(value))
    if side * side != len(value):
        return value
    columns = value[:, None] if value.ndim == 2 else value  # (k k, C_in / groups, C_out)
    return columns.permute(2, 1, 0).unflatten(2, (side, side)).transpose(3, 2).contiguous()
