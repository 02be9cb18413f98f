"""Contenders in turn, A B C C B A: slow changes of the machine reach all of them alike, and ratios are taken turn by turn."""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convnext.errors import ConvNeXtError
from convnext.files import workroom
from convnext.processes import Parent
from convnext.studies.benchmark.child import Turn, serve
from convnext.studies.benchmark.jobs import Job, Settings, missing
from convnext.studies.benchmark.limits import counts_multiply_adds

PAUSE_S = 0.1  # between turns: the threads of the one before go to sleep
PATIENCE_S = 900  # for one answer; the slowest is a compiler's first
_LEAST_S = {"eager": 8, "optimized": 8, "fused": 15, "compiled": 60, "exported": 30}  # to make ready, roughly


@dataclass
class Measured:
    """Everything that was measured, also when it was stopped halfway."""

    settings: Settings
    jobs: list[Job]
    turns: dict[tuple[str, int], list[Turn]] = field(default_factory=dict)  # (name, batch) -> one a round
    failed: dict[str, str] = field(default_factory=dict)  # name -> why, in one line
    stopped: bool = False


def measure(
    jobs: Sequence[Job],
    *,
    rounds: int = 5,
    seconds: float = 1.0,
    info: Callable[[str], None],
    advance: Callable[[str, int, int], None],
) -> Measured:
    """Run every job `rounds` times for about `seconds` at each batch. Ctrl-C ends it and keeps the whole rounds.

    `info` gets a line for each contender that cannot run, `advance` (note, turns done, turns in all) after each turn.
    Raises ConvNeXtError when no contender can run.
    """
    settings = jobs[0].settings
    jobs = [job for job in jobs if job.library != "fma" or counts_multiply_adds(settings)]
    measured = Measured(settings, list(jobs))

    def fail(job: Job, reason: str) -> None:
        measured.failed[job.name] = reason
        info(f"{job.name} does not take part: {reason}")

    try:
        room = workroom(Path(tempfile.gettempdir()), "convnext-benchmark")
        with room as folder, contextlib.ExitStack() as stack:
            ready = _ready(jobs, str(folder), stack, fail, info)
            if not any(child.job.origin != "limit" for child in ready):
                raise ConvNeXtError("No contender could be started: " + "; ".join(measured.failed.values()) + ".")
            _rounds(measured, ready, rounds, seconds, fail, advance)
    except KeyboardInterrupt:
        measured.stopped = True
    return measured


def expected_s(jobs: Sequence[Job], rounds: int, seconds: float) -> float:
    """About how long it takes, for the person who waits."""
    batches = len(jobs[0].settings.batches)
    ready = sum(_LEAST_S.get(job.form, 4) for job in jobs)
    return ready + len(jobs) * batches * rounds * (1.3 * seconds + PAUSE_S)


class _Child:
    """The process of one contender, seen from the asking side."""

    def __init__(self, job: Job, folder: str):
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        parent = Parent.here(direct="forkserver" not in methods)
        if "forkserver" in methods:
            context.set_forkserver_preload(["convnext.studies.benchmark.child"])  # torch is imported once for all
        self.job = job
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, job, folder, parent), daemon=False)
        self.process.start()
        theirs.close()

    def ask(self, *message: Any) -> Any:
        """The answer. Raises _Failed with the reason."""
        self.send(*message)
        return self.answer()

    def send(self, *message: Any) -> None:
        """Ask without waiting."""
        with contextlib.suppress(OSError):  # `answer` finds out why
            self.pipe.send(message)

    def answer(self) -> Any:
        """What was asked for last. Raises _Failed."""
        try:
            if not self.pipe.poll(PATIENCE_S):
                raise _Failed(f"it gave no answer within {PATIENCE_S // 60} minutes")
            status, value = self.pipe.recv()
        except (EOFError, OSError):
            raise _Failed("its process was ended by the system, most often for want of memory") from None
        if status == "failed":
            raise _Failed(value)
        return value

    def close(self) -> None:
        """End the process, by force where it does not hear."""
        self.pipe.close()
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Failed(Exception):
    pass


def _ready(
    jobs: Sequence[Job],
    folder: str,
    stack: contextlib.ExitStack,
    fail: Callable[[Job, str], None],
    info: Callable[[str], None],
) -> list[_Child]:
    """The contenders that could be built and have answered once at every batch."""
    children = []
    exported: str | None = None  # why not, '' when done
    for job in jobs:
        reason = missing(job)
        if not reason and job.form == "exported":
            exported = _export(job, folder) if exported is None else exported
            reason = exported
        if reason:
            fail(job, reason)
            continue
        children.append(_Child(job, folder))
        stack.callback(children[-1].close)
        children[-1].send("build")
    ready = []
    for child in children:  # built side by side, but compiled and first run one after the other
        started = time.monotonic()
        try:
            child.answer()
            child.ask("warm", min(child.job.settings.batches))
        except _Failed as failed:
            child.close()
            fail(child.job, str(failed))
            continue
        ready.append(child)
        if time.monotonic() - started > 20:
            info(f"{child.job.name} is ready after {time.monotonic() - started:.0f} s.")
    return ready


def _export(job: Job, folder: str) -> str:
    """Write the file that other runtimes read, in a process that nobody measures; '' or the reason why not."""
    child = _Child(job, folder)
    try:
        child.ask("export")
        return ""
    except _Failed as failed:
        return f"the export failed: {failed}"
    finally:
        child.close()


def _rounds(
    measured: Measured,
    ready: list[_Child],
    rounds: int,
    seconds: float,
    fail: Callable[[Job, str], None],
    advance: Callable[[str, int, int], None],
) -> None:
    """Small batches first, so that their peak of memory is their own."""
    batches = sorted(measured.settings.batches)
    done, total = 0, rounds * len(ready) * len(batches)
    for batch in batches:
        if batch != batches[0]:
            _warm(ready, batch, fail)
        for number in range(rounds):
            taken: dict[str, Turn] = {}
            for child in list(ready if number % 2 == 0 else reversed(ready)):
                time.sleep(PAUSE_S)
                try:
                    taken[child.job.name] = child.ask("turn", seconds)
                except _Failed as failed:
                    ready.remove(child)
                    fail(child.job, str(failed))
                done += 1
                advance(f"batch {batch}, {child.job.name}", done, total)
            for name, turn in taken.items():  # of whole rounds alone: the turns of one round stay side by side
                measured.turns.setdefault((name, batch), []).append(turn)


def _warm(ready: list[_Child], batch: int, fail: Callable[[Job, str], None]) -> None:
    for child in list(ready):
        try:
            child.ask("warm", batch)
        except _Failed as failed:
            ready.remove(child)
            fail(child.job, str(failed))
