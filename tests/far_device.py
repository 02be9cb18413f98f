"""A device that works through a queue, without one: its tensors say that they are elsewhere and hold their values here.

What would make the host wait for such a device is noted, with the line of ours that asked for it.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

import convnext
from convnext.kernels import transfer

FAR = torch.device("meta")  # the one device that torch lets anybody stand for
SRC = Path(convnext.__file__).parent
ANSWERS = ("_local_scalar_dense", "is_nonzero", "equal")  # operators whose answer is a number on the host
SHAPES = (
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "nms",
    "bincount",
)  # ... a shape


class Far(Tensor):
    """A tensor of the far device; `near` has its values."""

    near: Tensor
    is_meta = False  # what torch has of that name has no values

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        how: dict[str, Any] = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        made = Tensor._make_wrapper_subclass(cls, near.shape, device=FAR, **how)
        made.near = near
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["near"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> "Far":
        return Far(inner["near"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the mode")

    def tolist(self) -> Any:
        _noted(QUEUES[-1], "tolist")
        return self.near.tolist()

    def new_tensor(self, values: Any, **how: Any) -> Tensor:
        return torch.tensor(values, **{"dtype": self.dtype, "device": FAR, **how})


class Queue(TorchDispatchMode):
    """Runs what is asked of the far device, and notes in `waits` what the host would wait for: (operator, line of ours)."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[str, str]] = []
        self.events: list[tuple[str, int]] = []  # ('record' or 'synchronize', number of the event), as they came
        self.locked: list[Tensor] = []  # page-locked
        self.copies: list[str] = []  # between host and device, with the operator, whether they wait or not

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        given = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        was_far = any(isinstance(each, Far) for each in given)
        near_args, near_kwargs = tree_map(lambda x: x.near if isinstance(x, Far) else x, (args, kwargs))
        far = was_far
        if near_kwargs.get("device") is not None:
            far = torch.device(near_kwargs["device"]) == FAR
            near_kwargs["device"] = torch.device("cpu")
        locked = bool(near_kwargs.pop("pin_memory", False))
        if name == "_to_copy" and far != was_far:
            self._copied(name, given[0], None)
        elif name == "copy_":
            self._copied(name, given[1], given[0])
        elif was_far and (name in ANSWERS or name in SHAPES):
            _noted(self, name)
        elif was_far and name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            if any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]):
                _noted(self, name)
        elif was_far and name == "repeat_interleave" and isinstance(args[-1], Tensor) and "output_size" not in kwargs:
            _noted(self, name)
        made = func(*near_args, **near_kwargs)
        if locked:
            self.locked.append(made)
        if not far:
            return made
        made = tree_map(lambda x: Far(x) if isinstance(x, Tensor) else x, made)
        return return_and_correct_aliasing(func, args, kwargs, made)

    def lock(self, tensor: Tensor) -> Tensor:
        """`tensor` in page-locked memory."""
        if self._is_locked(tensor):
            return tensor
        self.locked.append(tensor.clone())
        return self.locked[-1]

    def built(self, values: Any, *, device: Any = None, **how: Any) -> Tensor:
        """`torch.tensor`, whose copy to the device waits."""
        near = _tensor(values, **how)
        if device is None or torch.device(device) != FAR:
            return near
        _noted(self, "tensor")
        return Far(near)

    def _is_locked(self, tensor: Tensor) -> bool:
        return any(_memory(each) == _memory(tensor) for each in self.locked)

    def _copied(self, name: str, source: Tensor, target: Tensor | None) -> None:
        """A copy between host and device takes its place in the queue where the host's side is page-locked."""
        if target is None or isinstance(source, Far) != isinstance(target, Far):
            self.copies.append(name)
            host = target if isinstance(source, Far) else source
            if host is None or not self._is_locked(host):
                _noted(self, f"{name} from the device" if isinstance(source, Far) else f"{name} to the device")


_tensor = torch.tensor
QUEUES: list[Queue] = []


@contextmanager
def far_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """The far device, for `torch.device('meta')`, and what it notes."""
    queue = Queue()

    class Event:
        def __init__(self, **_: object) -> None:
            self.number = len({number for _, number in queue.events})

        def record(self, stream: object) -> None:
            queue.events.append(("record", self.number))

        def synchronize(self) -> None:
            queue.events.append(("synchronize", self.number))

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "queued", lambda device: device == FAR)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda device: None)
        patch.setattr(Tensor, "pin_memory", lambda self: queue.lock(self))
        patch.setattr(torch, "tensor", queue.built)
        for kept in (transfer.constant, transfer._brought):
            kept.cache_clear()
        QUEUES.append(queue)
        try:
            with queue:
                yield queue
        finally:
            QUEUES.pop()
            for kept in (transfer.constant, transfer._brought):
                kept.cache_clear()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _noted(queue: Queue, what: str) -> None:
    ours = [frame for frame in traceback.extract_stack() if SRC in Path(frame.filename).parents]
    place = f"{Path(ours[-1].filename).relative_to(SRC)}: {ours[-1].name}" if ours else "outside"
    queue.waits.append((what, place))
