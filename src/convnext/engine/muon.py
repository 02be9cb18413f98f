"""Muon where torch's own step does not do: in a CUDA graph, and of matrices of which each process holds some rows.

There the momentum lies in parts as the weights do. To be orthogonalised a matrix has to be in one place: process r takes
matrices r, r + N, ... of a step of N processes, so that none does twice what one has done, and sends their rows back.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from convnext.engine.parts import own


class RecordedMuon(torch.optim.Muon):
    """torch.optim.Muon whose rates are tensors that a recorded step reads; the same step, to rounding."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        assert closure is None
        for group in self.param_groups:
            kept = 1 - group["lr"].double() * group["weight_decay"]  # rounded once, as a number of the host would be
            for value in group["params"]:
                if value.grad is not None:
                    rows = _orthogonal(_momentum(self.state[value], group, value), group)
                    value.mul_(kept).sub_(rows.mul_(group["lr"]))


class ShardedMuon(torch.optim.Muon):
    """torch.optim.Muon whose parameters are DTensors in rows; the same step, to rounding."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients. All processes call it, with gradients of the same parameters."""
        assert closure is None
        for group in self.param_groups:
            given = [value for value in group["params"] if value.grad is not None]
            for first in range(0, len(given), dist.get_world_size()):
                self._round(group, given[first : first + dist.get_world_size()])

    def _round(self, group: dict[str, Any], values: list[Tensor]) -> None:
        """One matrix for each process, or fewer."""
        rank, updates = dist.get_rank(), [_momentum(self.state[value], group, value) for value in values]
        gathered = [
            _gather(own(update), value.shape, to)
            for to, (update, value) in enumerate(zip(updates, values, strict=True))
        ]
        mine = _orthogonal(gathered[rank], group) if rank < len(values) else None
        for source, value in enumerate(values):
            rows = _scatter(mine if source == rank else None, own(value), value.shape, source)
            own(value).mul_(1 - group["lr"] * group["weight_decay"]).add_(rows, alpha=-group["lr"])


def _momentum(state: dict[str, Tensor], group: dict[str, Any], value: Tensor) -> Tensor:
    """What is to be orthogonalised; of a matrix in parts each process its rows."""
    momentum, gradient = group["momentum"], value.grad
    assert gradient is not None
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(gradient)
    state["momentum_buffer"].lerp_(gradient, 1 - momentum)
    return gradient.lerp(state["momentum_buffer"], momentum)


def _orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """What Muon would subtract at a rate of 1: a step of its own on zeros, without momentum, is the negative of that."""
    stand_in = nn.Parameter(torch.zeros_like(matrix))
    stand_in.grad = matrix
    names = ("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")
    how: dict[str, Any] = {name: group[name] for name in names}
    torch.optim.Muon([stand_in], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, **how).step()
    return -stand_in.detach()


def _rows(shape: torch.Size) -> int:
    """Of the largest part: the first processes have so many, one may have fewer, the last ones none."""
    return -(-shape[0] // dist.get_world_size())


def _gather(part: Tensor, shape: torch.Size, to: int) -> Tensor:
    """All rows in process `to`; elsewhere nothing to use."""
    rows = part.new_zeros(_rows(shape), shape[1])
    rows[: len(part)] = part
    found = [torch.empty_like(rows) for _ in range(dist.get_world_size())] if dist.get_rank() == to else None
    dist.gather(rows, found, dst=to)
    return torch.cat(found)[: shape[0]] if found else rows


def _scatter(matrix: Tensor | None, part: Tensor, shape: torch.Size, source: int) -> Tensor:
    """The rows of `matrix`, which process `source` has, that belong to `part`."""
    rows = part.new_empty(_rows(shape), shape[1])
    cut = None
    if matrix is not None:
        every = matrix.new_zeros(_rows(shape) * dist.get_world_size(), shape[1])
        every[: len(matrix)] = matrix
        cut = [each.contiguous() for each in every.split(_rows(shape))]
    dist.scatter(rows, cut, src=source)
    return rows[: len(part)]
