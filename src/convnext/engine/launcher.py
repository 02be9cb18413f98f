"""What `torchrun` gives the processes of a run: numbers, and a store to meet in before they can talk to each other.

There each says that it is here, so that none waits without end for one that never came, and that it leaves, so that what
ended a run is told once and not by every process in its own words.
"""

import contextlib
import os
import secrets
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
_MEETING = "convnext/meeting"  # its number: a store outlives processes that torchrun starts anew


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


def place_here() -> tuple[int, int]:
    """Which process of this machine this is, from 0, and of how many. Raises ConvNeXtError as `processes` does."""
    return _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", processes())


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
    peers: list[Peers | None] = []  # the last is the watch over this meeting
    try:
        store = _store(address, port, first=rank == 0, patience_s=MEET_S)
        come = _welcome if rank == 0 else _come
        prefix, absent = come(store, rank, size, address, peers)
    except (dist.DistError, OSError, ValueError) as error:
        _close(peers)
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConvNeXtError(
            f"Process {rank} of {size} could not meet the others at {address}:{port} within {MEET_S} s: {reason}. Start "
            f"all of them again, with torchrun{_where_machines_go()}."
        ) from None
    if absent:
        _close(peers)
        who = f"{number_of(len(absent), 'process', 'processes')} of {size} (rank {', '.join(map(str, absent[:8]))})"
        raise ConvNeXtError(f"{who} did not come within {MEET_S} s. Start all of them again, with torchrun.")
    store.set_timeout(timedelta(seconds=PATIENCE_S))  # torch meets there again at the first collective
    return Meeting(dist.PrefixStore(f"{prefix}/group", store), rank, size, peers[-1])  # type: ignore[attr-defined]


def _welcome(store: "Store", rank: int, size: int, address: str, peers: list[Peers | None]) -> tuple[str, list[int]]:
    """Of the first process: a new meeting, and who did not come to it in time."""
    prefix = f"{_MEETING}/{store.add(_MEETING, 1)}"  # no key of an earlier one counts, whoever started it
    watch, place = Peers.listening(_end, size, address)
    peers.append(watch)
    store.set(f"{prefix}/peers", place)
    end = time.monotonic() + MEET_S
    while absent := _absent(store, prefix, size):
        if time.monotonic() > end:
            return prefix, absent
        time.sleep(_ASK_S)
    names = [store.get(f"{prefix}/here/{other}").decode() for other in range(1, size)]
    store.set(f"{prefix}/met", " ".join(names))
    return prefix, []


def _come(store: "Store", rank: int, size: int, address: str, peers: list[Peers | None]) -> tuple[str, list[int]]:
    """Of another process: the meeting that the first process now holds, and who did not come to it in time.

    A store may outlive those that it was told of, so the last meeting in it may be over: this one is met only where the
    first process has read this process's own name. It waits in Python, which signals end and torch's waiting does not.
    """
    name, prefix = secrets.token_hex(8), ""
    end = time.monotonic() + MEET_S
    while not (prefix and store.check([f"{prefix}/met"]) and name in store.get(f"{prefix}/met").decode().split()):
        if time.monotonic() > end:
            return prefix, (prefix and _absent(store, prefix, size)) or [0]
        last = f"{_MEETING}/{store.add(_MEETING, 0)}"
        if last != prefix and store.check([f"{last}/peers"]):
            _close(peers)
            prefix = last
            peers.append(Peers.connected(_end, address, store.get(f"{prefix}/peers").decode()))
            store.set(f"{prefix}/here/{rank}", name)
        else:
            time.sleep(_ASK_S)
    return prefix, []


def _absent(store: "Store", prefix: str, size: int) -> list[int]:
    """The ranks that have not come to a meeting."""
    keys = {other: f"{prefix}/here/{other}" for other in range(1, size)}
    return [] if store.check([*keys.values()]) else [other for other, key in keys.items() if not store.check([key])]


def _close(peers: list[Peers | None]) -> None:
    """End the watch over a meeting that has come to nothing."""
    while peers:
        watch = peers.pop()
        if watch:
            watch.close("left")


def _where_machines_go() -> str:
    """What else to do where torchrun gives machines that stay the address of one that is gone."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return ", and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before it where machines come and go" if kept else ""


def leave() -> bool:
    """Say that this process ends before its work is done; whether it is the first that does, as far as it can know."""
    try:
        return _counted("left") == 1
    except (ConvNeXtError, OSError):  # the first process held the store and is gone
        return os.environ.get("LOCAL_RANK", "0") in ("0", "1")


def speaks(text: str, error: BaseException | None = None) -> bool:
    """Whether this process is the one to say `text`, which tells of `error`: the first that wants to, or the only one."""
    if isinstance(error, PeerLost):
        return error.first
    try:
        if processes() == 1:
            return True
        return _counted(f"said/{zlib.crc32(text.encode('utf-8', 'replace'))}") == 1
    except (ConvNeXtError, OSError):  # none to ask: one on each machine
        return os.environ.get("LOCAL_RANK", "0") == "0"


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
    """How many have come to the store with `key` since the last meeting, this process included.

    Raises OSError where nobody answers in time.

    A store that has ended is still listened for by what was forked from its process, and torch then waits for an answer
    far longer than it is told to: so another thread asks, over a connection of its own.
    """
    address, port, found = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT", None), list[int]()

    def ask() -> None:
        with contextlib.suppress(dist.DistError, OSError, ValueError):
            store = _store(address, port, first=False, patience_s=0)
            found.append(store.add(f"{_MEETING}/{store.add(_MEETING, 0)}/{key}", 1))

    asking = threading.Thread(target=ask, name="store visit", daemon=True)
    asking.start()
    asking.join(_VISIT_S)
    if not found:
        raise OSError("nobody answers at the store")
    return found[0]


def _end() -> None:
    """End this process where another one has ended and the main thread does not notice by itself."""
    lost = PeerLost(leave())
    if lost.first:
        tell(f"convnext: {lost}")
    os._exit(2)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        what = f"{name} = '{text}' is no whole number" if text else f"{name} is not set"
        raise ConvNeXtError(f"{what}: torchrun sets it. Start with torchrun, or unset WORLD_SIZE for one process.")
    return int(text)
