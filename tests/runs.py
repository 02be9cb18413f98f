"""Training runs that tests start in their own process, and what must be the same of two of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from convnext.config import Recipe, RunOptions
from convnext.data.annotated_loader import DenseBatch
from convnext.data.opening import DenseSplits
from convnext.engine.distributed import World
from convnext.engine.fit import Finished, fit
from convnext.engine.scored import Watcher
from convnext.tasks.table import row_of

CPU = torch.device("cpu")


def task_of(data: DenseSplits, chosen: Recipe, out: Path, *, last_step: int | None = None, **options: Any) -> Any:
    """The task of `data`, its network from the recipe's seed; after `last_step` steps it ends as a killed process does."""
    torch.manual_seed(chosen.seed)
    values = RunOptions(out=str(out), workers=0, **options)
    row = row_of(data.train.task)
    return (row.task if last_step is None else _killed(row.task, last_step))(row.build(chosen), chosen, values, data)


def train(
    data: DenseSplits,
    chosen: Recipe,
    out: Path,
    *,
    last_step: int | None = None,
    watcher: Watcher | None = None,
    **options: Any,
) -> Finished:
    """Train the task of `data` on the CPU, into `out`."""
    task = task_of(data, chosen, out, last_step=last_step, **options)
    return fit(task, chosen, task.options, device=CPU, world=World(), watcher=watcher)


def _killed(kind: Any, last_step: int) -> Any:
    class Killed(kind):  # type: ignore[misc]
        """Ends its process, as far as a test can, after `last_step` steps."""

        def batches(self, steps: range, world: World) -> Iterator[DenseBatch]:
            for step, batch in zip(steps, super().batches(steps, world), strict=True):
                if step == last_step:
                    raise KeyboardInterrupt
                yield batch

    return Killed


def bits(out: Path) -> dict[str, object]:
    """Everything that must be the same: all tensors to the bit, and the log."""
    found: dict[str, object] = {"log": (out / "metrics.jsonl").read_text()}
    for name in ("last", "best", "best_ema"):
        tensors = load_file(out / f"{name}.safetensors")
        found |= {f"{name}:{key}": value.numpy().tobytes() for key, value in tensors.items()}
    return found
