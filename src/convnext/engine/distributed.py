"""One process or many: who am I, how many are we, and how results come together. Started by `torchrun`."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _abort_process_group

from convnext.config import RunOptions, Training
from convnext.engine import faults, launcher
from convnext.engine.arrivals import Arrivals
from convnext.engine.claim import Claim
from convnext.engine.compiled import InParts
from convnext.engine.forks import survive
from convnext.engine.peers import ENDED_S, Word
from convnext.engine.records import info
from convnext.errors import ConvNeXtError, Interrupted, OutOfMemory, number_of
from convnext.processes import starter

if TYPE_CHECKING:
    from convnext.engine.sharding import Sharding


@dataclass(frozen=True)
class World:
    """The processes of this run; a plain run is a world of one."""

    rank: int = 0
    size: int = 1
    claim: Claim | None = None  # of the first process on the folder of the run
    arrivals: Arrivals | None = None  # where the others see that the first has come

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def writes(self) -> bool:
        """Whether this process writes files. Raises TrainingError where the folder is no longer ours; see `Claim.check`."""
        if self.claim:
            self.claim.check()
        return self.first

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def summed(self, values: Tensor) -> Tensor:
        """The sums of (P,) values over all processes, on the device of these."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return once every process is here; for the first, which may have had long to do, as long as it takes."""
        if self.size > 1:
            self._meet()
            on_gpus = dist.get_backend() == "nccl"  # which guesses a device, and warns, unless it is told
            dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpus else None)

    def from_first(self, value: Any) -> Any:
        """The value of rank 0, in every process; it may have taken as long as it takes."""
        values = [value]
        if self.size > 1:
            self._meet()
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def _meet(self) -> None:
        if self.arrivals:
            self.arrivals.meet(first=self.first)


ALONE = World()


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """The world that `torchrun` describes in the environment; leaves it at the end.

    Raises PeerLost where another process ends first, ConvNeXtError where one does not come.
    """
    survive()  # whoever trained may fork
    size = launcher.processes()
    if size == 1:
        yield World()
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        starter().outlive()
    met = launcher.meet()
    word: Word = "left"
    try:
        _talk(met, "nccl" if device.type == "cuda" else "gloo")
        yield World(met.rank, met.size, arrivals=Arrivals(met.store) if met.peers else None)
        word = "done"
    except Interrupted:  # all of them, after the same step, and the first still has files to write
        word = "done"
        raise
    except BaseException as error:
        first = launcher.leave()
        if faults.lost(error):
            word = "lost"
            raise launcher.PeerLost(first) from None
        word = "left" if isinstance(error, ConvNeXtError) and not isinstance(error, OutOfMemory) else "failed"
        if reason := faults.fault(error):
            raise ConvNeXtError(reason) from error
        raise
    finally:
        if met.peers and word != "done":
            met.peers.say(word)
        _leave_group(alone=word != "done")
        if met.peers:  # until here, for torch may wait for those that are gone
            met.peers.close(word)


def _talk(met: launcher.Meeting, backend: str) -> None:
    """Connect the processes. Raises ConvNeXtError where the network between them does not."""
    limit = timedelta(seconds=launcher.PATIENCE_S)
    try:
        dist.init_process_group(backend, store=met.store, rank=met.rank, world_size=met.size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        if met.peers and met.peers.gone.wait(ENDED_S / 2):  # nothing is wrong with the network
            raise
        raise ConvNeXtError(faults.apart(error, backend)) from error


def _leave_group(*, alone: bool) -> None:
    """End what torch holds of the others; `alone`: they are not here, and whoever waits for them waits without end."""
    if not dist.is_initialized():
        return
    if not alone:
        dist.destroy_process_group()
        return

    def leave() -> None:
        with contextlib.suppress(Exception):  # another error has ended this process, and is told
            (_abort_process_group if dist.get_backend() == "nccl" else dist.destroy_process_group)()

    leaving = threading.Thread(target=leave, name="process group", daemon=True)
    leaving.start()
    leaving.join(ENDED_S / 2)  # before the others end, which would end this process before its message


def network_of(model: nn.Module, world: World, *, compiled: bool) -> nn.Module:
    """`model` as training calls it: its gradients exchanged between processes, and compiled where that is asked for.

    The exchange comes first, as torch asks: the compiler then cuts its graphs where gradients are ready to be sent. A
    gradient is a view of what is sent, not a copy. The graph is not said to be static: micro-batches exchange with the last
    one alone, and a detector's heads may find no object to learn from.

    Of a network that has `compiled_parts`, each of them is compiled by itself.
    """
    network, parts = model, getattr(model, "compiled_parts", None)
    if world.size > 1:
        network = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    if not compiled:
        return network
    return torch.compile(network) if parts is None else InParts(network, parts())  # type: ignore[return-value]


def sharding_of(model: nn.Module, recipe: Training, options: RunOptions, world: World) -> "Sharding | None":
    """`model`, on its device, cut into parts where that is asked for and there are processes to hold them.

    Raises ConvNeXtError for fp16, whose scale every process would choose for itself.
    """
    if not options.shard_weights:
        return None
    if recipe.precision == "fp16":
        raise ConvNeXtError(
            "--shard-weights is refused with precision = fp16: each process would scale its losses by itself. Take bf16."
        )
    if world.size == 1:
        info("One process holds all weights: --shard-weights has nobody to share them with.")
        return None
    from convnext.engine.sharding import Sharding  # its import takes seconds

    return Sharding(model, compiled=options.compile)


def sees_other_images(model: nn.Module, world: World) -> bool:
    """Whether what `model` makes of an image in training depends on which others the same process has."""
    return world.size > 1 and any(isinstance(each, nn.BatchNorm2d) and each.training for each in model.modules())


def exchange_of(network: nn.Module) -> nn.parallel.DistributedDataParallel | None:
    """What exchanges gradients in a network that `network_of` made; None for one process."""
    inner = network.network if isinstance(network, InParts) else getattr(network, "_orig_mod", network)
    return inner if isinstance(inner, nn.parallel.DistributedDataParallel) else None


def choose_device(name: str) -> torch.device:
    """'auto' takes this process's GPU, else Apple's, else the CPU. Raises ConvNeXtError for a device that is not there.

    A GPU becomes the current one: page-locked memory, streams and collectives are then its own.
    """
    device = _found(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _found(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return _own_gpu()
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # also refuses devices that hold no values, such as 'meta'
    except (RuntimeError, AssertionError, NotImplementedError):
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ConvNeXtError(f"--device {name}: there is no such device here. Found: {', '.join(found)}.") from None
    if device.type != "cuda":
        return device
    if device == torch.device("cuda"):
        return _own_gpu()
    _, here = launcher.place_here()
    if here > 1:
        raise ConvNeXtError(
            f"--device {name} is one GPU, and there are {here} processes on this machine. Leave it out: each takes its own."
        )
    return device


def _own_gpu() -> torch.device:
    """That of this process. Raises ConvNeXtError where a machine has more processes than GPUs."""
    (number, here), count = launcher.place_here(), torch.cuda.device_count()
    if number >= count:
        raise ConvNeXtError(
            f"{number_of(here, 'process', 'processes')} on this machine and {number_of(count, 'GPU')}: each takes one of its "
            f"own. Start {count} here, or take --device cpu."
        )
    return torch.device("cuda", number)
