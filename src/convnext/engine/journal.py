"""The records of one run while it is open: log, clock, TensorBoard and the line of progress."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from convnext.config import RunOptions
from convnext.engine.distributed import World
from convnext.engine.records import Board, Log, Meter
from convnext.engine.run import Run, State


class Journal:
    """Where the loop writes what it finds; only the first process writes files."""

    def __init__(self, log: Log | None, timings: Log | None, board: Board, meter: Meter, step: int):
        self.log, self.timings, self.board, self.meter = log, timings, board, meter
        self._clock_s, self._clock_step = time.monotonic(), step

    def write(self, kind: str, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl, and its figures for TensorBoard."""
        if self.log:
            self.log.write(kind=kind, **row)
        group = kind if kind == "train" else f"val_{row['weights']}"
        figures = {**row, **row.get("parts", {})}
        self.board.scalars(row["step"], {f"{group}/{k}": v for k, v in figures.items() if k not in ("step", "epoch")})

    def time(self, step: int, loss: float, batch: int, now: float) -> None:
        """That `step` was done at `now`, with `batch` images in each since the last time: a row of timings.jsonl."""
        seconds = now - self._clock_s
        rate = (step - self._clock_step) * batch / max(seconds, 1e-9)
        if self.timings:
            self.timings.write(step=step, seconds=round(seconds, 3), images_per_s=round(rate, 2))
        self._clock_s, self._clock_step = now, step
        self.meter.advance(f"loss {loss:.3f}  {rate:.0f} images/s", step)

    def restart_clock(self, step: int) -> None:
        """Count from now on: what was done since is no training."""
        self._clock_s, self._clock_step = time.monotonic(), step


@contextlib.contextmanager
def opened(folder: Run, options: RunOptions, state: State, *, steps: int, world: World) -> Iterator[Journal]:
    """The journal of a run of `steps` that stands at `state`; closed at the end. The first process of `world` writes."""
    first, claim = world.first, world.claim
    with contextlib.ExitStack() as stack:
        board_folder = folder.path / "tensorboard" if options.tensorboard and first else None
        board = stack.enter_context(closing(Board(board_folder, state.step)))
        log = timings = None
        if first:
            log = stack.enter_context(closing(Log(folder.path / "metrics.jsonl", start=state.log_bytes, claim=claim)))
            timings = stack.enter_context(closing(Log(folder.path / "timings.jsonl", claim=claim)))
        shown = first and options.progress
        meter = stack.enter_context(closing(Meter(steps, state.step, label="step", shown=shown)))
        yield Journal(log, timings, board, meter, state.step)
