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
        self._tables: list[Tensor] = []  # of each layer (N, chances), of all images of a step

    def at(self, step: int, slots: NDArray[np.int64]) -> Tensor:
        """(T,) on the device: what the images of (N,) `slots` get at a step, of one layer after the other."""
        generator, own = torch.Generator().manual_seed(seed_of(self.seed, step)), torch.from_numpy(slots)
        tables = [torch.rand(self.batch, layer.chances, generator=generator)[own].flatten() for layer in self.layers]
        return sent(torch.cat(tables), self.device) if tables else torch.empty(0, device=self.device)

    @contextmanager
    def of(self, drawn: Tensor) -> Iterator[None]:
        """With what `at` has drawn, inside; outside, layers draw by themselves."""
        images = len(drawn) // max(1, sum(layer.chances for layer in self.layers))
        parts = drawn.split([images * layer.chances for layer in self.layers]) if self.layers else ()
        self._tables = [part.view(images, -1) for part in parts]
        try:
            yield
        finally:
            self._tables = []
            for layer in self.layers:
                layer.drawn = None

    def give(self, images: slice) -> None:
        """To every layer the numbers of the images that come next, which are these of the step's."""
        for layer, table in zip(self.layers, self._tables, strict=True):
            layer.drawn = table[images]


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """Of torch's generators at a step; of integers, so that it is the same in every process."""
    return hash((seed, step, rank)) & 0x7FFFFFFF
