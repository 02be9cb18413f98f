"""What `torchrun` gives the processes of a run: numbers, and a store to meet in before they can talk to each other.

There each says that it is here, so that none waits without end for one that never came, and that it leaves, so that what
ended a run is told once and not by every process in its own words.
"""

import contextlib
import itertools
import os
import socket
import threading
import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from convnext.engine.peers import Peers
from convnext.errors import ConvNeXtError, TrainingError, number_of
from convnext.ranks import NAME
from convnext.streams import tell

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

MEET_S = 300  # for the last process to come
PATIENCE_S = 1800  # for one that is there and does not answer: it may look at a million images first
_ANSWER_S = 10  # of a store that is there
_VISIT_S = 2.0  # for an answer that decides no more than who speaks
_ASK_S = 0.1  # between two looks at who is there
_MEETINGS = itertools.count()  # of this process: a store outlives what was written into it


class PeerLost(TrainingError):
    """Another process of this run has ended; `first`: without having said so."""

    def __init__(self, first: bool) -> None:
        super().__init__(
            "Another process of this run has ended without a word, killed or out of memory, and the others cannot go on "
            "without it. The same command goes on from the last checkpoint."
        )
        self.first = first and os.environ.get("TORCHELASTIC_RUN_ID") != NAME  # whoever started it says so there


def processes() -> int:
    """How many processes this run has. Raises ConvNeXtError where the environment says it wrongly."""
    return _number("WORLD_SIZE", 1)


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a run work together."""

    store: "Store"
    rank: int
    size: int
    peers: Peers | None  # None: one of them cannot be watched from here


def meet() -> Meeting:
    """Once all processes are here. Raises ConvNeXtError where one does not come in time."""
    size, rank = processes(), _number("RANK", None)
    if not 0 <= rank < size:
        raise ConvNeXtError(f"RANK = {rank} is refused: WORLD_SIZE = {size} has ranks 0 to {size - 1}.")
    address, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT", None)
    if not address:
        raise ConvNeXtError("MASTER_ADDR is not set: several processes need a place to meet. Start them with torchrun.")
    peers, prefix = None, f"{_attempt()}/{next(_MEETINGS)}"
    try:
        store = _store(address, port, first=rank == 0, patience_s=MEET_S)
        if rank:
            peers = Peers.connected(_end, address, _awaited(store, f"{prefix}/peers"))
        else:
            peers, place = Peers.listening(_end, size, address)
            store.set(f"{prefix}/peers", place)
        absent = _absent(store, [f"{prefix}/here/{other}" for other in range(size)], rank)
    except (dist.DistError, OSError, ValueError) as error:
        if peers:
            peers.close("left")
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConvNeXtError(
            f"Process {rank} of {size} could not meet the others at {address}:{port} within {MEET_S} s: {reason}. Start "
            "all of them again, with torchrun."
        ) from None
    if absent:
        if peers:
            peers.close("left")
        who = f"{number_of(len(absent), 'process', 'processes')} of {size} (rank {', '.join(map(str, absent[:8]))})"
        raise ConvNeXtError(f"{who} did not come within {MEET_S} s. Start all of them again, with torchrun.")
    store.set_timeout(timedelta(seconds=PATIENCE_S))  # torch meets there again at the first collective
    return Meeting(dist.PrefixStore(f"{prefix}/group", store), rank, size, peers)  # type: ignore[attr-defined]


def leave() -> bool:
    """Say that this process ends before its work is done; whether it is the first that does, as far as it can know."""
    try:
        return _counted(f"{_attempt()}/left") == 1
    except (ConvNeXtError, OSError):  # the first process held the store and is gone
        return os.environ.get("LOCAL_RANK", "0") in ("0", "1")


def speaks(text: str, error: BaseException | None = None) -> bool:
    """Whether this process is the one to say `text`, which tells of `error`: the first that wants to, or the only one."""
    if isinstance(error, PeerLost):
        return error.first
    try:
        if processes() == 1:
            return True
        return _counted(f"{_attempt()}/said/{zlib.crc32(text.encode('utf-8', 'replace'))}") == 1
    except (ConvNeXtError, OSError):  # none to ask: one on each machine
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


def _store(address: str, port: int, *, first: bool, patience_s: float) -> "Store":
    """Where processes meet: torchrun's, or one that the first process makes. Raises OSError, DistError, ValueError."""
    make = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not make:
        _knock(address, port, patience_s)
    limit = timedelta(seconds=_ANSWER_S)
    how: dict[str, Any] = {"is_master": make, "wait_for_workers": False, "timeout": limit, "multi_tenant": True}
    return dist.TCPStore(address, port, **how)  # type: ignore[attr-defined]


def _counted(key: str) -> int:
    """How many have come to the store with `key`, this process included. Raises OSError where nobody answers in time.

    A store that has ended is still listened for by what was forked from its process, and torch then waits for an answer
    far longer than it is told to: so another thread asks, over a connection of its own.
    """
    address, port, found = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT", None), list[int]()

    def ask() -> None:
        with contextlib.suppress(dist.DistError, OSError, ValueError):
            found.append(_store(address, port, first=False, patience_s=0).add(key, 1))

    asking = threading.Thread(target=ask, name="store visit", daemon=True)
    asking.start()
    asking.join(_VISIT_S)
    if not found:
        raise OSError("nobody answers at the store")
    return found[0]


def _awaited(store: "Store", key: str) -> str:
    """What another process puts there. Waits in Python, which signals end and torch's own waiting does not; see MEET_S."""
    end = time.monotonic() + MEET_S
    while not store.check([key]):
        if time.monotonic() > end:
            raise OSError("the first process did not come")
        time.sleep(_ASK_S)
    return store.get(key).decode()


def _absent(store: "Store", here: list[str], rank: int) -> list[int]:
    """The ranks that did not come in time, once this one has said that it is here."""
    store.set(here[rank], "")
    end = time.monotonic() + MEET_S
    while not store.check(here):
        if time.monotonic() > end:
            return [other for other, key in enumerate(here) if not store.check([key])]
        time.sleep(_ASK_S)
    return []


def _end() -> None:
    """End this process where another one has ended and the main thread does not notice by itself."""
    lost = PeerLost(leave())
    if lost.first:
        tell(f"convnext: {lost}")
    os._exit(2)


def _attempt() -> str:
    """The store outlives processes that torchrun starts anew."""
    return f"convnext/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        what = f"{name} = '{text}' is no whole number" if text else f"{name} is not set"
        raise ConvNeXtError(f"{what}: torchrun sets it. Start with torchrun, or unset WORLD_SIZE for one process.")
    return int(text)
