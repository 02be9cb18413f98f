"""The training loop. There is one, for every task, device and number of processes.

Randomness is a function of position, never of history: what happens to an image at step s depends on its slot in the
batch, (seed, s, slot), alone. That is why a run that was killed goes on to the same bits, and with another number of
processes to the same losses: its state is weights, optimizer, EMA and a step number.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import RunOptions, Training
from convnext.engine.distributed import World, sees_other_images
from convnext.engine.forecast import Forecast, Work
from convnext.engine.journal import Journal, opened
from convnext.engine.learning import learn, micro_of, update_of
from convnext.engine.records import info
from convnext.engine.run import Run, State
from convnext.engine.saving import Saver
from convnext.engine.schedule import evaluations_until, total_steps
from convnext.engine.scored import Watcher, show
from convnext.engine.signals import Stop
from convnext.engine.task import Task
from convnext.engine.update import Update
from convnext.engine.watching import mean_of, refuse_broken_weights, refuse_not_finite, warn_if_flat
from convnext.errors import Interrupted, number_of
from convnext.kernels.cpu import bf16_matmuls
from convnext.kernels.dispatch import without_compiled
from convnext.kernels.transfer import Fetched

LOG_ROWS_PER_EPOCH = 20


@dataclass(frozen=True)
class Finished:
    """How a run ended: the best score, whose weights reached it, and when."""

    metric: str
    score: float
    weights: str  # 'raw' or 'ema'
    step: int
    early: bool = False  # whether schedule.patience ended it before its last step


def fit(
    task: Task,
    recipe: Training,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    origin: Mapping[str, str] | None = None,
    work: Work | None = None,
    watcher: Watcher | None = None,
) -> Finished:
    """Train `task` by `recipe` into the folder `options.out`; goes on by itself where an earlier process stopped.

    `origin` says in every checkpoint where the first weights came from. With `work` the first steps of a new run tell
    how long it will take. `watcher` is called after each evaluation, in the first process alone.
    Raises TrainingError for a non-finite loss, missing memory or a full disk, ConvNeXtError for a folder that holds
    another run, Interrupted after SIGINT or SIGTERM (the state is saved first).
    """
    update = update_of(task, recipe, options, device=device, world=world)
    model, optimizers, ema = task.model, update.optimizers, update.ema
    about = (recipe, task.describe())
    folder = Run(Path(options.out), *about, model, optimizers, ema, update.scaler, origin, update.sharding)
    state = folder.resume(world)
    steps = total_steps(task.steps_per_epoch, recipe.schedule)
    folder.require_place(state, steps)
    if world.first and sees_other_images(task.model.train(), world):
        info("Batch norms see the images of one process alone: another number of processes is another run.")

    def faster() -> bool:
        return recipe.precision == "fp32" and device.type == "cpu" and not without_compiled() and bf16_matmuls()

    forecast = Forecast(work, faster=faster) if work and world.first and not state.step else None
    with Stop() as stop, opened(folder, options, state, steps=steps, world=world) as journal:
        saver = Saver(folder, options, world, state)
        micro = micro_of(options, update)
        _Loop(task, recipe, device, world, update, state, journal, saver, micro, forecast, watcher).run(stop)
    assert state.best, "the last step always evaluates"
    finished = Finished(task.metric, *_best_of(state.best), early=state.step < steps)
    if finished.early and world.first:
        places = (_reached(state.best), state.step)
        best, ended = (_place(step, steps, task.steps_per_epoch, recipe) for step in places)
        waited = number_of(recipe.schedule.patience, "evaluation")
        info(f"Stopped early at {ended}: {waited} in a row without a better {task.metric} than at {best}.")
    return finished


def _best_of(found: dict[str, dict[str, Any]]) -> tuple[float, str, int]:
    """(score, weights, step) of the better of raw and EMA weights."""
    weights = max(found, key=lambda name: (found[name]["score"], -found[name]["loss"], name))
    return found[weights]["score"], weights, found[weights]["step"]


def _reached(found: dict[str, dict[str, Any]]) -> int:
    """The step at which the best score was first there, whatever became of the loss since."""
    score = max(best["score"] for best in found.values())
    return min(best.get("since", best["step"]) for best in found.values() if best["score"] == score)


def _place(step: int, steps: int, steps_per_epoch: int, recipe: Training) -> str:
    """How far a run is, in what its recipe counts: 'epoch 3/30' or 'step 80/160'."""
    if recipe.schedule.steps:
        return f"step {step}/{steps}"
    return f"epoch {round(step / steps_per_epoch, 2):g}/{recipe.schedule.epochs:g}"


@dataclass(frozen=True)
class _Pending:
    """A step that the device may still be at work on."""

    step: int
    lr: float
    coming: Fetched  # (1 + P,) sums over processes of the loss and its parts; then the gradient's norm, with clipping
    parts: tuple[str, ...]
    names: list[str]  # the files of its batch
    done_s: float


class _Loop:
    """The parts of one run while it goes."""

    def __init__(
        self,
        task: Task,
        recipe: Training,
        device: torch.device,
        world: World,
        update: Update,
        state: State,
        journal: Journal,
        saver: Saver,
        micro: int,
        forecast: Forecast | None,
        watcher: Watcher | None,
    ):
        self.task, self.recipe, self.device, self.world = task, recipe, device, world
        self.update, self.state, self.journal, self.saver = update, state, journal, saver
        self.micro, self.forecast, self.watcher = micro, forecast, watcher
        self.steps = total_steps(task.steps_per_epoch, recipe.schedule)
        self.every = max(1, task.steps_per_epoch // LOG_ROWS_PER_EPOCH)
        self.pending: _Pending | None = None
        self.settled: tuple[int, float, list[str]] = (0, 0.0, [])  # step, lr, files: the latest loss that was looked at

    def run(self, stop: Stop) -> None:
        """Every step that is left, as long as patience lasts."""
        steps = range(self.state.step, self.steps)
        if self._patience_is_over():  # of a run that ended so before
            return
        for step, batch in zip(steps, self.task.batches(steps, self.world), strict=True):
            self._step(step, batch)
            if self._patience_is_over():
                return
            if self._stop_asked(stop):
                self._settle_whole()
                self.saver.save(self.journal.log)
                self.saver.settle()
                raise Interrupted(f"Stopped after step {step + 1}. The same command goes on from here.")

    def _step(self, step: int, batch: Any) -> None:
        how: dict[str, Any] = {"device": self.device, "world": self.world, "micro": self.micro}
        lr, learnt = learn(self.task, self.update, self.recipe, step, batch, **how)
        found = self.world.summed(learnt.losses)
        coming = Fetched(found if learnt.norm is None else torch.cat([found, learnt.norm[None]]))
        self._settle()  # of the step before: the device works on this one meanwhile
        self.pending = _Pending(step, lr, coming, learnt.parts, self.task.names(batch), time.monotonic())
        self.state.step = step + 1
        last = step + 1 == self.steps
        ends, scored = last or (step + 1) % self.task.steps_per_epoch == 0, last or self._scored_after(step + 1)
        if ends or scored:
            self._settle_whole()
            if scored:
                self._evaluate()
                last = last or self._patience_is_over()
            if ends:
                warn_if_flat(
                    self.state,
                    self.recipe,
                    steps_per_epoch=self.task.steps_per_epoch,
                    chance_loss=self.task.chance_loss,
                    spoken=self.world.first,
                )
            self.saver.save(self.journal.log, final=last)
        elif self.saver.due:
            self._settle_whole()
            self.saver.save(self.journal.log)
        if self.forecast:
            self.forecast.passed(step + 1, time.monotonic(), tell=info)

    def _settle(self) -> None:
        """Wait for the pending step's loss, refuse it when it is not finite, and log."""
        if not self.pending:
            return
        done, self.pending = self.pending, None
        self.settled = (done.step, done.lr, done.names)
        found = done.coming.values().tolist()
        value, *parts = [each / self.world.size for each in found[: 1 + len(done.parts)]]
        refuse_not_finite(value, *self.settled)
        state, step = self.state, done.step + 1
        state.losses.append(value)
        for name, part in zip(done.parts, parts, strict=True):
            state.parts.setdefault(name, []).append(part)
        if step % self.every and step != self.steps:
            return
        mean, means = mean_of(state.losses), {name: mean_of(values) for name, values in state.parts.items()}
        state.losses.clear()
        state.parts.clear()
        state.epoch_losses.append(mean)
        row = {"step": step, "epoch": step / self.task.steps_per_epoch, "lr": done.lr, "loss": mean}
        norm = next(iter(found[1 + len(parts) :]), None)
        self.journal.write("train", {**row, "grad_norm": norm} | ({"parts": means} if means else {}))
        self.journal.time(step, mean, self.recipe.optim.batch, done.done_s)

    def _settle_whole(self) -> None:
        """The same, and the weights after it are sound: they may be scored and saved."""
        self._settle()
        refuse_broken_weights(self.update.parameters, *self.settled, world=self.world)

    def _evaluate(self) -> None:
        """Score the raw weights and, beside them, the EMA ones; keep each when it is its best so far."""
        started, scores = time.monotonic(), {}
        place = _place(self.state.step, self.steps, self.task.steps_per_epoch, self.recipe)
        self.task.model.eval()
        with self.journal.meter.aside():
            for weights in ("raw", "ema") if self.update.ema else ("raw",):
                with self.update.whole(self.task.model, weights) as network:
                    scores[weights] = self._score(weights, network)
            if (self.watcher and self.world.first) or self.update.sharding:
                show(self.watcher, self.task, self.update, scores, place)
        if self.world.first:
            shown = [
                f"{w}: {self.task.metric} {m[self.task.metric]:.4f} loss {m['loss']:.4f}" for w, m in scores.items()
            ]
            info(f"{place}  " + "   ".join(shown))
        self.journal.restart_clock(self.state.step)
        if self.forecast:
            self.forecast.evaluated(time.monotonic() - started)

    def _patience_is_over(self) -> bool:
        """Whether schedule.patience ends the run at this step: it follows from the scores so far, as they are saved."""
        state, schedule = self.state, self.recipe.schedule
        if not schedule.patience or not state.best or state.step == self.steps or not self._scored_after(state.step):
            return False
        waited = self._evaluations(state.step) - self._evaluations(_reached(state.best))
        return bool(self.world.from_first(waited >= schedule.patience))  # the others do not know what the disk refused

    def _evaluations(self, step: int) -> int:
        """How many there were by the end of `step` steps."""
        return evaluations_until(step, steps_per_epoch=self.task.steps_per_epoch, schedule=self.recipe.schedule)

    def _scored_after(self, step: int) -> bool:
        """Whether one follows after `step` steps, apart from that at the end of the run."""
        return self._evaluations(step) > self._evaluations(step - 1)

    def _score(self, weights: str, network: nn.Module) -> dict[str, float]:
        with torch.inference_mode(), self.update.autocast():
            metrics = self.task.evaluate(network, self.world)
        step = self.state.step
        row = {"step": step, "epoch": step / self.task.steps_per_epoch, "weights": weights}
        self.journal.write("eval", {**row, **metrics})
        self.saver.keep_best(weights, network, metrics[self.task.metric], metrics, final=step == self.steps)
        return metrics

    def _stop_asked(self, stop: Stop) -> bool:
        if self.world.size == 1:
            return stop.asked
        return self.state.step % 10 == 0 and any(self.world.gather(stop.asked))
