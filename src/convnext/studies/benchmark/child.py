"""A contender in its own process: it builds its network, then waits for its turn."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import torch

from convnext.errors import ConvNeXtError
from convnext.processes import Parent
from convnext.studies.benchmark import engines, limits, networks, whole
from convnext.studies.benchmark.jobs import Job
from convnext.studies.benchmark.memory import Peak

_MOST_CALLS = 100_000  # of one turn


@dataclass(frozen=True)
class Turn:
    """What a contender did in one turn."""

    seconds: tuple[float, ...]  # of each call
    peak_mb: float


def serve(pipe: Connection, job: Job, folder: str, parent: Parent) -> None:
    """Answer ('build',), ('warm', batch), ('turn', seconds) until the other side closes; ('export',) writes files.

    Every answer is ('done', value) or ('failed', reason in one line).
    """
    parent.outlive()
    _be_quiet()
    torch.set_num_threads(job.settings.threads)
    server = _Server(job, folder)
    while True:
        try:
            command, *rest = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = "done", getattr(server, command)(*rest)
        except Exception as error:  # noqa: BLE001 # a contender may fail in any way, and the others go on
            answer = "failed", reason_of(error)
        try:
            pipe.send(answer)
        except OSError:
            return


class _Server:
    def __init__(self, job: Job, folder: str):
        self.job, self.folder = job, folder
        self.make: Callable[[int], networks.Call] | None = None
        self.call: networks.Call | None = None
        self.peak: Peak | None = None

    def export(self) -> None:
        engines.export(self.job.settings, self.folder)

    def build(self) -> None:
        job, settings = self.job, self.job.settings
        if job.origin in ("peer", "other", "engine"):
            import_module(job.library)
            if job.library == "timm":
                import_module("timm.models.convnext")
        if settings.mode == "training":  # the first optimizer brings in 150 MB of torch's own code
            networks.optimizer([torch.nn.Parameter(torch.zeros(1))])
        self.peak = Peak(settings.device)
        if job.origin == "limit":
            self.make = {"gemm": limits.gemm, "fma": limits.fma, "copy": limits.copy}[job.library](settings)
        elif job.origin == "engine":
            self.make = {"onnxruntime": engines.onnxruntime, "openvino": engines.openvino}[job.library](
                job, self.folder
            )
        elif settings.task != "classification":
            self.make = whole.inference(job, whole.network(job))
        else:
            run = networks.training if settings.mode == "training" else networks.inference
            self.make = run(job, networks.network(job))

    def warm(self, batch: int) -> float:
        """Compile and settle for a batch, and forget the one before; the seconds of a later call."""
        assert self.make
        self.call = None
        self.call = self.make(batch)
        for _ in range(2):
            self._timed()
        return self._timed()

    def turn(self, seconds: float) -> Turn:
        """Calls one after the other for this long, at least one."""
        assert self.peak
        self._timed()  # caches and threads wake up
        self.peak.restart()
        took = [self._timed()]
        while sum(took) < seconds and len(took) < _MOST_CALLS:
            took.append(self._timed())
        return Turn(tuple(took), self.peak.mb())

    def _timed(self) -> float:
        assert self.call
        cuda = self.job.settings.device.startswith("cuda")
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        self.call()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def reason_of(error: BaseException) -> str:
    """The first line of what went wrong."""
    if isinstance(error, ImportError) and error.name:
        return f"{error.name} cannot be imported ({_first_line(error)})"
    if isinstance(error, ConvNeXtError):
        return str(error)
    return f"{type(error).__name__}: {_first_line(error)}" if _first_line(error) else type(error).__name__


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0])[:200] if lines else ""


def _be_quiet() -> None:
    """Ctrl-C is answered by the process that asks; libraries print nothing between our lines."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
