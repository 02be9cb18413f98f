"""One command as several processes of this machine that work on one run together, found by each other as under `torchrun`.

Beside that it says nothing: what ends a run is the one line of whoever it happened to.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from convnext.errors import ConvNeXtError
from convnext.streams import tell

ENDED_S = 4.0  # for the others to end by themselves, after one has ended otherwise than well
STOPPED = 130
NAME = "convnext"  # of such a job, where torchrun has a name of its own: there nobody else tells who was killed
_LOOK_S = 0.05
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP")


def to_be_started(processes: int | None) -> bool:
    """Whether so many are to be started here: this is not one of them. Raises ConvNeXtError where others were started."""
    there = os.environ.get("WORLD_SIZE", "1")
    if processes is None or there == str(processes):
        return False
    if there != "1":
        raise ConvNeXtError(
            f"--processes {processes} is refused: {there} were started by torchrun or the like. Leave it out."
        )
    return True


def together(words: Sequence[str], processes: int) -> int:
    """Run `convnext WORDS...` in so many processes; 0, or the status of the first that ended otherwise.

    What asks this process to stop is passed on to them, once. When one fails, the others are ended.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    with _passing_on(ranks):
        for place in _places(processes):
            command = [sys.executable, "-m", "convnext", *words]
            quiet = subprocess.DEVNULL if ranks else None  # results are those of the first
            ranks.append(subprocess.Popen(command, env={**os.environ, **place}, stdout=quiet, start_new_session=True))
        try:
            return _awaited(ranks)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()


def _places(processes: int) -> Iterator[dict[str, str]]:
    """What each finds in its environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    threads = max(1, (os.cpu_count() or 1) // processes)
    shared |= {"TORCHELASTIC_RUN_ID": NAME, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    for rank in range(processes):
        yield {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}


def _awaited(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The status of all of them."""
    status, until = 0, float("inf")
    while None in [rank.poll() for rank in ranks] and time.monotonic() < until:  # all of them, each time
        status = status or next((rank.returncode for rank in ranks if rank.returncode), 0)
        if status not in (0, STOPPED):  # who was asked to stop saves its state first
            until = min(until, time.monotonic() + ENDED_S)
        time.sleep(_LOOK_S)
    status = status or next((rank.returncode for rank in ranks if rank.returncode), 0)
    if status >= 0:
        return status
    tell(
        "convnext: A process of this run was killed, by somebody or for lack of memory, and the others have ended with it. "
        "The same command goes on from the last checkpoint."
    )
    return 2


@contextlib.contextmanager
def _passing_on(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """SIGINT and its like reach the ranks, which are in no group of the terminal, and end nothing here."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    numbers = [number for number in signal.Signals if number.name in _PASSED_ON]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] != signal.SIG_IGN:
                signal.signal(number, pass_on)
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
