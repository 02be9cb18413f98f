"""Each process keeps a part of the weights, the gradients, the optimizer's states and the EMA weights: FSDP2 of torch.

Blocks are the units: the weights of a block are gathered in the forward and the backward pass when it is their turn, and
forgotten again. They are gathered as they are kept, in float32, and autocast computes in what the recipe names: the
losses are those of DistributedDataParallel, to rounding. For large networks: parts of a small one are not worth sending.
"""

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from convnext.engine import checkpoint, launcher, pieces
from convnext.engine.parts import is_part, whole
from convnext.integrity import OPTIMIZER

_UNIT = re.compile(r"(^|\.)blocks\.\d+$")


class Sharding:
    """A network in parts, and a copy that has its weights only while somebody needs all of them."""

    def __init__(self, model: nn.Module, *, compiled: bool):
        """Cut `model`, which is on its device, in place; `compiled`: its units by torch.compile."""
        # Blocks may return views. Nothing here changes one in place, which alone is what torch warns of.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        self.model: Any = model
        self._copy = copy.deepcopy(model).eval().requires_grad_(False)
        self._empty()
        model.to(memory_format=torch.contiguous_format)  # what fully_shard takes
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for name, module in model.named_modules():
            if _UNIT.search(name):
                if compiled:
                    module.compile()
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        limit = timedelta(seconds=launcher.PATIENCE_S)
        self.group: Any = dist.new_group(backend="gloo", timeout=limit)  # of the threads that write

    def exchange(self, *, now: bool) -> None:
        """Whether the next backward pass sends its gradients; else they are added up here, whole."""
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(now)

    def agree(self, tensors: Mapping[str, Tensor]) -> None:
        """Give every process what the first has of those that are in no parts, such as the statistics of batch norms."""
        for name, value in tensors.items():
            if not is_part(value) and not name.startswith(OPTIMIZER):  # whose counts of steps are the same
                dist.broadcast(value.detach(), 0)

    @contextmanager
    def whole(self, tensors: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The network with all of `tensors`, by its own names, in every process, ready to evaluate."""
        self.agree(tensors)
        with torch.no_grad():
            for name, parameter in self._copy.named_parameters():
                value = whole(tensors[name].detach()).to(parameter.dtype)
                layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
                parameter.data = value.contiguous(memory_format=layout)
            for name, buffer in self._copy.named_buffers():
                if name in tensors:
                    buffer.copy_(tensors[name])
        try:
            yield self._copy
        finally:
            self._empty()

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All of `tensors` on the host of the first process, one after the other; nothing in the others."""
        found = {}
        for name, value in tensors.items():
            every = whole(value.detach())
            if dist.get_rank() == 0:
                found[name] = every.cpu()
        return found

    def read(self, path: Path, mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint, in one file or several, of which each process takes what it holds of `mine`.

        Raises CheckpointError for a damaged one.
        """
        if path.is_dir():
            return pieces.load(path, mine, group=self.group)
        return {name: _part(value, mine.get(name)) for name, value in checkpoint.read(path)[0].items()}

    def _empty(self) -> None:
        for parameter in self._copy.parameters():
            parameter.data = parameter.data.new_empty(0)


def _part(value: Tensor, mine: Tensor | None) -> Tensor:
    """Of `value`, which every process has, what this one holds of `mine`. Where they do not fit the caller says so."""
    if not isinstance(mine, DTensor) or mine.shape != value.shape:
        return value
    value = value.to(mine.device)
    return distribute_tensor(value, mine.device_mesh, mine.placements, src_data_rank=None)
