"""What a run writes down while it goes: metrics.jsonl (numbers only, the same for the same run), timings.jsonl (the
clock), TensorBoard when asked, and one line of progress for the person who watches.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convnext.engine.claim import Claim
from convnext.errors import TrainingError
from convnext.extras import missing
from convnext.files import to_json, way_out, write_bytes
from convnext.streams import tell


def info(text: str) -> None:
    """One line to the person, on stderr: results alone go to stdout. A name in it cannot make it two."""
    tell(text)


def warn(text: str) -> None:
    """One line about something that may be wrong; it goes where `info` goes."""
    info(text)


class Log:
    """A file of JSON lines that survives a full disk and can be cut back to where a checkpoint was taken."""

    def __init__(self, path: Path, *, start: int | None = None, claim: Claim | None = None):
        """Open `path` for appending; with `start`, first cut it to that many bytes. Raises TrainingError.

        `claim`: on the folder of the file; it is checked before a row is written.
        """
        self._path, self._claim = path, claim
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file: IO[bytes] = open(path, "rb+")  # noqa: SIM115 # lives as long as the run
            there = self._file.seek(0, os.SEEK_END)
            self._end = there if start is None else min(start, there)  # less is there when someone removed it
            self._file.truncate(self._end)
        except OSError as error:
            raise TrainingError(f"Cannot write '{path}': {error.strerror or error}. {way_out(error)}.") from None
        self._waiting: list[dict[str, Any]] = []
        self._refusal = OSError()  # the last one

    def write(self, **row: Any) -> bool:
        """Append a row; False when the disk refused, and then the row waits for the next write.

        Raises TrainingError where the claim is lost.
        """
        if self._claim:
            self._claim.check()
        self._waiting.append(row)
        data = "".join(to_json(row) + "\n" for row in self._waiting).encode()
        try:
            self._put_back()
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._refusal = error
            return False
        self._end += len(data)
        self._waiting.clear()
        return True

    def _put_back(self) -> None:
        """Where somebody removed or replaced the file: its rows so far are still ours, and go into a new one."""
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                return
        except FileNotFoundError:
            pass
        self._file.seek(0)
        write_bytes(self._path, self._file.read(self._end))
        self._file.close()
        self._file = open(self._path, "rb+")  # noqa: SIM115
        warn(f"'{self._path}' was removed or replaced while it was written, and is put back.")

    def settle(self) -> int:
        """Flush to the disk and return the length in bytes: the place to cut back to on resume. Raises OSError."""
        if self._waiting:
            row = self._waiting.pop()
            if not self.write(**row):
                raise self._refusal
        self._put_back()
        os.fsync(self._file.fileno())
        return self._end

    def close(self) -> None:
        """Close the file; rows that the disk refused are lost."""
        try:
            with contextlib.suppress(TrainingError):  # the claim is lost, and that was said
                if self._claim:
                    self._claim.check()
                self._put_back()
            self._file.close()
        except OSError:
            warn(f"The last lines of '{self._path}' could not be written.")


class Board:
    """TensorBoard, when asked for; otherwise nothing."""

    def __init__(self, folder: Path | None, step: int):
        """Write into `folder`; what an earlier process wrote there for `step` and later is hidden."""
        self._writer = None
        if folder:
            try:
                from torch.utils.tensorboard import SummaryWriter  # an extra: only who asks for it needs it
            except ImportError as error:
                raise missing(error, "--tensorboard", "tensorboard") from None
            self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        """Write every number of `values` at `step`."""
        if self._writer:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what is left."""
        if self._writer:
            self._writer.close()


class Meter:
    """Progress for a person: a bar with loss, rate and time left on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, done: int, *, label: str, every_s: float = 15.0, shown: bool = True):
        self._total, self._done, self._label = total, done, label
        self._started, self._first = time.monotonic(), done
        self._spoke = self._started
        self._every_s = every_s
        self._shown = shown
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=done, note="")

    def advance(self, note: str, done: int) -> None:
        """Show that `done` units are finished, with a short note such as 'loss 1.23  180 images/s'."""
        self._done = done
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._shown and (now - self._spoke > self._every_s or done == self._total):
            self._spoke = now
            info(f"{self._label} {done}/{self._total}  {note}  {_clock(self._left_s(now))} left")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Without the bar for a while: two of them would write over each other."""
        if self._bar:
            self._bar.stop()
        try:
            yield
        finally:
            if self._bar:
                self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def _left_s(self, now: float) -> float:
        return (now - self._started) / max(1, self._done - self._first) * (self._total - self._done)


class Counted(Protocol):
    """A batch that says how many images it took from the data."""

    @property
    def indices(self) -> Sized: ...
    @property
    def skipped(self) -> Sized: ...


Batches = TypeVar("Batches", bound=Counted)


@contextmanager
def watched(batches: Iterable[Batches], total: int, *, shown: bool) -> Iterator[Iterator[Batches]]:
    """`batches` of an evaluation as they come, and how many of the `total` images are done, for the person who waits."""
    with closing(Meter(total, 0, label="evaluating", shown=shown)) as meter:
        yield _counted(batches, total, meter)


def _counted(batches: Iterable[Batches], total: int, meter: Meter) -> Iterator[Batches]:
    done, start = 0, time.monotonic()
    for batch in batches:
        yield batch
        done += len(batch.indices) + len(batch.skipped)
        if done < total:  # after the last one the result says more
            meter.advance(f"{done / max(time.monotonic() - start, 1e-9):.3g} images/s", done)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
