"""What `torchrun` gives the processes of a run: numbers, and a store to meet in before they can talk to each other.

There each says that it is here, so that none waits without end for one that never came, and that it leaves, so that what
ended a run is told once and not by every process in its own words.
"""

import contextlib
import os
import socket
import time
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist

from convnext.errors import ConvNeXtError, TrainingError, number_of

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

MEET_S = 300  # for the last process to come
PATIENCE_S = 1800  # for one that is there and does not answer: it may look at a million images first
_ANSWER_S = 10  # of a store that is there


class PeerLost(TrainingError):
    """Another process of this run has ended; `first`: without having said so."""

    def __init__(self, first: bool) -> None:
        super().__init__(
            "Another process of this run has ended without a word, killed or out of memory, and the others cannot go on "
            "without it. The same command goes on from the last checkpoint."
        )
        self.first = first


def processes() -> int:
    """How many processes this run has. Raises ConvNeXtError where the environment says it wrongly."""
    return _number("WORLD_SIZE", 1)


def meet() -> tuple["Store", int, int]:
    """(store, rank, processes) once all of them are here. Raises ConvNeXtError where one does not come in time."""
    size, rank = processes(), _number("RANK", None)
    if not 0 <= rank < size:
        raise ConvNeXtError(f"RANK = {rank} is refused: WORLD_SIZE = {size} has ranks 0 to {size - 1}.")
    address, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT", None)
    if not address:
        raise ConvNeXtError("MASTER_ADDR is not set: several processes need a place to meet. Start them with torchrun.")
    limit = timedelta(seconds=MEET_S)
    try:
        if rank or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # else this process makes the store
            _knock(address, port, MEET_S)
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=limit))  # type: ignore[attr-defined]
        here = [f"{_attempt()}/here/{other}" for other in range(size)]
        store.set(here[rank], "")
        with contextlib.suppress(dist.DistStoreError):
            store.wait(here, limit)
        absent = [str(other) for other, key in enumerate(here) if not store.check([key])]
    except (dist.DistError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConvNeXtError(
            f"Process {rank} of {size} could not meet the others at {address}:{port} within {MEET_S} s: {reason}. Start "
            "all of them again, with torchrun."
        ) from None
    if absent:
        who = f"{number_of(len(absent), 'process', 'processes')} of {size} (rank {', '.join(absent[:8])})"
        raise ConvNeXtError(f"{who} did not come within {MEET_S} s. Start all processes again, with torchrun.")
    return dist.PrefixStore(f"{_attempt()}/group", store), rank, size  # type: ignore[attr-defined]


def leave() -> bool:
    """Say that this process ends before its work is done; whether it is the first that does, as far as it can know."""
    try:
        return _store().add(f"{_attempt()}/left", 1) == 1
    except (dist.DistError, ConvNeXtError, OSError, ValueError):
        return True


def speaks(text: str, error: BaseException | None = None) -> bool:
    """Whether this process is the one to say `text`, which tells of `error`: the first that wants to, or the only one."""
    if isinstance(error, PeerLost):
        return error.first
    try:
        if processes() == 1:
            return True
        return _store().add(f"{_attempt()}/said/{zlib.crc32(text.encode('utf-8', 'replace'))}", 1) == 1
    except (dist.DistError, ConvNeXtError, OSError, ValueError):  # none to ask: one on each machine
        return os.environ.get("LOCAL_RANK", "0") == "0"


def lost(error: BaseException) -> bool:
    """Whether an error of torch means that another process is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _knock(address: str, port: int, patience_s: float) -> None:
    """Wait until somebody listens there; torch would tell of each attempt in fifty lines. Raises OSError."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return socket.create_connection((address, port), timeout=_ANSWER_S).close()
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


def _store() -> "Store":
    """A connection of its own, which is there before and after the processes work together."""
    limit = timedelta(seconds=_ANSWER_S)
    address, port = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT", None)
    _knock(address, port, 0)
    return dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=limit)  # type: ignore[attr-defined]


def _attempt() -> str:
    """The store outlives processes that torchrun starts anew."""
    return f"convnext/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        what = f"{name} = '{text}' is no whole number" if text else f"{name} is not set"
        raise ConvNeXtError(f"{what}: torchrun sets it. Start with torchrun, or unset WORLD_SIZE for one process.")
    return int(text)
