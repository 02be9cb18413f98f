"""Processes that end with the one that started them, however that one ends: killed, out of memory, preempted.

On Linux the system kills a child whose parent ends (PR_SET_PDEATHSIG, prctl(2)). That follows the thread that made the
child, not the process, so it is asked for where this was the main thread, and a thread of the child looks at its parent
as well. Elsewhere that thread is all: macOS and Windows are not tested.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

LOOK_S = 1.0  # between two looks at the parent
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ASKED = {"SIGINT", "SIGTERM", "SIGHUP"}  # what asks the main process to stop, and is answered by it alone
_HEARS = hasattr(signal, "sigtimedwait")  # Linux: a process can learn who sent a signal

# Runs a command in a group of its own, and ends the group when the pipe that it reads is closed: by whoever holds the
# other end, or by the system when that process is gone.
_KEEPER = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
os._exit(child.wait() & 0xFF)
"""


@dataclass(frozen=True)
class Parent:
    """Who starts a child. Made by the parent, taken to the child, asked there."""

    process: int  # its id
    lasting: bool  # the thread that starts the child lives as long as the process
    direct: bool = True  # no fork server stands between

    @classmethod
    def here(cls, *, direct: bool = True) -> "Parent":
        """This process, which is about to start a child."""
        main = sys.platform == "linux" and threading.get_native_id() == os.getpid()
        return cls(os.getpid(), main and direct, direct)

    def outlive(self, *, deaf: bool = False) -> None:
        """Called by the child: from now on it ends within seconds of its parent.

        `deaf`: it was started under `deaf_children`, and SIGTERM ends it only when its parent sent it.
        """
        if self.lasting:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if deaf:
            _close_ears()
        direct = self.direct and os.name == "posix"
        if direct and os.getppid() != self.process:  # it ended before the system knew whom to tell
            os._exit(1)
        watch, how = (self._look, (deaf and _HEARS,)) if direct else (_wait_for_parent, ())
        threading.Thread(target=watch, args=how, name="parent watch", daemon=True).start()

    def _look(self, deaf: bool) -> None:
        while os.getppid() == self.process:
            if not deaf:
                time.sleep(LOOK_S)
            elif (sent := signal.sigtimedwait({signal.SIGTERM}, LOOK_S)) and sent.si_pid == self.process:
                os._exit(0)
        os._exit(1)


def _wait_for_parent() -> None:
    """For children of multiprocessing that cannot ask for their parent's id: it keeps a pipe open as long as it lives."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def starter() -> Parent:
    """The process that started this one, where this one could not be told: which thread did it is not known."""
    return Parent(os.getppid(), lasting=False)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is done meanwhile as Ctrl-C does: what is half done is cleared away.

    What the process was told to ignore or to handle otherwise stays so, as `nohup` does with SIGHUP.
    """
    main = threading.current_thread() is threading.main_thread()
    names = [number for number in _signals() if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in names:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in names:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Children that are started meanwhile are born deaf to what asks a program to stop; see `Parent.outlive`.

    A scheduler tells every process of a job to stop: those that only serve the main one must not be gone before it has
    saved its state.
    """
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close_ears() -> None:
    """What waited during the birth is dropped; SIGTERM stays blocked for the thread that looks who sent it."""
    for number in _signals():
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals() - ({signal.SIGTERM} if _HEARS else set()))


def _signals() -> set[signal.Signals]:
    return {number for number in signal.Signals if number.name in _ASKED}


def run(command: Sequence[str], *, timeout_s: float) -> None:
    """Run a helper such as a compiler, which ends with this process, its own children included.

    Raises subprocess.CalledProcessError with its `stderr`, subprocess.TimeoutExpired, and OSError where it cannot start.
    """
    python = os.path.basename(sys.executable or "").startswith(("python", "pypy"))  # not a program that embeds it
    keeper = [sys.executable, "-I", "-S", "-c", _KEEPER] if os.name == "posix" and python else []
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        [*keeper, *command], stdin=pipe, stdout=nowhere, stderr=pipe, text=True, start_new_session=bool(keeper)
    ) as child:
        assert child.stdin and child.stderr
        passed = threading.Event()  # set before anything ends: whether the timer's thread lives on says less

        def end() -> None:
            passed.set()
            (child.stdin.close if keeper and child.stdin else child.kill)()

        late = threading.Timer(timeout_s, end)
        late.start()
        try:
            told = child.stderr.read()
            status = child.wait()
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()  # ends what still runs
            late.cancel()
    if passed.is_set():
        raise subprocess.TimeoutExpired(command, timeout_s)
    if status:
        raise subprocess.CalledProcessError(status, command, stderr=told)
