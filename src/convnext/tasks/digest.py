"""What a text or weights are known again by, the same on every machine: runs and results keep it of what they came from."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(text: str) -> str:
    """16 digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """16 digits of a hash of the names and values of all tensors."""
    found = hashlib.blake2b()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
