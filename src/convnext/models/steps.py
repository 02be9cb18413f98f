"""Every step of the roadmap with its size, as `convnext roadmap` prints it."""

from functools import cache
from typing import Any

import torch

from convnext.config import RoadmapConfig
from convnext.models.build import build_model
from convnext.models.profile import count_macs, count_parameters
from convnext.recipes.roadmap import Regime, roadmap

INPUT_PX = 224


def rows(regime: Regime = "t") -> list[dict[str, Any]]:
    """{'step', 'params', 'macs', 'paper_gflops', 'paper_top1'} of the 17 rows in order, at 224 px and 1000 classes.

    'macs' is in units of one, 'paper_gflops' in 1e9 and as printed, 'paper_top1' in percent.
    Raises ConvNeXtError for a regime that is neither 't' nor 'b'.
    """
    found = []
    for step in roadmap(regime):
        params, macs = size(step.config, INPUT_PX)
        sizes = {"step": step.name, "params": params, "macs": macs}
        found.append({**sizes, "paper_gflops": step.paper_gflops, "paper_top1": step.paper_top1})
    return found


def size(config: RoadmapConfig, input_px: int) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one picture of `input_px` a side)."""
    return _size(config.model_copy(update={"name": ""}), input_px)


@cache
def _size(config: RoadmapConfig, input_px: int) -> tuple[int, int]:
    with torch.device("meta"):  # shapes only: no memory, no time
        model = build_model(config)
    return count_parameters(model), count_macs(model, (config.in_channels, input_px, input_px))
