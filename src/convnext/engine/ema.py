"""The exponential moving average of the weights: evaluated beside the raw ones, never trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convnext.errors import CheckpointError


class Ema:
    """float32 averages of a model's parameters, and copies of its other saved state, such as BatchNorm's statistics.

    average += (1 - decay) * (weight - average) after every optimizer step. With `warmup` the decay of step t is at most
    (1 + t) / (10 + t), so that a short run is not averaged with its random start.
    The model must already be on its device: the averages are kept beside it.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = False):
        self.decay, self.warmup = decay, warmup
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._weights = list(parameters.values())
        saved = model.state_dict(keep_vars=True)
        self._others = {name: value for name, value in saved.items() if name not in parameters}
        self._averages = {name: value.detach().to(torch.float32, copy=True) for name, value in parameters.items()}
        self._copies = {name: value.detach().clone() for name, value in self._others.items()}

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Take in a share, 1 - decay, of the weights as they are after an optimizer step; a () tensor on their device counts
        as it is when the work is done."""
        weights = [weight.detach().float() for weight in self._weights]  # float32 already: the same tensor
        averages = list(self._averages.values())
        torch._foreach_lerp_(averages, weights, [share] * len(weights) if isinstance(share, Tensor) else share)
        for name, value in self._others.items():
            self._copies[name].copy_(value)

    def share_at(self, step: int) -> float:
        """What `update` takes in after optimizer step `step`, counted from 0."""
        return 1 - self.decay_at(step)

    def decay_at(self, step: int) -> float:
        """The weight of the past at `step`."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[nn.Module]:
        """`model` with the averages as its weights; its own come back, to the bit, at the end."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        _fill(model, self.tensors())
        try:
            yield model
        finally:
            _fill(model, own)

    def tensors(self) -> dict[str, Tensor]:
        """The averages under the model's own names; not copies."""
        return {**self._averages, **self._copies}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave. Raises CheckpointError unless names and shapes are exactly the same."""
        mine = self.tensors()
        wrong = sorted(set(mine) ^ set(tensors)) or [n for n in mine if mine[n].shape != tensors[n].shape]
        if wrong:
            raise CheckpointError(f"The EMA weights do not fit this model; first at '{wrong[0]}'.")
        for name, value in mine.items():
            value.copy_(tensors[name])


@torch.no_grad()
def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy in place: whoever holds the parameters (optimizer, compiled code, DDP) keeps holding them."""
    for name, value in model.state_dict().items():
        if name in tensors:
            value.copy_(tensors[name])
