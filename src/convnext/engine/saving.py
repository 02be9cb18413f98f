"""When a run is saved, by which process, and what happens where the disk refuses."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from torch import nn

from convnext.config import RunOptions
from convnext.engine.distributed import World
from convnext.engine.records import Log, warn
from convnext.engine.run import LAST, PIECES, Run, State, last_of
from convnext.errors import TrainingError
from convnext.files import way_out

_AGAIN_S = 30  # after a refusal


class Saver:
    """Writes a run's checkpoints: `last` every so often, the best weights when they are.

    Where processes hold parts of the network each writes its own while training goes on, and at the end the first writes
    the one file that every run ends in.
    """

    def __init__(self, folder: Run, options: RunOptions, world: World, state: State):
        self.folder, self.options, self.world, self.state = folder, options, world, state
        self.saved_s = time.monotonic()
        self._under_way: Future[Any] | None = None

    @property
    def due(self) -> bool:
        """Whether `last` is to be written after this step; the same in every process."""
        if self._under_way and self._under_way.done():
            self.settle()
        every = self.options.checkpoint_steps
        if every and self.state.step % every == 0:
            return True
        late = time.monotonic() - self.saved_s > 60 * self.options.checkpoint_minutes
        return late if self.world.size == 1 else self.state.step % 100 == 0 and bool(self.world.from_first(late))

    def save(self, log: Log | None, *, final: bool = False) -> None:
        """Write `last`: where this run goes on. A refusal is warned of and tried again; at the end it is an error."""
        self.saved_s = time.monotonic()
        self.settle()
        if self.folder.sharding and not final:
            self._start(log)
            return
        sharding = self.folder.sharding
        tensors = sharding.gathered(self.folder.tensors()) if sharding else None
        if self.world.first:
            self._attempt(lambda: self.folder.save_last(self.state, log, tensors), final=final)
        self.world.wait()

    def settle(self) -> None:
        """Wait until what is being written is on the disk; a refusal is warned of, and the checkpoint before it stays."""
        saving, self._under_way = self._under_way, None
        if saving:
            from convnext.engine.pieces import failure_of  # its import takes seconds, and this run has paid them

            if error := failure_of(saving):
                self._refused(error)

    def keep_best(
        self, weights: str, network: nn.Module, score: float, metrics: dict[str, float], *, final: bool
    ) -> None:
        """Write `network` where `score` is the best of its kind ('raw' or 'ema') so far; ties: by the loss."""
        best, step = self.state.best.get(weights), self.state.step
        better = best is None or (score, -metrics["loss"]) > (best["score"], -best["loss"])

        def write() -> None:
            self.folder.save_weights(weights, network, score, metrics, step)

        if better and self._attempt(write, final=final):
            since = best["since"] if best and "since" in best and score == best["score"] else step
            self.state.best[weights] = {"score": score, "loss": metrics["loss"], "step": step, "since": since}

    def _start(self, log: Log | None) -> None:
        """Begin to write the part of each process; all of them, or none where the first cannot."""
        from convnext.engine.pieces import start_save

        sharding = self.folder.sharding
        assert sharding
        note: dict[str, Any] = {}

        def take_note() -> None:
            note.update(self.folder.note(self.state, log))

        if not self.world.from_first(self._attempt(take_note, final=False)):
            return
        tensors = self.folder.tensors()
        sharding.agree(tensors)
        folder = self.folder.path / PIECES / f"{self.state.step:09d}"
        how: dict[str, Any] = {"group": sharding.group, "done": lambda: _remove_others(folder)}
        self._under_way = start_save(folder, tensors, note, **how)

    def _attempt(self, write: Callable[[], None], *, final: bool) -> bool:
        """Whether it was saved, as far as this process knows."""
        if not self.world.writes():
            return True
        try:
            write()
        except OSError as error:
            if final:
                there = "The checkpoint before it is whole" if last_of(self.folder.path) else "Nothing is saved"
                raise TrainingError(f"{self._reason(error)} {there}. {way_out(error)}.") from error
            self._refused(error)
            return False
        return True

    def _refused(self, error: OSError) -> None:
        if self.world.first:
            warn(f"{self._reason(error)} The run goes on and tries again. {way_out(error)}.")
        self.saved_s = time.monotonic() - 60 * self.options.checkpoint_minutes + _AGAIN_S

    def _reason(self, error: OSError) -> str:
        return f"Could not save into '{self.folder.path}': {error.strerror or error}."


def _remove_others(folder: Path) -> None:
    """Every other checkpoint to go on with, now that the one in `folder` is whole."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    (folder.parents[1] / LAST).unlink(missing_ok=True)
