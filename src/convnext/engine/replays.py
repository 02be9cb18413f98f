"""Training steps as CUDA graphs: what a step asks of the GPU is recorded once for each shape of its batch, and replayed.

Starting the thousands of kernels of a step may take the host longer than a fast GPU needs to run them. A graph starts
all at once. It repeats what it has recorded, numbers included, so everything that differs from step to step is a tensor
that is written before the replay: `Given` and the learning rates. Reading, augmenting and mixing images stay outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from convnext.config import RunOptions, Training
from convnext.engine.distributed import World
from convnext.engine.given import Given, Learnt
from convnext.engine.shortage import out_of_memory
from convnext.errors import ConvNeXtError, on_one_line
from convnext.kernels.graphs import on, recorded
from convnext.kernels.transfer import queued

WARM = 3  # steps of a shape before it is recorded: states come to be, kernels are compiled and measured
MOST = 8  # shapes; the one that came longest ago goes


@dataclass(frozen=True)
class _Run:
    """A recorded step: where it reads and where it writes."""

    graph: Any
    given: Given
    learnt: Learnt

    def __call__(self, given: Given) -> Learnt:
        self.given.fill(given)
        self.graph.replay()
        return self.learnt.copied()


class Replays:
    """The recorded steps of one update, in one piece of memory, for they are never replayed at the same time."""

    def __init__(self, device: torch.device):
        self.device = device
        self._stream: Any = None  # torch wants one for all that share memory
        self._runs: dict[object, _Run | int] = {}  # a number: so often seen

    def __call__(self, learn: Callable[[Given], Learnt], given: Given) -> Learnt:
        """Do what `learn` does with `given`: by itself the first WARM times with a shape, then as it was recorded.

        Raises ConvNeXtError for a step that cannot be recorded.
        """
        with torch.cuda.device(self.device):  # graphs belong to the current device
            self._stream = self._stream or torch.cuda.Stream()
            shape = given.shape()
            run = self._runs.pop(shape, 0)
            if isinstance(run, int) and run >= WARM:
                run = self._recorded(learn, given)
            self._runs[shape] = run if isinstance(run, _Run) else run + 1
            while len(self._runs) > MOST:
                del self._runs[next(iter(self._runs))]
            if isinstance(run, _Run):
                return run(given)
            with on(self._stream):
                return learn(given)

    def forget(self) -> None:
        """Give back the memory of all recorded steps."""
        self._runs.clear()

    def _recorded(self, learn: Callable[[Given], Learnt], given: Given) -> _Run:
        pool = next((run.graph.pool() for run in self._runs.values() if isinstance(run, _Run)), None)
        try:
            graph, learnt = recorded(lambda: learn(given), self._stream, pool)
        except RuntimeError as error:
            first = error.__context__ or error  # the capture itself ends with an error of its own
            if out_of_memory(error) or out_of_memory(first):
                raise
            raise ConvNeXtError(
                f"A step of this network cannot be recorded as a CUDA graph: {on_one_line(str(first))[:200].rstrip('.')}. "
                "Leave out --cuda-graphs."
            ) from error
        return _Run(graph, given, learnt)


def replays_of(
    varies: str, recipe: Training, options: RunOptions, device: torch.device, world: World
) -> Replays | None:
    """What records the steps of a run, where that is asked for; `varies`: see `Task`.

    Raises ConvNeXtError for a run whose steps cannot be recorded.
    """
    if not options.cuda_graphs:
        return None
    refuse(options, device, world)
    if varies:
        raise ConvNeXtError(f"--cuda-graphs repeats the same work in each step, and {varies}. Leave it out.")
    if recipe.precision == "fp16" and recipe.optim.name == "muon":
        raise ConvNeXtError(
            "--cuda-graphs is refused with optim.name = muon and precision = fp16: whether a step counts is asked of the GPU, "
            "which a graph cannot wait for. Take bf16."
        )
    return Replays(device)


def refuse(options: RunOptions, device: torch.device, world: World) -> None:
    """Raise ConvNeXtError where --cuda-graphs is asked for and there is no one GPU to have them."""
    if options.cuda_graphs and not queued(device):
        raise ConvNeXtError(f"--cuda-graphs is for GPUs of CUDA, and this run is on '{device}'. Leave it out.")
    if options.cuda_graphs and world.size > 1:
        raise ConvNeXtError(
            f"--cuda-graphs is for one process, and there are {world.size}: gradients are exchanged inside a step, and all "
            "processes would have to record and replay the same ones, or wait for each other without end. Leave it out."
        )
