"""The one way weights change: forward, scale, backward, unscale, clip, step, EMA; each an identity when it is off."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnext.config import Training
from convnext.engine.chances import Chances
from convnext.engine.distributed import exchange_of
from convnext.engine.ema import Ema
from convnext.engine.optim import Optimizers
from convnext.engine.parts import whole
from convnext.errors import OutOfMemory, TrainingError, number_of

if TYPE_CHECKING:
    from convnext.engine.sharding import Sharding

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
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Prepared(Protocol):
    """A batch on its device, ready for the network, that can be cut into micro-batches."""

    def __len__(self) -> int: ...

    def split(self, size: int) -> Sequence[Any]:
        """Pieces of at most `size` images, in order."""
        ...


# The mean over the images that it is given; or, by name, the parts whose sum that is.
Loss = Callable[[nn.Module, Any], Tensor | Mapping[str, Tensor]]


@dataclass(frozen=True)
class Learnt:
    """What one step had to learn from, before it; tensors that are not yet waited for."""

    losses: (
        Tensor  # (1 + P,) float32 or wider: the mean loss, then its P parts, in one piece so that one look fetches all
    )
    parts: tuple[str, ...]  # their names
    norm: Tensor | None  # () of the gradient, with clipping on


class Update:
    """One optimizer step from one prepared batch; the only place that touches the weights."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Training,
        optimizers: Optimizers,
        ema: Ema | None,
        loss: Loss,
        slots: NDArray[np.int64],
        processes: int = 1,
        sharding: "Sharding | None" = None,
    ):
        self.network, self.loss, self.sharding = network, loss, sharding
        self.slots, self.processes = slots, processes  # (N,) of this process, in the order of its images
        self.batch = recipe.optim.batch
        self.chances = Chances(network, batch=self.batch, seed=recipe.seed)
        self.optimizers, self.ema = optimizers, ema
        self.clip = recipe.optim.clip
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        device = self.parameters[0].device.type
        self.precision = recipe.precision
        self.scaler = torch.amp.GradScaler(device, enabled=recipe.precision == "fp16")
        self.device = device

    def __call__(self, batch: Prepared, *, step: int, lr: float, micro: int) -> Learnt:
        """Learn from `batch` in pieces of `micro` images; each counts alike, however many this process has of them."""
        self.optimizers.set_lr(lr)
        pieces = batch.split(micro)
        total = torch.zeros(1, device=self.parameters[0].device)
        names: tuple[str, ...] = ()
        first = 0
        with self.chances.of(step):
            for i, piece in enumerate(pieces):
                share = len(piece) * self.processes / self.batch  # the exchange takes the mean over processes
                self.chances.give(self.slots[first : first + len(piece)])
                first += len(piece)
                with self._synchronised(last=i == len(pieces) - 1):
                    with self.autocast():
                        answer = self.loss(self.network, piece)
                        loss = summed(answer)
                    self.scaler.scale(loss * share).backward()
                parts = {} if isinstance(answer, Tensor) else answer
                names = tuple(parts)
                found = torch.stack([each.detach() for each in (loss, *parts.values())])
                total = total + found.to(torch.promote_types(found.dtype, total.dtype)) * share
        norm = self._apply(step, lr)
        self.optimizers.zero_grad()
        if self.ema:
            self.ema.update(step)
        return Learnt(total, names, norm)

    def whole(self, model: nn.Module, weights: str) -> AbstractContextManager[nn.Module]:
        """`model` with all of its 'raw' or its 'ema' weights, to evaluate; all processes have to ask."""
        if self.sharding:
            return self.sharding.whole(self.ema.tensors() if self.ema and weights == "ema" else model.state_dict())
        return self.ema.swapped(model) if self.ema and weights == "ema" else nullcontext(model)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the recipe for everything inside."""
        return autocast(self.precision, self.device)

    def _apply(self, step: int, lr: float) -> Tensor | None:
        norm = None
        self.optimizers.take_gradients()
        if self.clip:
            for optimizer in self.optimizers.all:
                self.scaler.unscale_(optimizer)
            norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.clip))
        try:
            for optimizer in self.optimizers.all:
                self.scaler.step(optimizer)
        except RuntimeError as error:  # a rate times its factors, such as optim.muon_ratio, that float32 cannot hold
            if "overflow" not in str(error):
                raise
            raise TrainingError(
                f"The update of step {step + 1} is too large for float32 (lr {lr:.3g}). Lower optim.lr or what multiplies "
                "it, such as optim.muon_ratio; `last`, if it was written already, holds the state before."
            ) from error
        self.scaler.update()
        return norm

    def _synchronised(self, *, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with the last micro-batch."""
        if self.sharding:
            self.sharding.exchange(now=last)
            return nullcontext()
        exchange = exchange_of(self.network)
        return nullcontext() if last or exchange is None else exchange.no_sync()


def summed(loss: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The () loss, of which a task may have named the parts."""
    return loss if isinstance(loss, Tensor) else torch.stack(list(loss.values())).sum()


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """'fp32', 'bf16' or 'fp16' for the forward passes inside, on a device type such as 'cuda'."""
    return nullcontext() if precision == "fp32" else torch.autocast(device, dtype=DTYPES[precision])


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
    update: Update, batch: Prepared | None, micro: int, error: BaseException, *, smaller: str, exact: bool
) -> OutOfMemory:
    """What to say after the batch did not fit: the micro-batch that does, found by trying. None: it is not even there.

    `smaller` and `exact` are those of the task.
    """
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
