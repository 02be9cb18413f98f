"""Counting parameters and operations as the tables of arXiv 2201.03545 do for detectors and segmenters.

mmcv's rule: multiply-accumulates of convolutions (also transposed), linears and the products of attention, and for every
element one for a convolution's bias, one for a ReLU, one read by a pooling layer, two for a batch norm. A linear's bias, GELU,
LayerNorm and everything that is no module are free. Without those extras the count is `macs`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convnext.tasks.convolution import Convolution


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image."""

    params: int
    macs: int  # multiply-accumulates alone
    published: int  # by mmcv's rule, as in the paper's tables


@contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """{'macs', 'extras'} of everything that `model`'s parts do inside the block, known once it is left.

    'extras' is what mmcv's rule adds. No gradients are kept.
    """
    count = {"macs": 0, "extras": 0}

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        count["extras"] += _EXTRAS[type(module)](module, inputs[0], output)

    hooks = [module.register_forward_hook(add) for module in model.modules() if type(module) in _EXTRAS]
    flops = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), flops:
            yield count
    finally:
        for hook in hooks:
            hook.remove()
    count["macs"] = flops.get_total_flops() // 2  # it counts a multiplication and an addition as two


def _bias(module: Any, x: Tensor, y: Tensor) -> int:
    return 0 if module.bias is None else y.numel()


def _per_output(times: int) -> Callable[[Any, Tensor, Tensor], int]:
    return lambda module, x, y: times * y.numel()


def _per_input(module: Any, x: Tensor, y: Tensor) -> int:
    return x.numel()


_EXTRAS: dict[type, Callable[[Any, Tensor, Tensor], int]] = {
    nn.Conv2d: _bias,
    Convolution: _bias,
    nn.ConvTranspose2d: _bias,
    nn.ReLU: _per_output(1),
    nn.BatchNorm2d: _per_output(2),
    nn.SyncBatchNorm: _per_output(2),  # mmcv itself leaves it out; the tables fit only with it counted as a batch norm
    nn.MaxPool2d: _per_input,
    nn.AvgPool2d: _per_input,
}
