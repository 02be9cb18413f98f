"""When memory runs out: how it is known, and what to say."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from convnext.engine.distributed import exchange_of
from convnext.engine.given import Prepared, summed
from convnext.errors import OutOfMemory, number_of

if TYPE_CHECKING:
    from convnext.engine.update import Update

_NO_MEMORY = (  # of errors of torch that have no type of their own: the CPU's, and what a GPU's libraries and driver say
    "can't allocate memory",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "'out of memory'",  # NCCL's, of a call of CUDA
    "Failed to CUDA calloc",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def largest_that_fits(attempt: Callable[[int], None], too_many: int) -> int:
    """The largest of too_many / 2, / 4, ... for which `attempt` does not run out of memory; 0 when none does."""
    size = too_many // 2
    while size:
        try:
            attempt(size)
        except Exception as error:
            if not out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return 0


def explain_memory(
    update: "Update", batch: Prepared | None, micro: int, error: BaseException, *, smaller: str, exact: bool
) -> OutOfMemory:
    """What to say after the batch did not fit: the micro-batch that does, found by trying. None: it is not even there.

    `smaller` and `exact` are those of the task.
    """
    if update.replays:
        update.replays.forget()
    if batch is None:
        return OutOfMemory(f"Out of memory before the first layer, with the images of a step. Take {smaller}.")
    if update.sharding:  # a trial needs the weights that the other processes hold, and they are not here
        return OutOfMemory(
            f"Out of memory with {number_of(min(micro, len(batch)), 'image')} at a time. Halve that with --micro-batch, take "
            f"{smaller}, or turn on model.checkpointing."
        )
    traceback.clear_frames(error.__traceback__)  # they hold the tensors of the attempt that failed
    update.optimizers.zero_grad()
    micro = min(micro, len(batch))
    exchange = exchange_of(update.network)
    network = exchange.module if exchange else update.network  # without the exchange: the other processes are not here

    def attempt(size: int) -> None:
        if update.device == "cuda":
            torch.cuda.empty_cache()
        try:
            with update.autocast():
                loss = summed(update.loss(network, batch.split(size)[0]))
            torch.autograd.grad(loss, update.parameters, allow_unused=True)  # `backward` would wake the exchange
        finally:
            update.optimizers.zero_grad()

    fits = largest_that_fits(attempt, micro)
    if not fits:
        return OutOfMemory(
            "Out of memory even with one image at a time, as `--micro-batch 1` has it. Take a smaller model "
            f"or {smaller}, or turn on model.checkpointing."
        )
    same = "the batch and the result stay the same)" if exact else f"the batch stays the same), or take {smaller}"
    same += ", or leave out --cuda-graphs, which keep memory of their own" if update.replays else ""
    return OutOfMemory(
        f"Out of memory with {number_of(micro, 'image')} at a time. {fits} fit: add `--micro-batch {fits}` "
        f"(gradients are accumulated, so {same}."
    )


@contextmanager
def explained_memory(path: str, smaller: str) -> Iterator[None]:
    """An OutOfMemory with what to change, `smaller`, where evaluation of the one image at `path` does not fit."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(
            f"Out of memory while '{path}' was evaluated, by itself. Free the device or take --device cpu; a training run "
            f"can also have {smaller}."
        ) from error
