"""The training loop. There is one, for every task, device and number of processes.

Randomness is a function of position, never of history: what happens at step s depends on (seed, s, rank) alone. That is
why a run that was killed goes on to the same bits: its state is weights, optimizer, EMA and a step number.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import RunOptions, Training
from convnext.engine.distributed import World
from convnext.engine.ema import Ema
from convnext.engine.optim import Optimizers
from convnext.engine.records import Board, Log, Meter, info, warn
from convnext.engine.run import Run, State
from convnext.engine.schedule import lr_at, total_steps, warmup_steps
from convnext.engine.signals import Stop
from convnext.engine.task import Task
from convnext.engine.update import Learnt, Update, explain_memory, out_of_memory
from convnext.errors import ConvNeXtError, TrainingError, number_of

LOG_ROWS_PER_EPOCH = 20
PATIENCE = 100  # steps after the warm-up before a flat loss is spoken of


@dataclass(frozen=True)
class Finished:
    """How a run ended: the best score, whose weights reached it, and when."""

    metric: str
    score: float
    weights: str  # 'raw' or 'ema'
    step: int


class Interrupted(ConvNeXtError):
    """A person or a scheduler asked the run to stop; its state is saved."""


def fit(
    task: Task,
    recipe: Training,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    origin: Mapping[str, str] | None = None,
) -> Finished:
    """Train `task` by `recipe` into the folder `options.out`; goes on by itself where an earlier process stopped.

    `origin` says in every checkpoint where the first weights came from.
    Raises TrainingError for a non-finite loss, missing memory or a full disk, ConvNeXtError for a folder that holds
    another run, Interrupted after SIGINT or SIGTERM (the state is saved first).
    """
    if recipe.optim.batch % world.size:
        raise ConvNeXtError(
            f"optim.batch = {recipe.optim.batch} cannot be shared by {world.size} processes. "
            f"Take {math.ceil(recipe.optim.batch / world.size) * world.size}."
        )
    model = task.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = Optimizers(model, recipe.optim)
    ema = Ema(model, recipe.optim.ema, recipe.optim.ema_warmup) if recipe.optim.ema else None
    network: nn.Module = torch.compile(model) if options.compile else model  # type: ignore[assignment]
    if world.size > 1:
        network = nn.parallel.DistributedDataParallel(network)
    update = Update(network, recipe, optimizers, ema, task.loss)
    run = Run(Path(options.out), recipe, task.describe(), model, optimizers, ema, update.scaler, origin)
    state = run.resume(world)
    loop = _Loop(task, recipe, options, device, world, model, update, run, state)
    with Stop() as stop:
        loop.run(stop)
    assert state.best, "the last step always evaluates"
    return Finished(task.metric, *_best_of(state.best))


def _best_of(found: dict[str, dict[str, Any]]) -> tuple[float, str, int]:
    """(score, weights, step) of the better of raw and EMA weights."""
    weights = max(found, key=lambda name: (found[name]["score"], -found[name]["loss"], name))
    return found[weights]["score"], weights, found[weights]["step"]


class _Loop:
    """The parts of one run while it goes."""

    def __init__(
        self,
        task: Task,
        recipe: Training,
        options: RunOptions,
        device: torch.device,
        world: World,
        model: nn.Module,
        update: Update,
        run: Run,
        state: State,
    ):
        self.task, self.recipe, self.options = task, recipe, options
        self.device, self.world, self.model = device, world, model
        self.update, self.folder, self.state = update, run, state
        self.steps = total_steps(task.steps_per_epoch, recipe.schedule)
        self.micro = options.micro_batch or recipe.optim.batch // world.size
        self.every = max(1, task.steps_per_epoch // LOG_ROWS_PER_EPOCH)
        self.saved_s = time.monotonic()
        self.pending: tuple[int, float, Learnt, list[str], float] | None = None
        self.settled: tuple[int, float, list[str]] = (0, 0.0, [])  # step, lr, files: the latest loss that was looked at

    def run(self, stop: Stop) -> None:
        """Every step that is left."""
        with contextlib.ExitStack() as opened:
            self._open(opened)
            steps = range(self.state.step, self.steps)
            for step, batch in zip(steps, self.task.batches(steps, self.world), strict=True):
                self._step(step, batch)
                if self._stop_asked(stop):
                    self._settle()
                    self._check_weights()
                    self._save()
                    raise Interrupted(f"Stopped after step {step + 1}. The same command goes on from here.")

    def _open(self, opened: contextlib.ExitStack) -> None:
        """The logs, which only the first process writes; `opened` closes them."""
        path, first = self.folder.path, self.world.first
        folder = path / "tensorboard" if self.options.tensorboard and first else None
        self.board = opened.enter_context(closing(Board(folder, self.state.step)))
        self.log = self.timings = None
        if first:
            self.log = opened.enter_context(closing(Log(path / "metrics.jsonl", start=self.state.log_bytes)))
            self.timings = opened.enter_context(closing(Log(path / "timings.jsonl")))
        shown = first and self.options.progress
        self.meter = opened.enter_context(closing(Meter(self.steps, self.state.step, label="step", shown=shown)))
        self.clock_s, self.clock_step = time.monotonic(), self.state.step

    def _step(self, step: int, batch: Any) -> None:
        seed = hash((self.recipe.seed, step, self.world.rank)) & 0x7FFFFFFF  # of integers: the same in every process
        torch.manual_seed(seed)
        self.model.train()
        per_epoch = self.task.steps_per_epoch
        lr = lr_at(step, steps_per_epoch=per_epoch, optim=self.recipe.optim, schedule=self.recipe.schedule)
        prepared = None
        try:
            prepared = self.task.prepare(batch, step=step, rank=self.world.rank, device=self.device)
            learnt = self.update(prepared, step=step, lr=lr, micro=self.micro)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise explain_memory(
                self.update, prepared, self.micro, error, smaller=self.task.smaller, exact=self.task.exact
            ) from error
        self._settle()  # of the step before: the device works on this one meanwhile
        self.pending = (step, lr, learnt, self.task.names(batch), time.monotonic())
        self.state.step = step + 1
        last = step + 1 == self.steps
        epoch, inside = divmod(step + 1, per_epoch)
        if last or not inside:
            self._settle()
            self._check_weights()
            if last or epoch % self.recipe.schedule.eval_epochs == 0:
                self._evaluate()
            self._watch()
            self._save(final=last)
        elif self._due():
            self._settle()
            self._check_weights()
            self._save()

    def _settle(self) -> None:
        """Wait for the pending step's loss, refuse it when it is not finite, and log."""
        if not self.pending:
            return
        step, lr, learnt, names, done_s = self.pending
        self.pending, self.settled = None, (step, lr, names)
        value, *parts = self.world.mean(learnt.losses)
        if not math.isfinite(value):
            raise _not_finite(f"The loss became {value}", step, lr, names)
        state = self.state
        state.losses.append(value)
        for name, part in zip(learnt.parts, parts, strict=True):
            state.parts.setdefault(name, []).append(part)
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        mean, means = _mean(state.losses), {name: _mean(values) for name, values in state.parts.items()}
        state.losses.clear()
        state.parts.clear()
        state.epoch_losses.append(mean)
        row = {"step": step + 1, "epoch": (step + 1) / self.task.steps_per_epoch, "lr": lr, "loss": mean}
        norm = None if learnt.norm is None else float(learnt.norm)
        self._write("train", {**row, "grad_norm": norm} | ({"parts": means} if means else {}))
        self._time(step + 1, mean, done_s)

    def _check_weights(self) -> None:
        """Refuse weights that are not finite, before they are scored or saved: the loss shows it one step later."""
        norms = torch._foreach_norm([weight.detach() for weight in self.update.parameters])
        if not bool(torch.stack(norms).isfinite().all()):
            raise _not_finite("Weights became inf or nan", *self.settled)

    def _time(self, step: int, loss: float, now: float) -> None:
        rate = (step - self.clock_step) * self.recipe.optim.batch / max(now - self.clock_s, 1e-9)
        if self.timings:
            self.timings.write(step=step, seconds=round(now - self.clock_s, 3), images_per_s=round(rate, 2))
        self.clock_s, self.clock_step = now, step
        self.meter.advance(f"loss {loss:.3f}  {rate:.0f} images/s", step)

    def _evaluate(self) -> None:
        """Score the raw weights and, beside them, the EMA ones; keep each when it is its best so far."""
        self.model.eval()
        with self.meter.aside():
            scores = {"raw": self._score("raw")}
            if self.update.ema:
                with self.update.ema.swapped(self.model):
                    scores["ema"] = self._score("ema")
        if self.world.first:
            shown = [
                f"{w}: {self.task.metric} {m[self.task.metric]:.4f} loss {m['loss']:.4f}" for w, m in scores.items()
            ]
            info(f"{self._place()}  " + "   ".join(shown))
        self.clock_s, self.clock_step = time.monotonic(), self.state.step

    def _place(self) -> str:
        """How far the run is, in what its recipe counts: 'epoch 3/30' or 'step 80/160'."""
        if self.recipe.schedule.steps:
            return f"step {self.state.step}/{self.steps}"
        return f"epoch {round(self.state.step / self.task.steps_per_epoch, 2):g}/{self.recipe.schedule.epochs:g}"

    def _score(self, weights: str) -> dict[str, float]:
        with torch.inference_mode(), self.update.autocast():
            metrics = self.task.evaluate(self.model, self.world)
        epoch = self.state.step / self.task.steps_per_epoch
        self._write("eval", {"step": self.state.step, "epoch": epoch, "weights": weights, **metrics})
        score = metrics[self.task.metric]
        best = self.state.best.get(weights)
        step = self.state.step
        better = best is None or (score, -metrics["loss"]) > (best["score"], -best["loss"])  # ties: by the loss
        if better and self._try(
            lambda: self.folder.save_weights(weights, score, metrics, step), final=step == self.steps
        ):
            self.state.best[weights] = {"score": score, "loss": metrics["loss"], "step": step}
        return metrics

    def _watch(self) -> None:
        """Say it when, after the warm-up, the loss is still where a network that knows nothing has it."""
        state, schedule = self.state, self.recipe.schedule
        mean = _mean(state.epoch_losses) if state.epoch_losses else 0.0
        state.epoch_losses.clear()
        epoch = state.step / self.task.steps_per_epoch
        warmup = warmup_steps(self.task.steps_per_epoch, schedule) / self.task.steps_per_epoch
        learnt = state.step - warmup * self.task.steps_per_epoch  # steps at full rate: fewer can be flat by chance
        if epoch < warmup + 1 or learnt < PATIENCE or mean < 0.98 * self.task.chance_loss or state.flat_warned:
            return
        state.flat_warned = True
        if self.world.first:
            length = number_of(state.step, "step") if schedule.steps else number_of(epoch, "epoch")
            warn(
                f"The loss is {mean:.3f} after {length}, warm-up included; guessing gives "
                f"{self.task.chance_loss:.3f}. Most likely optim.lr = {self.recipe.optim.lr:g} does not suit a batch of "
                f"{self.recipe.optim.batch} (try a third and three times of it), or the labels do not match the images."
            )

    def _write(self, kind: str, row: dict[str, Any]) -> None:
        if self.log:
            self.log.write(kind=kind, **row)
        group = kind if kind == "train" else f"val_{row['weights']}"
        figures = {**row, **row.get("parts", {})}
        self.board.scalars(row["step"], {f"{group}/{k}": v for k, v in figures.items() if k not in ("step", "epoch")})

    def _due(self) -> bool:
        every = self.options.checkpoint_steps
        if every and self.state.step % every == 0:
            return True
        late = time.monotonic() - self.saved_s > 60 * self.options.checkpoint_minutes
        return late if self.world.size == 1 else self.state.step % 100 == 0 and bool(self.world.from_first(late))

    def _save(self, *, final: bool = False) -> None:
        """Write `last`: where this run goes on. A refusal is spoken and tried again; at the end it is an error."""
        self.saved_s = time.monotonic()
        if self.world.first:
            self._try(lambda: self.folder.save_last(self.state, self.log), final=final)
        self.world.wait()

    def _try(self, save: Callable[[], None], *, final: bool) -> bool:
        """Whether it was saved, as far as this process knows."""
        if not self.world.first:
            return True
        try:
            save()
        except OSError as error:
            reason = f"Could not save into '{self.folder.path}': {error.strerror or error}."
            if final:
                raise TrainingError(
                    f"{reason} The checkpoint before it is whole: make room and give the same command again."
                ) from error
            warn(f"{reason} The run goes on and tries again; make room.")
            self.saved_s = time.monotonic() - 60 * self.options.checkpoint_minutes + 30  # again in half a minute
            return False
        return True

    def _stop_asked(self, stop: Stop) -> bool:
        if self.world.size == 1:
            return stop.asked
        return self.state.step % 10 == 0 and any(self.world.gather(stop.asked))


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _not_finite(what: str, step: int, lr: float, names: list[str]) -> TrainingError:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return TrainingError(
        f"{what} at step {step + 1} (lr {lr:.3g}); its images: {shown}. Lower optim.lr, set optim.clip (1.0 is usual) "
        "or use --precision fp32; `last`, if it was written already, holds the state before."
    )
