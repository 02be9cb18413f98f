"""What the loop asks of a task; `tasks/` holds the real ones."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnext.engine.distributed import World
from convnext.engine.given import Prepared


class Task(Protocol):
    """One kind of learning: its network, its batches, its loss and its score."""

    model: nn.Module
    steps_per_epoch: int
    metric: str  # the key of `evaluate` that decides which weights are best; larger is better
    chance_loss: float  # the loss of a network that has learnt nothing
    smaller: str  # what makes its images smaller, for when memory runs out: 'a smaller --size (input.size_px)'
    varies: str  # what of a step's work depends on values, which no CUDA graph holds; '' where only shapes decide
    exact: bool  # whether the gradients of micro-batches add up to that of the batch, as far as rounding goes

    def slots(self, world: World) -> NDArray[np.int64]:
        """Of the images of a step, those that this process takes, in the order in which it does.

        Raises ConvNeXtError for a batch that the processes cannot share.
        """
        ...

    def batches(self, steps: range, world: World) -> Iterator[Any]:
        """The raw batches of these steps, this process's share of each."""
        ...

    def prepare(self, batch: Any, *, step: int, slots: NDArray[np.int64], device: torch.device) -> Prepared:
        """A raw batch, which is that of `slots`, brought to the device, augmented and with its targets."""
        ...

    def loss(self, network: nn.Module, piece: Any) -> Tensor | Mapping[str, Tensor]:
        """Mean loss over a prepared (micro-)batch; or its parts by name, always the same ones: their sum is the loss."""
        ...

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Metrics of `model` on the held-out part; 'loss' is one of them."""
        ...

    def names(self, batch: Any) -> list[str]:
        """The files of a raw batch, for messages."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must carry so that it alone can predict, e.g. class names."""
        ...
