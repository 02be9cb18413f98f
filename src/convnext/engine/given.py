"""What goes into a training step and what comes out of it: tensors alone, but for the sizes, so that a step can be replayed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Prepared(Protocol):
    """A batch on its device, ready for the network, that can be cut into micro-batches."""

    def __len__(self) -> int: ...

    def split(self, size: int) -> Sequence[Any]:
        """Pieces of at most `size` images, in order."""
        ...

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds, itself and no copies."""
        ...


# The mean over the images that it is given; or, by name, the parts whose sum that is.
Loss = Callable[[nn.Module, Any], Tensor | Mapping[str, Tensor]]


@dataclass(frozen=True)
class Given:
    """All that makes one step another than the next of its shape, but for the learning rates: those the optimizers hold."""

    batch: Prepared
    micro: int  # images of a forward pass
    drawn: Tensor  # (T,) what layers draw for the images; see `Chances.at`
    share: float | Tensor  # of the weights that the EMA takes in; a () tensor where steps are recorded

    def tensors(self) -> tuple[Tensor, ...]:
        """What a recorded step has to be given anew."""
        numbers = (self.share,) if isinstance(self.share, Tensor) else ()
        return *self.batch.tensors(), self.drawn, *numbers

    def shape(self) -> object:
        """What must be equal for a recorded step to serve another."""
        return self.micro, tuple((each.shape, each.stride(), each.dtype, each.device) for each in self.tensors())

    def fill(self, other: "Given") -> None:
        """Take the values of another of this shape."""
        for mine, its in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(its)


@dataclass(frozen=True)
class Learnt:
    """What one step had to learn from, before it; tensors that are not yet waited for."""

    losses: Tensor  # (1 + P,) float32 or wider: the mean loss, then its P parts; in one piece, so one look fetches all
    parts: tuple[str, ...]  # their names
    norm: Tensor | None  # () of the gradient, with clipping on

    def copied(self) -> "Learnt":
        """The same in memory of its own."""
        return Learnt(self.losses.clone(), self.parts, None if self.norm is None else self.norm.clone())


def summed(loss: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The () loss, of which a task may have named the parts."""
    return loss if isinstance(loss, Tensor) else torch.stack(list(loss.values())).sum()
