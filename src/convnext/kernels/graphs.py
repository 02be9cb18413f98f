"""CUDA graphs: all kernels of a piece of work in one launch, where starting them costs more than running them.

`recorded` makes one of any work; the rest is for inference. `engine.replays` has those of training.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from convnext.errors import ConvNeXtError, on_one_line
from convnext.kernels import transfer

What = TypeVar("What")
MOST = 8  # recorded runs of one network; each keeps the memory of its maps
WARM = 3  # runs before the capture, in which kernels are compiled, measured and memory is laid out
_CAPTURING = threading.Lock()  # torch knows one capture at a time; what other threads do beside it goes on


class Graphed:
    """A network's recorded run: inputs like the example are replayed, all others go through the network itself.

    It answers with a tensor, or with lists and tuples of them. Weights that change in place count at the next call; a network
    that was cast or moved must be recorded anew. `beside`: a run that is never replayed at the same time, whose memory this
    one's maps take too.
    """

    def __init__(self, model: Callable[[Tensor], Any], example: Tensor, beside: "Graphed | None" = None):
        self.model = model
        self._graph: Any
        self._input = example.clone(memory_format=torch.preserve_format)
        with torch.cuda.device(example.device), torch.no_grad(), _casts_inside():  # graphs belong to the current device
            side = torch.cuda.Stream()
            with on(side):
                for _ in range(WARM):
                    model(self._input)
            pool: Any = None if beside is None else beside._graph.pool()
            made: tuple[Any, Any] = recorded(lambda: model(self._input), side, pool)
            self._graph, self._output = made

    def __call__(self, x: Tensor) -> Any:
        like = self._input
        if x.shape != like.shape or x.dtype != like.dtype or x.device != like.device or x.requires_grad:
            return self.model(x)
        with torch.cuda.device(like.device):
            like.copy_(x)
            self._graph.replay()
            return _cloned(self._output)


def recorded(work: Callable[[], What], stream: Any, pool: Any = None) -> tuple[Any, What]:
    """A graph of what `work` asks of the current device, and its answer, whose tensors each replay writes anew.

    Nothing of it is done yet. `stream`: where the same was done before, for torch's own one is of the first graph's device.
    `pool`: of a graph that is never replayed at the same time, whose memory this one takes too. Raises RuntimeError where
    the work waits for the device, or memory runs out.
    """
    graph = torch.cuda.CUDAGraph()
    how: dict[str, Any] = {"pool": pool, "stream": stream, "capture_error_mode": "thread_local"}
    with _CAPTURING, _stream_kept(), torch.cuda.graph(graph, **how):
        answer = work()
    return graph, answer


@contextmanager
def on(stream: Any) -> Iterator[None]:
    """Work inside goes to `stream`, behind all that was asked before and before all that is asked later."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


@contextmanager
def _stream_kept() -> Iterator[None]:
    """After a failure inside the current stream is the one before: torch leaves that of a capture that fails."""
    before = torch.cuda.current_stream()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(before)
        raise


@contextmanager
def _casts_inside() -> Iterator[None]:
    """Inside, autocast keeps no cast weights: a recorded run would read one of them after it was thrown away."""
    kept = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


def _cloned(answer: Any) -> Any:
    return answer.clone() if isinstance(answer, Tensor) else type(answer)(map(_cloned, answer))


def graphed(model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """`model` for inputs like `example` as one CUDA graph, answering one new tensor a call; elsewhere `model` as it is.

    Raises ConvNeXtError for a network in training mode, whose randomness a graph would repeat, or one that answers with
    anything but one tensor.
    """
    if model.training:
        raise ConvNeXtError("A network in training mode cannot be recorded as a CUDA graph. Call model.eval() first.")
    if example.device.type != "cuda":
        return model
    with torch.no_grad():
        answer = model(example)
    if not isinstance(answer, Tensor):
        raise ConvNeXtError(
            f"A CUDA graph records a network that answers with one tensor, not {type(answer).__name__}."
        )
    return Graphed(model, example)


class Graphs(nn.Module):
    """A network whose work depends on its input's shape alone: shapes that come again are replayed from a recorded run.

    A shape is recorded when it comes for the second time, so that a last, smaller batch never is; of more than MOST the one
    that was not asked for longest goes, and all share the memory of their maps. Where nothing can be recorded `tell` says why,
    once, and the network answers itself. Threads may ask side by side. To be called without gradients, and always under
    the same autocast.
    """

    def __init__(self, model: Callable[[Tensor], Any], tell: Callable[[str], None]):
        super().__init__()
        self.model, self._tell = model, tell
        self._runs: dict[object, Graphed | None] = {}  # None: seen once
        self._lock = threading.Lock()
        self._refused = False

    def forward(self, x: Tensor) -> Any:
        if self._refused or not transfer.queued(x.device):
            return self.model(x)
        with self._lock:  # a recorded run has one place for its input
            run = self._run(x)
            return self.model(x) if run is None else run(x)

    def _run(self, x: Tensor) -> Graphed | None:
        kind = (x.shape, x.stride(), x.dtype, x.device)
        seen, run = kind in self._runs, self._runs.pop(kind, None)
        if seen and run is None:
            run = self._recorded(x)
        if self._refused:
            return None
        self._runs[kind] = run
        while len(self._runs) > MOST:
            del self._runs[next(iter(self._runs))]
        return run

    def _recorded(self, x: Tensor) -> Graphed | None:
        beside = next((run for run in self._runs.values() if run is not None), None)
        try:
            return Graphed(self.model, x, beside)
        except RuntimeError as error:  # an operator that waits for the GPU, or no memory for another set of maps
            self._refused = True
            self._runs.clear()  # and their memory is free
            self._tell(f"Batches are not recorded as CUDA graphs: {on_one_line(str(error))[:200].rstrip('.')}.")
            return None
