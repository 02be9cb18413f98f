"""Processes that compute on GPUs, without one: which each takes, what NCCL's errors mean, how long the first is waited for."""

import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from convnext.engine import distributed, faults, launcher
from convnext.engine.arrivals import Arrivals
from convnext.engine.distributed import World, choose_device, join
from convnext.engine.shortage import out_of_memory
from convnext.errors import ConvNeXtError

# As torch 2.11 has them, of NCCL 2.27
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {}, NCCL version 2.27.7\n{}\nLast error:\n{}"
)
SAME = NCCL.format(
    "invalid usage (run with NCCL_DEBUG=WARN for details)",
    "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
    "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
)
NO_NETWORK = NCCL.format(
    "unhandled system error",
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
    "Bootstrap : no socket interface found",
)
CLOSED = NCCL.format(
    "unhandled system error",
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
    "socketProgress: Connection closed by remote peer node2<43712>",
)
REMOTE = NCCL.format(
    "remote process exited or there was a network error",
    "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    "NET/IB: Got completion from peer 10.0.0.5<57231> with status=12",
)
FULL = NCCL.format(
    "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    "ncclUnhandledCudaError: Call to CUDA function failed.",
    "Cuda failure 2 'out of memory'",
)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with two, as far as `choose_device` asks, and the one that became current."""
    found = SimpleNamespace(current=None)
    for name, value in {"is_available": lambda: True, "device_count": lambda: 2}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(found, "current", device))
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_takes_the_gpu_of_its_number_and_makes_it_the_current_one(gpus, monkeypatch, name):
    assert choose_device(name) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(name) == gpus.current == torch.device("cuda", 1)


def test_more_processes_than_gpus_and_one_gpu_for_several_are_refused_in_one_line(gpus, monkeypatch):
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    for variable, value in {"WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 3, "LOCAL_RANK": 2}.items():
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(ConvNeXtError, match=r"^3 processes on this machine and 2 GPUs: .* Start 2 here"):
        choose_device("auto")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConvNeXtError, match=r"^--device cuda:1 is one GPU, and there are 3 processes on this machine"):
        choose_device("cuda:1")


@pytest.mark.parametrize("text", [CLOSED, REMOTE])
def test_what_nccl_says_of_another_process_that_is_gone_is_a_loss(text):
    assert faults.lost(dist.DistBackendError(text))


@pytest.mark.parametrize("text", [SAME, NO_NETWORK, FULL])
def test_what_nccl_finds_wrong_here_is_told_and_no_loss(text):
    error = dist.DistBackendError(text)
    assert not faults.lost(error)
    assert text.splitlines()[-1] in faults.fault(error) and "\n" not in faults.fault(error)


def test_memory_that_nccl_lacks_is_lack_of_memory():
    assert out_of_memory(dist.DistBackendError(FULL)) and not out_of_memory(dist.DistBackendError(SAME))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two processes have met, of which this is one, in a store of its own."""
    watch = SimpleNamespace(gone=threading.Event(), say=lambda word: None, close=lambda word: None)
    store = dist.HashStore()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(launcher, "meet", lambda: launcher.Meeting(store, 0, 2, watch))
    monkeypatch.setattr(launcher, "leave", lambda: True)
    monkeypatch.setattr(distributed, "ENDED_S", 0.0)
    return watch


def test_processes_that_cannot_talk_say_why_and_not_that_one_was_lost(two, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError(
            "[enforce fail at gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: x"
        )

    monkeypatch.setattr(dist, "init_process_group", refused)
    with (
        pytest.raises(
            ConvNeXtError, match=r"cannot talk .* by gloo: .*Unable to find address for: x. .*GLOO_SOCKET_IFNAME"
        ),
        join(torch.device("cpu")),
    ):
        pass
    two.gone.set()
    with pytest.raises(launcher.PeerLost), join(torch.device("cpu")):
        pass


def test_a_fault_of_nccl_ends_a_run_in_its_own_words(two, monkeypatch):
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    with (
        pytest.raises(ConvNeXtError, match="ncclInvalidUsage: Duplicate GPU detected") as told,
        join(torch.device("cuda", 0)),
    ):
        raise dist.DistBackendError(SAME)
    assert not isinstance(told.value, launcher.PeerLost)


def test_whoever_meets_by_nccl_names_its_gpu(monkeypatch):
    named: list[object] = []
    monkeypatch.setattr(dist, "barrier", lambda device_ids: named.append(device_ids))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for backend in ("nccl", "gloo"):
        monkeypatch.setattr(dist, "get_backend", lambda backend=backend: backend)
        World(0, 2).wait()
    assert named == [[3], None]


def test_the_first_process_is_waited_for_as_long_as_it_takes_and_never_for_what_it_has_done_before():
    store, seen = dist.HashStore(), []
    store.set_timeout(timedelta(milliseconds=1))  # of torch's own waiting
    first, other = Arrivals(store), Arrivals(store)

    def come() -> None:
        for place in range(3):
            other.meet(first=False)
            seen.append(place)

    first.meet(first=True)
    thread = threading.Thread(target=come)
    thread.start()
    while not seen:
        time.sleep(0.001)
    assert seen == [0]
    first.meet(first=True)
    first.meet(first=True)
    thread.join()
    assert seen == [0, 1, 2]


def test_a_first_process_that_is_done_and_gone_holds_nobody():
    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise dist.DistNetworkError("Connection reset by peer")

    Arrivals(Gone()).meet(first=False)  # type: ignore[arg-type]
