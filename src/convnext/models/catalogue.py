"""Every network by name with its size: what `convnext models` lists."""

from typing import Any

import torch

from convnext.models.build import build_model
from convnext.models.profile import count_macs, count_parameters
from convnext.recipes.architectures import ARCHITECTURES

INPUT_PX = 224
CLASSES = 1000


def catalogue() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'input_size'} of every network, at 1000 classes and 224 px."""
    rows = []
    for name, config in ARCHITECTURES.items():
        with torch.device("meta"):  # shapes only: no memory, no time
            model = build_model(config.model_copy(update={"classes": CLASSES}))
        macs = count_macs(model, (config.in_channels, INPUT_PX, INPUT_PX))
        rows.append({"name": name, "params": count_parameters(model), "macs": macs, "input_size": INPUT_PX})
    return rows
