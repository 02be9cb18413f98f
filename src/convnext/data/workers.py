"""What every loader of images needs: a replacement for what breaks, and processes that read ahead."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from convnext.cores import cores
from convnext.data.sampler import Order
from convnext.data.store import printable
from convnext.errors import ConvNeXtError, DataError, reason_of
from convnext.files import remove_abandoned, workroom
from convnext.processes import Parent, deaf_children

Share = tuple[int, int]  # (rank, world)
Read = TypeVar("Read")


class Reader(Protocol):
    """What reads the items of a plan. A refusal, a ConvNeXtError, is raised or returned."""

    def __len__(self) -> int:
        """Images."""
        ...

    def __getitem__(self, item: Any) -> Any:
        """A batch."""
        ...

    def expect(self, items: Sequence[Any]) -> None:
        """Begin to fetch the files of `items`, which are read next, where that takes time."""
        ...


class Named(Protocol):
    """An entry of a dataset, as far as messages need it."""

    @property
    def path(self) -> str:
        """As the user gave it."""
        ...


_TINY = 512  # images that are read faster than a process starts
_MOST_WORKERS, _MOST_BESIDE_A_GPU = 8, 64
_ROOM = "cnx"  # short: a socket's path must fit in 108 bytes
_LONGEST_ROOM = 108 - len("/pymp-12345678/listener-12345678")
_SHM = "/dev/shm"  # where batches travel between processes on Linux


def remove_abandoned_rooms() -> None:
    """Remove the folders in which workers of killed processes met."""
    remove_abandoned(Path(tempfile.gettempdir()), _ROOM)


def eval_plan(count: int, batch: int, share: Share) -> list[tuple[int, int]]:
    """(first, last) of each batch of this rank's share of `count` images: every image once, in order."""
    rank, world = share
    first, last = count * rank // world, count * (rank + 1) // world
    return [(start, min(start + batch, last)) for start in range(first, last, batch)]


class Replacing:
    """Reads the image at a place of an epoch's order, or the next that can be read. Lives in one process."""

    def __init__(self, entries: Sequence[Named], seed: int, order: Order, strict: bool):
        self.entries, self.seed, self.order, self.strict = entries, seed, order, strict
        self.broken: dict[int, str] = {}  # found by this process: not decoded a second time

    def read(
        self, epoch: int, position: int, skipped: dict[str, str], attempt: Callable[[int, tuple[int, ...]], Read]
    ) -> tuple[int, Read]:
        """(index, `attempt(index, key)`), where the key is that of this image in this place of this epoch.

        What breaks is named in `skipped`. Raises DataError when nothing can be read or, under `strict`, at once.
        """
        count = len(self.entries)
        for later in range(count):
            lap, place, index = self.found(epoch, position + later)
            key = (self.seed, epoch, index, lap, later)
            try:
                if index in self.broken:
                    raise DataError(self.broken[index])
                return index, attempt(index, (*key, place) if self.order.repeats else key)
            except (DataError, OSError) as error:
                path, reason = printable(self.entries[index].path), reason_of(error)
                if self.strict:
                    raise DataError(f"'{path}': {reason}. Mend or remove it, or train without strict images.") from None
                skipped[path] = reason
                if isinstance(error, DataError):  # an OSError may be a passing trouble of the disk
                    self.broken[index] = reason
        path, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {count} images can be read; the first is '{path}': {reason}.")

    def found(self, epoch: int, position: int) -> tuple[int, int, int]:
        """(lap, place in its order, index) of the image at a position of an epoch, which may lie beyond its end."""
        lap, place = divmod(position, len(self.entries))
        return lap, place, int(self.order(epoch, lap)[place])


