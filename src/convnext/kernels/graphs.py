"""CUDA graphs for inference: all kernels of a small batch in one launch, where starting them costs more than running them."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convnext.errors import ConvNeXtError, on_one_line
from convnext.kernels import transfer

MOST = 8  # recorded runs of one network; each keeps the memory of its maps
WARM = 3  # runs before the capture, in which kernels are compiled, measured and memory is laid out


class Graphed:
    """A network's recorded run: inputs like the example are replayed, all others go through the network itself.

    Weights that change in place count at the next call; a network that was cast or moved must be recorded anew.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], example: Tensor):
        self.model = model
        self._input = example.clone(memory_format=torch.preserve_format)
        with torch.cuda.device(example.device), torch.no_grad():  # graphs and events belong to the current device
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    model(self._input)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side):  # torch's own stream would be of the first graph's device
                self._output = model(self._input)

    def __call__(self, x: Tensor) -> Tensor:
        like = self._input
        if x.shape != like.shape or x.dtype != like.dtype or x.device != like.device or x.requires_grad:
            return self.model(x)
        with torch.cuda.device(like.device):
            like.copy_(x)
            self._graph.replay()
            return self._output.clone()


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


class Graphs:
    """A network that answers with one tensor: shapes that come again are replayed from a recorded run, all others pass it.

    A shape is recorded when it comes for the second time, so that a last, smaller batch never is; of more than MOST the one
    that was not asked for longest goes. Where nothing can be recorded `tell` says why, once, and the network answers itself.
    Threads may ask side by side. To be called without gradients, and always under the same autocast.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], tell: Callable[[str], None]):
        self.model, self._tell = model, tell
        self._runs: dict[object, Graphed | None] = {}  # None: seen once
        self._lock = threading.Lock()
        self._refused = False

    def __call__(self, x: Tensor) -> Tensor:
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
        self._runs[kind] = run
        while len(self._runs) > MOST:
            del self._runs[next(iter(self._runs))]
        return run

    def _recorded(self, x: Tensor) -> Graphed | None:
        try:
            return Graphed(self.model, x)
        except RuntimeError as error:  # an operator that waits for the GPU, or no memory for another set of maps
            self._refused = True
            self._tell(f"Batches are not recorded as CUDA graphs: {on_one_line(str(error))[:200].rstrip('.')}.")
            return None
