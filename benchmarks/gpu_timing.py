"""Times on a GPU, and failures that are named: what the steps of gpu.py share."""

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from convnext.kernels.gpu.available import interpreted

DRY = interpreted()  # on the CPU, to try the logic
DEVICE, HALF = ("cpu", torch.float32) if DRY else ("cuda", torch.bfloat16)
Row = dict[str, Any]


def limits() -> tuple[float, float]:
    """The GPU's own bf16 matmul rate (operations a second) and copy bandwidth (bytes a second, read and written)."""
    side, size = (64, 2**16) if DRY else (8192, 2**29)
    a, b = (torch.randn(side, side, device=DEVICE, dtype=HALF) for _ in range(2))
    source, target = (torch.randn(size, device=DEVICE).to(HALF) for _ in range(2))
    rate = max(2.0 * side**3 / milliseconds(lambda: a @ b) for _ in range(3))
    return 1e3 * rate, 1e3 * max(2.0 * source.nbytes / milliseconds(lambda: target.copy_(source)) for _ in range(3))


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a run as its user sees it, over repetitions that fill a third of a second at least."""
    run()
    wait()
    begin = time.perf_counter()
    run()
    wait()
    once = max(1e-5, time.perf_counter() - begin)
    if DRY:
        return 1e3 * once
    repeats = max(10, min(500, int(0.3 / once)))
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for first, last in marks:
        first.record()
        run()
        last.record()
    wait()
    return statistics.median(first.elapsed_time(last) for first, last in marks)


def device_milliseconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """Time of a run on the GPU alone: `repeats` of them recorded as one CUDA graph, the median of five replays."""
    run()
    wait()
    if DRY:
        return milliseconds(run)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            run()
    return milliseconds(graph.replay) / repeats


def host_microseconds(run: Callable[[], Any], repeats: int = 100) -> float:
    """Time that the host spends on a run without waiting for the GPU."""
    run()
    wait()
    times = []
    for _ in range(2 if DRY else repeats):
        begin = time.perf_counter()
        run()
        times.append(1e6 * (time.perf_counter() - begin))
        wait()
    return statistics.median(times)


def warm(run: Callable[[], Any]) -> Callable[[], Any]:
    """Compile, tune and lay out memory before anything is timed."""
    for _ in range(1 if DRY else 5):
        run()
    wait()
    return run


def peak(run: Callable[[], Any]) -> float | None:
    """Most memory of one run beyond what lay there before, in MiB."""
    if DRY:
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    wait()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def wait() -> None:
    """Until the GPU has done what it was given."""
    if not DRY:
        torch.cuda.synchronize()


def attempt(what: str, run: Callable[[], Any]) -> Any:
    """Its answer, or a row that names the failure; `fatal` when the GPU takes no more work from this process."""
    try:
        answer = run()
        wait()
        return answer
    except Exception as failure:  # noqa: BLE001 - the point is to name it and go on
        error = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
        print(traceback.format_exc(), file=sys.stderr)
    fatal = False
    try:
        wait()
        if not DRY:
            torch.cuda.empty_cache()
    except Exception:  # noqa: BLE001
        fatal = True
    return {"kind": "failure", "what": what, "error": error, "fatal": fatal}


def failed(found: Any) -> bool:
    """Whether `attempt` came back with a failure."""
    return isinstance(found, dict) and found.get("kind") == "failure"


def frozen(run: Callable[[], Any]) -> Any:
    """Without anything kept for a backward."""
    with torch.no_grad():
        return run()
