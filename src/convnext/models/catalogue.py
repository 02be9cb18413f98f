"""Every network by name with its size: what `convnext models` lists, and how a size is counted."""

from functools import cache
from typing import Any

import torch

from convnext.config import ModelConfig
from convnext.models.build import build_model
from convnext.models.profile import count_macs, count_parameters
from convnext.recipes.sizes import SIZES

CLASSES = 1000


def catalogue() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'input_size'} of every network at 1000 classes: ConvNeXts, then baselines."""
    return [
        {"name": name, "params": params, "macs": macs, "input_size": size_px}
        for name, (params, macs, size_px) in SIZES.items()
    ]


@cache
def measure(config: ModelConfig, size_px: int, *, classes: int = CLASSES) -> tuple[int, int]:
    """(parameters, MACs) of the network `config` on pictures of `size_px` a side; a fixed grid is built for them."""
    changes: dict[str, Any] = {"classes": classes}
    if "size_px" in type(config).model_fields:
        changes["size_px"] = size_px
    with torch.device("meta"):  # shapes only: no memory, no time
        model = build_model(config.model_copy(update=changes))
    return count_parameters(model), count_macs(model, (config.in_channels, size_px, size_px))
