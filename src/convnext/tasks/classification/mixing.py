"""Weights between two networks: their mix (WiSE-FT, arXiv 2109.01903), and which is kept."""

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def mixed(frozen: Tensors, tuned: Tensors, share: float) -> dict[str, Tensor]:
    """(1 - share) * frozen + share * tuned, tensor by tensor, in float64 between; both ends come back to the bit."""
    if share in (0, 1):
        return dict(tuned if share else frozen)
    return {
        name: torch.lerp(value.double(), tuned[name].double(), share).to(value.dtype)
        if value.is_floating_point()
        else tuned[name]
        for name, value in frozen.items()
    }


def best_share(scores: Mapping[float, Mapping[str, float]], metric: str) -> float:
    """The share of the fine-tuned weights that is kept: the highest `metric`; ties go to the lower loss, then to less."""
    return max(scores, key=lambda share: (scores[share][metric], -scores[share]["loss"], -share))


def name_of(share: float) -> str:
    """What people call a share: 'probe', 'finetuned' or 'mixed'."""
    return {0.0: "probe", 1.0: "finetuned"}.get(share, "mixed")
