"""Where a run happens: its device, its processes, and its folder, which nobody else may write meanwhile."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from convnext.config import RunOptions
from convnext.data.workers import remove_abandoned_rooms
from convnext.engine.claim import Claim
from convnext.engine.distributed import World, choose_device, join
from convnext.engine.memory import keep_freed_memory, want_large_pages
from convnext.engine.records import warn
from convnext.engine.replays import refuse


@contextlib.contextmanager
def workplace(options: RunOptions) -> Iterator[tuple[torch.device, World]]:
    """The device and the processes to work with, and `options.out` claimed for them."""
    device = choose_device(options.device)
    if device.type != "cuda" and options.device == "auto" and torch.cuda.device_count():
        warn("A GPU is present, but this torch cannot use it: training on the CPU.")
    if device.type == "cpu":
        want_large_pages()
        keep_freed_memory()
    with join(device) as world, Claim(Path(options.out)) if world.first else contextlib.nullcontext() as claim:
        refuse(options, device, world)
        if world.first:
            remove_abandoned_rooms()  # here, as a run that has only to be reported starts no workers
        yield device, replace(world, claim=claim)
