"""Stands for what torch records CUDA graphs with, on the CPU: what is captured is not done, and a replay does exactly that.

Operators of torch are recorded with the tensors that they were given and every number as it was. As on a GPU, what waits
for a value cannot be captured, and what nobody holds after the capture may be overwritten between two replays.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from convnext.engine import replays

WAITING = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")


class Graph(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph, and is what captures."""

    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._work: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []  # operator, its inputs, what it makes
        self._held: list[weakref.ref[Tensor]] = []
        self._own: set[int] = set()  # memory that came to be inside
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # what else is written to, and what it was
        self._free: list[Tensor] = []

    def pool(self) -> object:
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might")
        inputs = tree_map(_alias, (args, kwargs or {}))
        given = [each for each in tree_leaves(inputs) if isinstance(each, Tensor)]
        if func._schema.is_mutable or "batch_norm" in name:  # whose statistics the schema does not speak of
            for each in given:
                self._remember(each)
        answer = func(*args, **(kwargs or {}))
        places = {_memory(each) for each in given}
        made = [
            (place, each)
            for place, each in enumerate(tree_leaves(answer))
            if isinstance(each, Tensor) and _memory(each) not in places
        ]
        self._own |= {_memory(each) for _, each in made}
        self._held += [weakref.ref(each) for each in tree_leaves(answer) if isinstance(each, Tensor)]
        self._work.append((func, *inputs, [(place, _alias(each)) for place, each in made]))
        return answer

    def end(self) -> None:
        """The capture is over: nothing was done, and what nobody holds is free."""
        with torch.no_grad():
            for tensor, was in self._before.values():
                tensor.copy_(was)
        self._before.clear()
        held = {_memory(each) for ref in self._held if (each := ref()) is not None}
        made = [each for *_, some in self._work for _, each in some if each.is_floating_point()]
        self._free = [each for each in made if _memory(each) not in held]

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, made in self._work:
            answer = tree_leaves(func(*args, **kwargs))
            for place, each in made:
                each.copy_(answer[place])
        for each in self._free:
            each.fill_(torch.nan)

    def _remember(self, tensor: Tensor) -> None:
        if _memory(tensor) not in self._own and _memory(tensor) not in self._before:
            whole = tensor.new_empty(0).set_(tensor.untyped_storage())
            self._before[_memory(tensor)] = (whole, whole.clone())


@contextmanager
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    """The CPU is taken for a GPU that records; the graphs that are made inside, each with the `pool` it was given."""
    graphs: list[Any] = []

    def no_state() -> Tensor:
        raise RuntimeError("Cannot call CUDAGeneratorImpl::current_seed during CUDA graph capture.")

    @contextmanager
    def capture(graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        graph.shared, graph.stream = pool, stream
        state = torch.get_rng_state()
        try:
            with monkeypatch.context() as patch, graph:
                patch.setattr(torch, "get_rng_state", no_state)
                yield
            graphs.append(graph)
        finally:
            graph.end()
            torch.set_rng_state(state)

    stands: dict[str, Any] = {"CUDAGraph": Graph, "graph": capture, "Stream": MagicMock}
    stands |= {"device": lambda _: nullcontext(), "stream": lambda _: nullcontext()}
    stands |= {"current_stream": MagicMock(), "set_stream": lambda _: None}
    with monkeypatch.context() as patch:
        for name, value in stands.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(replays, "queued", lambda device: True)
        yield graphs


def _alias(value: Any) -> Any:
    """The same memory, which this keeps, under another object, so that the first one may go."""
    return value.detach() if isinstance(value, Tensor) else value


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
