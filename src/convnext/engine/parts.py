"""Tensors of which each process may hold a part: DTensors, told by what they can do: their import takes seconds."""

from typing import Any

from torch import Tensor


def is_part(tensor: Any) -> bool:
    """Whether this process holds a part of `tensor` alone."""
    return hasattr(tensor, "full_tensor")


def own(tensor: Any) -> Tensor:
    """What this process holds of `tensor`: all of a plain one."""
    found: Tensor = tensor.to_local() if is_part(tensor) else tensor
    return found


def whole(tensor: Any) -> Tensor:
    """All of `tensor`, in every process, which all have to ask."""
    found: Tensor = tensor.full_tensor() if is_part(tensor) else tensor
    return found
