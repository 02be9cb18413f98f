"""The folder of a run: what `last` holds, how a run is taken up again, and which folders are refused."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convnext import __version__
from convnext.config import Training, fields_of, parse
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.ema import Ema
from convnext.engine.optim import Optimizers
from convnext.engine.records import Log, info
from convnext.errors import CheckpointError, ConvNeXtError, TrainingError, nearest
from convnext.files import way_out
from convnext.integrity import INDEX

if TYPE_CHECKING:  # its import takes seconds, and few runs need it
    from convnext.engine.sharding import Sharding

LAST = "last.safetensors"
PIECES = "last"  # in its place, where each process writes its part: a folder of these for each step that is kept
ORIGIN = ("origin", "license", "license_known_by")  # keys of `models.provenance.Provenance.as_text`
BEST = {"raw": "best.safetensors", "ema": "best_ema.safetensors"}
OTHERS = {
    "probe": "probe.safetensors",  # this and the next: of a run that starts from weights
    "mixed": "mixed.safetensors",
    "adjusted": "adjusted.safetensors",  # of a segmenter whose rare classes counted more in training
}


@dataclass
class State:
    """Where a run is. With weights, optimizer and EMA this is all that decides how it goes on."""

    step: int = 0  # optimizer steps done
    log_bytes: int = 0  # length of metrics.jsonl at this step
    losses: list[float] = field(default_factory=list)  # since the last row of the log
    parts: dict[str, list[float]] = field(default_factory=dict)  # of these losses, where the task names them
    epoch_losses: list[float] = field(default_factory=list)  # logged means of the epoch so far
    best: dict[str, dict[str, Any]] = field(default_factory=dict)  # 'raw' / 'ema' -> score, loss, step, since
    flat_warned: bool = False


class Run:
    """Reads and writes one run's checkpoints."""

    def __init__(
        self,
        path: Path,
        recipe: Training,
        description: dict[str, Any],
        model: nn.Module,
        optimizers: Optimizers,
        ema: Ema | None,
        scaler: torch.amp.GradScaler,
        origin: Mapping[str, str] | None = None,
        sharding: "Sharding | None" = None,
    ):
        self.path, self.recipe, self.description = path, recipe, description
        self.model, self.optimizers, self.ema, self.scaler = model, optimizers, ema, scaler
        self.sharding = sharding
        self.origin = dict(origin or {})  # of the weights that it started from, and their licence

    def resume(self, world: World) -> State:
        """The state to start from: fresh, or that of `last`, loaded into model, optimizer and EMA.

        Raises ConvNeXtError when the folder holds a run of another recipe or other data, or not the same for all processes.
        """
        path = last_of(self.path)
        state = self._resumed(path) if path else State()
        seen = world.gather(state.step)
        if other := next((rank for rank, step in enumerate(seen) if step != seen[0]), 0):
            raise CheckpointError(
                f"'{path or self.path}' holds step {seen[0]} for the first process and step {seen[other]} for process {other}: "
                "they do not see the same folder. Give an --out on a disk that all machines share."
            )
        if state.step and world.first:
            info(f"Going on with '{self.path}' after step {state.step}.")
        return state

    def _resumed(self, path: Path) -> State:
        """That of `path`, loaded."""
        metadata = checkpoint.read_metadata(path)
        if "state" not in metadata:
            raise CheckpointError(f"'{path}' holds weights but no run to go on with.")
        refuse_other_run(self.path, metadata, self.recipe, self.description)
        state = state_of(metadata["state"], path)
        tensors = self.sharding.read(path, self.tensors()) if self.sharding else checkpoint.read(path)[0]
        self.origin = {key: metadata[key] for key in ORIGIN if key in metadata}
        checkpoint.load(self.model, checkpoint.of("model", tensors), path)
        try:
            self.optimizers.load(checkpoint.of("optimizer", tensors))
            if self.ema:
                self.ema.load(checkpoint.of("ema", tensors))
        except CheckpointError as error:
            raise CheckpointError(f"'{path}' is damaged: {error} Restore it, or remove it to start again.") from None
        self._load_scaler(metadata.get("scaler"), path)
        return state

    def require_place(self, state: State, steps: int) -> None:
        """Raise CheckpointError for a state that no run of `steps` steps is ever in."""
        if state.step > steps or (state.step == steps and not state.best):
            raise CheckpointError(
                f"'{last_of(self.path)}' is damaged: step {state.step} of {steps} in its header is none of this run. Restore "
                "it, or remove it to start again."
            )

    def tensors(self) -> dict[str, Tensor]:
        """Everything needed to go on that is a tensor; not copies."""
        found = checkpoint.under("model", self.model.state_dict())
        found |= checkpoint.under("optimizer", self.optimizers.tensors())
        return found | checkpoint.under("ema", self.ema.tensors()) if self.ema else found

    def note(self, state: State, log: Log | None) -> dict[str, Any]:
        """Everything else; `state` then holds the length of the log. Raises OSError when the disk refuses the log."""
        state.log_bytes = log.settle() if log else 0
        return {**self._header(), "state": dataclasses.asdict(state), "scaler": self.scaler.state_dict()}

    def save_last(self, state: State, log: Log | None, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Write everything needed to go on, in one file: `tensors`, or ours. Raises OSError when the disk refuses."""
        checkpoint.save(self.path / LAST, self.tensors() if tensors is None else tensors, self.note(state, log))
        if (self.path / PIECES).exists():
            shutil.rmtree(self.path / PIECES, ignore_errors=True)

    def save_weights(
        self, weights: str, network: nn.Module, score: float, metrics: dict[str, float], step: int
    ) -> None:
        """Write `network` as it is now under the best file's name. Raises OSError when the disk refuses."""
        metadata = {**self._header(), "weights": weights, "score": score, "metrics": metrics, "step": step}
        checkpoint.save(self.path / BEST[weights], network.state_dict(), metadata)

    def _load_scaler(self, values: Any, path: Path) -> None:
        """Go on with the scale of fp16's losses. Raises CheckpointError where its state is not there, or is none."""
        own = self.scaler.state_dict()  # empty where there is nothing to scale
        if own and not (
            isinstance(values, dict)
            and values.keys() == own.keys()
            and all(checkpoint.is_number(value) and value >= 0 for value in values.values())
        ):
            raise CheckpointError(
                f"'{path}' is damaged: the state of the loss scaler is not in its header. Restore it, or remove it to "
                "start again."
            )
        if own:
            self.scaler.load_state_dict(values)

    def _header(self) -> dict[str, Any]:
        return header_of(self.recipe, self.description, self.origin)


def last_of(run: Path) -> Path | None:
    """Where a run's folder says how it goes on: a file, or the folder of several; None where there is nothing yet."""
    found = sorted(index.parent for index in (run / PIECES).glob(f"*/{INDEX}"))
    if not found:
        return run / LAST if (run / LAST).is_file() else None
    if (run / LAST).is_file():  # a process was killed before it removed the older one
        return max((run / LAST, found[-1]), key=_step)
    return found[-1]


def _step(path: Path) -> int:
    """The step that a checkpoint holds; one that cannot be read is the last of all, so that somebody says so."""
    try:
        return int(checkpoint.read_metadata(path)["state"]["step"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return 2**63


def header_of(recipe: Training, description: Mapping[str, Any], origin: Mapping[str, str]) -> dict[str, Any]:
    """What every checkpoint of a run says: its recipe, what its task describes, and where the first weights came from."""
    provenance = {"convnext": __version__, "torch": torch.__version__}
    return {"recipe": recipe.model_dump(mode="json"), "provenance": provenance, **description, **origin}


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write what a stage of a run ends in. Raises TrainingError where the disk refuses."""
    try:
        checkpoint.save(path, tensors, metadata)
    except OSError as error:
        raise TrainingError(f"Could not save '{path}': {error.strerror or error}. {way_out(error)}.") from error


def amend_whole(path: Path, entries: Mapping[str, Any]) -> None:
    """Write `entries` into the metadata of a checkpoint, which says them at once or not at all; its tensors stay.

    Raises TrainingError where the disk refuses.
    """
    tensors, metadata = checkpoint.read(path)
    if any(metadata.get(name) != value for name, value in entries.items()):
        save_whole(path, tensors, {**metadata, **entries})


def refuse_other_run(path: Path, metadata: Mapping[str, Any], recipe: Training, description: Mapping[str, Any]) -> None:
    """Raise ConvNeXtError where a checkpoint in the folder `path`, with this `metadata`, is of other data or recipe."""
    for key, value in description.items():
        if metadata.get(key) != value:
            raise ConvNeXtError(
                f"'{path}' holds a run on other data ({key} differs). Choose another --out, or give the same data."
            )
    before = parse(type(recipe), metadata.get("recipe", {}), where=f"'{path}'")
    if before != recipe:
        frozen, freezes = (fields_of(each).get("start.mode") for each in (before, recipe))
        if {frozen, freezes} == {"probe", "probe_full"}:
            made, way = ("with", "Add it") if frozen == "probe" else ("without", "Leave it out")
            raise ConvNeXtError(f"'{path}' holds a run that was made {made} --freeze. {way}, or choose another --out.")
        old, new = fields_of(before), fields_of(recipe)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        shown = ", ".join(f"{n} = {old.get(n)} there and {new.get(n)} here" for n in names[:3])
        raise ConvNeXtError(
            f"'{path}' holds a run of another recipe ({shown}). Choose another --out, or give the same recipe."
        )


def state_of(values: Mapping[str, Any], path: Path) -> State:
    """The state that a checkpoint's header holds. Raises CheckpointError that names what is none of a state."""
    kinds: dict[str, Any] = {
        "losses": _numbers,
        "epoch_losses": _numbers,
        "parts": lambda value: isinstance(value, dict) and all(map(_numbers, value.values())),
        "best": lambda value: isinstance(value, dict) and all(map(_is_best, value.values())) and {*value} <= {*BEST},
        "flat_warned": lambda value: isinstance(value, bool),
    }
    whole = checkpoint.is_count  # of 'step' and 'log_bytes'
    names = [field.name for field in dataclasses.fields(State)]
    wrong = [name for name in names if name not in values or not kinds.get(name, whole)(values[name])]
    wrong += [name for name in values if name not in names]
    if wrong:
        raise CheckpointError(
            f"'{path}' is damaged: state.{wrong[0]} in its header is none of a run. Restore it, or remove it to start again."
        )
    return State(**values)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(checkpoint.is_number, value))


def _is_best(value: Any) -> bool:
    return isinstance(value, dict) and all(checkpoint.is_number(value.get(name)) for name in ("score", "loss", "step"))


def weights_file(run: Path, weights: str = "best") -> Path:
    """The file of a run's folder that 'best' (whichever scored highest), 'last' or a key of BEST or OTHERS means.

    Raises CheckpointError when the folder holds no such file.
    """
    every = {**BEST, **OTHERS}
    names = {"best": list(every.values()), **{name: [file] for name, file in every.items()}, "last": [LAST]}
    if weights not in names:
        raise CheckpointError(f"weights = '{weights}' is none of {', '.join(names)}.{nearest(weights, names)}")
    found = [run / name for name in names[weights] if (run / name).is_file()]
    if weights == "last" and (last := last_of(run)):
        return last
    if not found:
        wanted = " or ".join(names[weights] if weights != "best" else BEST.values())
        raise CheckpointError(f"'{run}' is no finished run: it holds no {wanted}. Train it first, or name another run.")
    return max(found, key=_score) if len(found) > 1 else found[0]


def _score(file: Path) -> tuple[bool, float, float]:
    """Larger is better; what was judged on all images crosswise outweighs what a few held-out ones say."""
    metadata = checkpoint.read_metadata(file)
    crosswise = bool(metadata.get("crosswise"))
    return crosswise, float(metadata.get("score", 0.0)), -float(metadata.get("metrics", {}).get("loss", 0.0))