def read_ahead(
    reader: Reader, plan: Sequence[Any], workers: int, batch_bytes: int, world: int, *, pin: bool = True
) -> Iterator[Any]:
    """`reader[item]` for each item of `plan`, in order, by `workers` processes; 0: by this one, when it is asked.

    A reader returns a DataError, which is raised here, in place of raising it. `batch_bytes`: what a batch takes of the
    shared memory. `pin`: tensors go to page-locked memory where this run computes on a GPU.
    """
    pin = pin and bool(torch.cuda.is_initialized())
    workers, ahead = _fit_shared_memory(min(workers, len(plan)), batch_bytes, world)
    if workers == 0:
        answering = _Answering(reader, plan, 1)
        for place in range(len(plan)):
            read = _unwrap(answering[place])
            yield read.pin_memory() if pin else read
        return
    with workroom(Path(tempfile.gettempdir()), _ROOM) as room:
        batches = _start(reader, plan, workers, ahead, pin, room)
        try:
            for batch in batches:
                yield _unwrap(batch)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a process that reads images was ended by the system, most often for want of memory. "
                "Lower --workers, or take --cache off."
            ) from error
        finally:
            del batches  # ends the workers, which have files in the room


def _start(
    reader: Reader, plan: Sequence[Any], workers: int, ahead: int | None, pin: bool, room: Path
) -> Iterator[Any]:
    """The running DataLoader, with its own generator: what ours draws must not depend on how many workers there are."""
    answering: Any = _Answering(reader, plan, workers)
    with warnings.catch_warnings(), deaf_children():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # the user chose the number
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)  # workers use one thread
        return iter(
            DataLoader(
                answering,
                sampler=range(len(plan)),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=ahead,
                collate_fn=_as_it_is,
                pin_memory=pin,
                worker_init_fn=partial(_start_worker, Parent.here(), room),
                generator=torch.Generator(),
                multiprocessing_context="fork" if hasattr(os, "fork") else "spawn",
            )
        )


def _unwrap(batch: Any) -> Any:
    if isinstance(batch, ConvNeXtError):
        raise batch
    return batch


class _Answering:
    """A reader whose refusals are answers, which cross from a process to the one that asked as the line that they are.

    Items are asked for by their places in the plan, which `workers` processes take in turn.
    """

    def __init__(self, reader: Reader, plan: Sequence[Any], workers: int):
        self.reader, self.plan, self.workers = reader, plan, workers

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, place: int) -> Any:
        try:
            self.reader.expect(self.plan[place : place + self.workers + 1 : self.workers])  # this one, and its next
            return self.reader[self.plan[place]]
        except ConvNeXtError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(parent: Parent, room: Path, _: int) -> None:
    parent.outlive(deaf=True)  # what asks a run to stop is answered by the process that trains, once it has saved
    if len(str(room)) < _LONGEST_ROOM:
        tempfile.tempdir = str(room)  # sockets by which tensors are handed over: a killed worker leaves them
    torch.set_num_threads(1)


def choose_workers(workers: int, count: int, world: int) -> int:
    """-1: none for a tiny set, else a share of the cores that this process may use; the network needs the rest.

    Beside a GPU it needs one alone: reading is what keeps the GPU waiting (benchmarks/feed.py).
    """
    if workers >= 0:
        return workers
    own = max(1, cores() // local_ranks(world))
    if count <= _TINY or own <= 2:
        return 0 if count <= _TINY else 1
    return min(own - 1, _MOST_BESIDE_A_GPU) if torch.cuda.is_initialized() else min(own, _MOST_WORKERS)


def local_ranks(world: int) -> int:
    """Ranks on this machine, as torchrun tells them."""
    return min(world, int(os.environ.get("LOCAL_WORLD_SIZE", world)))


def _fit_shared_memory(workers: int, batch_bytes: int, world: int) -> tuple[int, int | None]:
    """(workers, batches read ahead by each) that fit in half of the shared memory, which containers keep small."""
    if workers == 0:
        return 0, None
    ahead = 4 if workers == 1 else 2
    try:
        room = os.statvfs(_SHM)
    except (OSError, AttributeError):
        return workers, ahead
    batches = room.f_bavail * room.f_frsize // 2 // local_ranks(world) // max(1, batch_bytes)
    workers = min(workers, batches)
    return (workers, max(1, min(ahead, batches // workers))) if workers else (0, None)
