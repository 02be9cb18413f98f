"""Parameters and multiply-accumulates of a network, by the counting rule of arXiv 2201.03545.

MACs are those of Conv2d, Linear and the two matmuls of attention. Biases, norms, activations, pooling, layer
scale and residual additions are not counted: so ResNet-50 has the 4.09 G of the paper's Table 10.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from convnext.config import ModelConfig
from convnext.models.build import build_model


def count_parameters(model: nn.Module) -> int:
    """Number of trained values, head included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward pass of one image of `size` (channels, height, width in pixels).

    Only shapes are computed, wherever the model lies: no memory, and the model is left as it was.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # a batch of one image: batch norms must not ask for statistics
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            functional_call(model, shapes, (torch.empty(1, *size, device="meta"),))
    finally:
        for module, training in modes:
            module.training = training
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


@cache
def measure(config: ModelConfig, size_px: int) -> tuple[int, int]:
    """(parameters, MACs) of the network `config` on one image of `size_px` a side; a fixed grid is built for it."""
    changes: dict[str, Any] = {"size_px": size_px} if "size_px" in type(config).model_fields else {}
    with torch.device("meta"):  # shapes only: no memory, no time
        model = build_model(config.model_copy(update=changes))
    return count_parameters(model), count_macs(model, (config.in_channels, size_px, size_px))
