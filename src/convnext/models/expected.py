"""The tensors that a network must have, and a refusal that names those that differ."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError
from convnext.models.convnext import ConvNeXt


@lru_cache(maxsize=64)
def expected_tensors(config: ConvNeXtConfig, *, dense: bool = False) -> Mapping[str, Tensor]:
    """Names and shapes of every tensor of `config`, without memory; `dense`: a norm for each stage, no norm and head."""
    with torch.device("meta"):
        state = ConvNeXt(config).state_dict()
        if dense:
            state = {name: value for name, value in state.items() if not name.startswith(("norm.", "head."))}
            for s, width in enumerate(config.widths):
                state |= {f"norms.{s}.{leaf}": torch.empty(width) for leaf in ("weight", "bias")}
        return MappingProxyType(state)


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError that names what is missing, what is too much, and what has another shape."""
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    found = {"missing": missing, "not in the model": extra, "of another shape": misshapen}
    parts = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in found.items() if keys]
    if parts:
        raise CheckpointError(f"{'; '.join(parts)}. Give the weights of exactly this model.")


def _listed(keys: list[str], most: int = 5) -> str:
    """'a, b, c and 12 more'"""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
