"""Where the first process has more to do than the others, they wait for it here, and not in a collective.

Its look at five million images may take hours. A collective of torch gives up after its limit, which is there for processes
that hang, and one of NCCL keeps the GPU busy with waiting. That the first process lives is what `peers` watches.
"""

import contextlib
import time
from typing import TYPE_CHECKING

import torch.distributed as dist

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_KEY = "first"  # how many places it has come to
_SOONEST_S, _LATEST_S = 0.001, 0.5  # between two looks


class Arrivals:
    """The places of a run to which all processes come in the same order."""

    def __init__(self, store: "Store"):
        self._store, self._places = store, 0

    def meet(self, *, first: bool) -> None:
        """Come to the next place; who is not the first returns once the first is there."""
        self._places += 1
        if first:
            self._store.set(_KEY, str(self._places))
            return
        pause_s = _SOONEST_S
        with contextlib.suppress(dist.DistError):  # the first was there, is done and took the store along
            while not (self._store.check([_KEY]) and int(self._store.get(_KEY)) >= self._places):
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LATEST_S)
