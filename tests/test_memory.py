"""Memory that is short: every way in which torch says so is known, and one process's end is told and ends the others."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from children import gone
from commands import convnext, tiny
from convnext.engine.shortage import out_of_memory
from convnext.kernels.build import compiled
from convnext.kernels.dispatch import without_compiled
from images import write_colours

# What torch and NVIDIA's libraries raise, word for word up to addresses and sizes.
SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.0 GB, other allocations: 1.0 GB, max allowed: 18.1 GB)."
    ),
]
OTHERS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("CUBLAS_STATUS_ALLOC_FAILED"),
    KeyError("out of memory"),
]
# The second process runs out of memory in the backward pass of a step that exchanges gradients. DEAF: torch ends no wait for
# a process that is gone, as on GPUs, where the host waits for a queue.
ONE_IS_SHORT = """
import os, sys, time, torch
from convnext.cli import main
from convnext.engine import peers
from convnext.engine.distributed import dist
from convnext.tasks.classification.task import Classification
peers.LEFT_S = 1000.0
loss = Classification.loss
if os.environ["DEAF"] == "1":
    dist.destroy_process_group = lambda: time.sleep(1000)
    if os.environ["RANK"] == "0":
        torch.Tensor.backward = lambda self: time.sleep(1000)
def short(self, network, piece):
    found = loss(self, network, piece)
    if os.environ["RANK"] == "1" and len(piece) > 1:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    return found
Classification.loss = short
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("error", SHORT, ids=lambda error: str(error)[:30])
def test_every_way_to_say_that_memory_is_short_is_known(error):
    assert out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:30])
def test_other_failures_are_not_taken_for_it(error):
    assert not out_of_memory(error)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: processes meet over gloo")
@pytest.mark.parametrize("deaf", ["0", "1"], ids=["torch notices", "torch waits"])
def test_one_process_without_memory_says_what_fits_and_ends_the_others(loaded, tmp_path: Path, deaf: str):
    words = [*tiny(write_colours(tmp_path / "colours"), tmp_path / "run", "--processes", 2)]
    with loaded.ranks(ONE_IS_SHORT, *words, DEAF=deaf, LOCAL_WORLD_SIZE="2") as both:
        heard = [next(line for line in both[1].stderr if "Out of memory" in line)]
        assert gone([process.pid for process in both])
        assert [process.wait() for process in both] == [2, 2]
        said = ["".join(process.communicate()) for process in both]
    said[1] += heard[0]
    assert "Out of memory with 3 images at a time. 1 fit: add `--micro-batch 1`" in said[1]
    refusals = [line for text in said for line in text.splitlines() if line.startswith("convnext: ")]
    assert len(refusals) == 1 and "Traceback" not in said[0] + said[1]


@pytest.mark.parametrize("name", ["cn_forward", "cn_backward"])
def test_memory_that_the_compiled_kernels_lack_is_named_with_the_micro_batch_that_fits(tmp_path, monkeypatch, name):
    if reason := without_compiled():
        pytest.skip(f"NOT tested here: {reason}")
    library = compiled().library
    real, asked = getattr(library, name), list[int]()

    def short(*arguments: Any) -> int:
        asked.append(arguments[-4].value)  # N, H, W, threads
        return 1 if asked[-1] > 2 else real(*arguments)

    monkeypatch.setattr(library, name, short)
    done = convnext(*tiny(write_colours(tmp_path / "data"), tmp_path / "run"))
    assert asked[:2] == [6, 3], done.err
    assert done.status == 2 and "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith(
        "convnext: Out of memory with 6 images at a time. 1 fit: add `--micro-batch 1`"
    )
