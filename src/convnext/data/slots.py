"""Which images of a step a process takes. A step has a slot for each image of its batch, whoever computes it: what happens
in a slot is a function of (seed, step, slot), so that any number of processes takes the same step.

Axes: N slots of one process.
"""

import numpy as np
from numpy.typing import NDArray

from convnext.data.workers import Share
from convnext.errors import DataError, number_of


def slots_of(batch: int, share: Share, *, paired: bool = False) -> NDArray[np.int64]:
    """(N,) slots of this process, of `batch` in all; shares differ by one slot at most, or by one pair.

    `paired`: slot i stays together with slot batch - 1 - i, which `mix` mixes it with, and the reverse of the share is its
    part of the reversed batch. Raises DataError where there is not something for every process.
    """
    rank, world = share
    count = (batch + 1) // 2 if paired else batch
    if count < world:
        why = ": mixup and cutmix mix its images in pairs" if paired else ""
        least = 2 * world - 1 if paired else world
        raise DataError(
            f"optim.batch = {batch} cannot be shared by {number_of(world, 'process', 'processes')}{why}. Take {least} or "
            f"more, or {number_of(count, 'process', 'processes')}."
        )
    own = np.arange(count * rank // world, count * (rank + 1) // world, dtype=np.int64)
    if not paired:
        return own
    partners = batch - 1 - own[::-1]
    return np.concatenate([own, partners[partners > own[-1]]])  # the middle one of an odd batch is its own partner
