"""The files of a run's folder, read with patience: what is missing or cut short is noted, never fatal."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREDICTIONS = "predictions.jpg"  # what was predicted of some held-out images at the last evaluation
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # stored beside parameters, but not learnt
_HEADER_LIMIT = 100_000_000  # bytes; what the safetensors format allows


@dataclass(frozen=True)
class RunFiles:
    """Everything a report is made of; None or empty where the folder does not say."""

    name: str
    recipe: dict[str, Any] | None
    environment: dict[str, Any] | None
    data: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    train: list[dict[str, Any]]  # rows of metrics.jsonl
    evals: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    parameters: int | None
    parts: list[dict[str, Any]] = field(default_factory=list)  # timings of the other trainings below folds/
    transfer: dict[str, Any] | None = None  # of a run that starts from weights in stages; others have no such file
    predictions: bytes | None = None  # predictions.jpg; None where the run was never evaluated
    notes: dict[str, str] = field(default_factory=dict)  # file -> what was wrong with it

    @property
    def crosswise(self) -> int:
        """Parts that the images were cut into, each held out once; 0 where the held-out images alone decided."""
        found = (self.transfer or {}).get("crosswise")
        return found if isinstance(found, int) else 0

    @property
    def unit(self) -> str:
        """What the recipe counts: 'epoch' or 'step'."""
        schedule = (self.recipe or {}).get("schedule")
        steps = schedule.get("steps") if isinstance(schedule, dict) else None
        return "step" if isinstance(steps, int | float) and steps > 0 else "epoch"


def read_run(run: Path) -> RunFiles:
    """Read what there is in `run`."""
    notes: dict[str, str] = {}
    metrics = _rows(run / "metrics.jsonl", notes)
    return RunFiles(
        name=run.resolve().name,
        recipe=_object(run / "recipe.json", notes),
        environment=_object(run / "environment.json", notes),
        data=_object(run / "data.json", notes),
        evaluation=_object(run / "evaluation.json", notes),
        train=[row for row in metrics if row.get("kind") == "train"],
        evals=[row for row in metrics if row.get("kind") == "eval"],
        timings=_rows(run / "timings.jsonl", notes),
        parts=[row for file in sorted(run.glob("folds/*/timings.jsonl")) for row in _rows(file, {})],
        parameters=_parameters(run / "best.safetensors") or _parameters(run / "probe.safetensors"),
        transfer=_object(run / "transfer.json", notes) if (run / "transfer.json").exists() else None,
        predictions=_bytes(run / PREDICTIONS, notes) if (run / PREDICTIONS).exists() else None,
        notes=notes,
    )


def _object(path: Path, notes: dict[str, str]) -> dict[str, Any] | None:
    data = _bytes(path, notes)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        notes[path.name] = f"{path.name} is cut short or not JSON."
        return None
    if not isinstance(value, dict):
        notes[path.name] = f"{path.name} does not hold what this version writes there."
        return None
    return value


def _rows(path: Path, notes: dict[str, str]) -> list[dict[str, Any]]:
    data = _bytes(path, notes)
    rows, broken = [], 0
    for line in (data or b"").splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken += 1
    if broken:
        lines = "1 line" if broken == 1 else f"{broken} lines"
        notes[path.name] = f"{lines} of {path.name} could not be read and {'is' if broken == 1 else 'are'} left out."
    return rows


def _bytes(path: Path, notes: dict[str, str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        notes[path.name] = f"This run has no {path.name}."
    except OSError as error:
        notes[path.name] = f"{path.name} cannot be read: {error.strerror}."
    return None


def _parameters(path: Path) -> int | None:
    """How many numbers the network learns, from the header of its weights: a length, then JSON with every shape."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < _HEADER_LIMIT else {}
        shapes = {k: v["shape"] for k, v in header.items() if k != "__metadata__" and not k.endswith(_STATISTICS)}
        return sum(math.prod(shape) for shape in shapes.values()) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
