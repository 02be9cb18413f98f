"""The one way weights change: forward, scale, backward, unscale, clip, step, EMA; each an identity when it is off."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convnext.config import Training
from convnext.engine.chances import Chances
from convnext.engine.distributed import exchange_of
from convnext.engine.ema import Ema
from convnext.engine.given import Given, Learnt, Loss, Prepared, summed
from convnext.engine.optim import Optimizers
from convnext.engine.parts import whole
from convnext.engine.replays import Replays
from convnext.errors import TrainingError
from convnext.kernels.transfer import sent

if TYPE_CHECKING:
    from convnext.engine.sharding import Sharding

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Update:
    """One optimizer step from one prepared batch; the only place that touches the weights.

    What differs from step to step is a tensor of `Given` or of the optimizers, so that the same text can be recorded.
    """

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
        replays: Replays | None = None,
    ):
        self.network, self.loss, self.sharding = network, loss, sharding
        self.slots, self.processes = slots, processes  # (N,) of this process, in the order of its images
        self.batch = recipe.optim.batch
        self.chances = Chances(network, batch=self.batch, seed=recipe.seed)
        self.optimizers, self.ema, self.replays = optimizers, ema, replays
        self.clip = recipe.optim.clip
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        device = self.parameters[0].device.type
        self.precision = recipe.precision
        self.scaler = torch.amp.GradScaler(device, enabled=recipe.precision == "fp16")
        self.device = device

    def __call__(self, batch: Prepared, *, step: int, lr: float, micro: int) -> Learnt:
        """Learn from `batch` in pieces of `micro` images; each counts alike, however many this process has of them.

        Raises TrainingError for an update that float32 cannot hold.
        """
        share: float | Tensor = self.ema.share_at(step) if self.ema else 0.0
        if self.replays:
            share = sent(torch.tensor(share, dtype=torch.float32), self.parameters[0].device)
        given = Given(batch, micro, self.chances.at(step, self.slots), share)
        try:
            self.optimizers.set_lr(lr)
            return self.replays(self.learn, given) if self.replays else self.learn(given)
        except OverflowError as error:  # a rate times its factors, such as optim.muon_ratio
            raise TrainingError(
                f"The update of step {step + 1} is too large for float32 (lr {lr:.3g}). Lower optim.lr or what multiplies "
                "it, such as optim.muon_ratio; `last`, if it was written already, holds the state before."
            ) from error

    def learn(self, given: Given) -> Learnt:
        """The step itself: no number in it and no branch may change between steps of one shape."""
        pieces = given.batch.split(given.micro)
        total = torch.zeros(1, device=self.parameters[0].device)
        names: tuple[str, ...] = ()
        first = 0
        with self.chances.of(given.drawn):
            for i, piece in enumerate(pieces):
                share = len(piece) * self.processes / self.batch  # the exchange takes the mean over processes
                self.chances.give(slice(first, first + len(piece)))
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
        norm = self._apply()
        self.optimizers.zero_grad()
        if self.ema:
            self.ema.update(given.share)
        return Learnt(total, names, norm)

    def whole(self, model: nn.Module, weights: str) -> AbstractContextManager[nn.Module]:
        """`model` with all of its 'raw' or its 'ema' weights, to evaluate; all processes have to ask."""
        if self.sharding:
            return self.sharding.whole(self.ema.tensors() if self.ema and weights == "ema" else model.state_dict())
        return self.ema.swapped(model) if self.ema and weights == "ema" else nullcontext(model)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the recipe for everything inside."""
        return autocast(self.precision, self.device)

    def _apply(self) -> Tensor | None:
        norm = None
        self.optimizers.take_gradients()
        if self.clip:
            self.scaler.unscale_(self.optimizers.one)
            norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.clip))
        try:
            self.scaler.step(self.optimizers.one)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise OverflowError("a factor of the update") from error
        self.scaler.update()
        return norm

    def _synchronised(self, *, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with the last micro-batch."""
        if self.sharding:
            self.sharding.exchange(now=last)
            return nullcontext()
        exchange = exchange_of(self.network)
        return nullcontext() if last or exchange is None else exchange.no_sync()


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """'fp32', 'bf16' or 'fp16' for the forward passes inside, on a device type such as 'cuda'."""
    return nullcontext() if precision == "fp32" else torch.autocast(device, dtype=DTYPES[precision])
