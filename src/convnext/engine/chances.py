"""What layers draw in training: for every slot of a step's batch a number that depends on (seed, step, layer, slot) alone.

Whoever computes a slot, in whatever micro-batch, its image is treated alike. Axes: N images, B slots of the batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnext.kernels.transfer import sent


@runtime_checkable
class Chancy(Protocol):
    """A layer that draws for each image."""

    chances: int  # numbers an image; 0: it draws none
    drawn: Tensor | None  # (N, chances) in [0, 1), of the images that come next; None: it draws by itself


class Chances:
    """The numbers of all layers of a network, in the order of its modules."""

    def __init__(self, network: nn.Module, *, batch: int, seed: int):
        self.layers = [module for module in network.modules() if isinstance(module, Chancy) and module.chances]
        self.batch, self.seed = batch, seed
        self.device = next(network.parameters()).device
        self._tables: list[Tensor] = []  # of each layer (B, chances), on the CPU

    @contextmanager
    def of(self, step: int) -> Iterator[None]:
        """Those of a step, inside; outside, layers draw by themselves."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, step))
        self._tables = [torch.rand(self.batch, layer.chances, generator=generator) for layer in self.layers]
        try:
            yield
        finally:
            self._tables = []
            for layer in self.layers:
                layer.drawn = None

    def give(self, slots: NDArray[np.int64]) -> None:
        """To every layer the numbers of the images that come next, which are those of (N,) `slots`."""
        if not self.layers:
            return
        own = torch.from_numpy(slots)
        rows = sent(torch.cat([table[own].flatten() for table in self._tables]), self.device)
        sizes = [len(own) * layer.chances for layer in self.layers]
        for layer, part in zip(self.layers, rows.split(sizes), strict=True):
            layer.drawn = part.view(len(own), layer.chances)


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """Of torch's generators at a step; of integers, so that it is the same in every process."""
    return hash((seed, step, rank)) & 0x7FFFFFFF
