"""Values on their way to a device and back, without the host waiting for the device.

A GPU works through a queue. A copy from or to ordinary memory waits until everything in the queue is done; one from or to
page-locked memory takes its place in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

What = TypeVar("What")
_ALIGNED = 16  # bytes: where a tensor of any dtype may begin


def queued(device: torch.device) -> bool:
    """Whether `device` works through a queue and knows page-locked memory: one place to say so, for tests without one."""
    return device.type == "cuda"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; the host does not wait for it."""
    if queued(device) and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # as it is where it is page-locked already
    return tensor.to(device, non_blocking=True)


def sent_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """`tensors`, of the host, on `device`: in one copy where that works through a queue, and the host does not wait."""
    if not queued(device):
        return [tensor.to(device) for tensor in tensors]
    packed = torch.empty(_places(tensors)[-1], dtype=torch.uint8, pin_memory=True)
    for view, tensor in zip(_views(packed, tensors), tensors, strict=True):
        view.copy_(tensor)
    return _views(packed.to(device, non_blocking=True), tensors)


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """(B,) uint8 on their device: what `unpacked` makes `tensors` of again, so that one copy brings all of them."""
    held = torch.zeros(_places(tensors)[-1], dtype=torch.uint8, device=tensors[0].device)
    for view, tensor in zip(_views(held, tensors), tensors, strict=True):
        view.copy_(tensor)
    return held


def unpacked(held: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that `packed` was given, of shapes and dtypes as `like`, where `held` is now."""
    return _views(held, like)


def _places(tensors: Sequence[Tensor]) -> list[int]:
    """Where each begins in their bytes, and where the last ends."""
    return [0, *accumulate(-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors)]


def _views(held: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """(B,) bytes as tensors of these shapes and dtypes."""
    starts = zip(_places(like), like, strict=False)
    return [held[first : first + each.nbytes].view(each.dtype).view(each.shape) for first, each in starts]


def listed(values: Sequence[Any], like: Tensor) -> Tensor:
    """`values` as a tensor on the device and in the dtype of `like`; the host does not wait for it."""
    if not queued(like.device):
        return like.new_tensor(values)
    return sent(torch.tensor(values, dtype=like.dtype), like.device)


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(len(values),) that stay on `device`: not to be changed. Also for a graph of gradients, whoever asks first."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def beside(tensor: Tensor, x: Tensor) -> Tensor:
    """`tensor`, which never changes, on the device and in the dtype of `x`; it is brought there once."""
    return _brought(tensor, x.device, x.dtype)


@lru_cache(maxsize=64)
def _brought(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:  # a tensor's hash is its identity
    with torch.inference_mode(False):
        return tensor.to(device, dtype)


class Fetched:
    """A tensor on its way to the host: it is as it was when this was made, and asking for it waits for no later work."""

    def __init__(self, values: Tensor):
        self._values, self._event = values, None
        if queued(values.device):
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)  # asleep while it waits: the cores are for reading images
            self._event.record(torch.cuda.current_stream(values.device))

    def values(self) -> Tensor:
        """The tensor on the host, once it is there."""
        if self._event:
            self._event.synchronize()
        return self._values.cpu()


def fetched(asked: Iterable[tuple[What, Tensor]]) -> Iterator[tuple[What, Tensor]]:
    """The same pairs with their tensors on the host: each is fetched while the device works on what comes next."""
    behind: tuple[What, Fetched] | None = None
    for what, values in asked:
        coming = what, Fetched(values)
        if behind:
            yield behind[0], behind[1].values()
        behind = coming
    if behind:
        yield behind[0], behind[1].values()
