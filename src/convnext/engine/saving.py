"""When a run is saved, by which process, and what happens where the disk refuses."""

import time
from collections.abc import Callable

from convnext.config import RunOptions
from convnext.engine.distributed import World
from convnext.engine.records import Log, warn
from convnext.engine.run import LAST, Run, State
from convnext.errors import TrainingError
from convnext.files import way_out

_AGAIN_S = 30  # after a refusal


class Saver:
    """Writes a run's checkpoints: `last` every so often, the best weights when they are."""

    def __init__(self, folder: Run, options: RunOptions, world: World, state: State):
        self.folder, self.options, self.world, self.state = folder, options, world, state
        self.saved_s = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether `last` is to be written after this step; the same in every process."""
        every = self.options.checkpoint_steps
        if every and self.state.step % every == 0:
            return True
        late = time.monotonic() - self.saved_s > 60 * self.options.checkpoint_minutes
        return late if self.world.size == 1 else self.state.step % 100 == 0 and bool(self.world.from_first(late))

    def save(self, log: Log | None, *, final: bool = False) -> None:
        """Write `last`: where this run goes on. A refusal is warned of and tried again; at the end it is an error."""
        self.saved_s = time.monotonic()
        if self.world.first:
            self._attempt(lambda: self.folder.save_last(self.state, log), final=final)
        self.world.wait()

    def keep_best(self, weights: str, score: float, metrics: dict[str, float], *, final: bool) -> None:
        """Write the model as it is now where `score` is the best of its kind ('raw' or 'ema') so far; ties: by the loss."""
        best, step = self.state.best.get(weights), self.state.step
        better = best is None or (score, -metrics["loss"]) > (best["score"], -best["loss"])
        if better and self._attempt(lambda: self.folder.save_weights(weights, score, metrics, step), final=final):
            since = best["since"] if best and "since" in best and score == best["score"] else step
            self.state.best[weights] = {"score": score, "loss": metrics["loss"], "step": step, "since": since}

    def _attempt(self, write: Callable[[], None], *, final: bool) -> bool:
        """Whether it was saved, as far as this process knows."""
        if not self.world.writes():
            return True
        try:
            write()
        except OSError as error:
            reason = f"Could not save into '{self.folder.path}': {error.strerror or error}."
            if final:
                there = (
                    "The checkpoint before it is whole" if (self.folder.path / LAST).exists() else "Nothing is saved"
                )
                raise TrainingError(f"{reason} {there}. {way_out(error)}.") from error
            warn(f"{reason} The run goes on and tries again. {way_out(error)}.")
            self.saved_s = time.monotonic() - 60 * self.options.checkpoint_minutes + _AGAIN_S
            return False
        return True
