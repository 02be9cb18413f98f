"""What a run's folder or a checkpoint file holds: everything to build a network again and to say what it answers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import Recipe, fields_of, parse
from convnext.engine import checkpoint
from convnext.engine.forks import survive
from convnext.engine.run import weights_file
from convnext.errors import CheckpointError, ConvNeXtError, number_of
from convnext.integrity import FORMAT
from convnext.kernels import dispatch
from convnext.models.convert import read_weights
from convnext.models.fused import fuse
from convnext.models.sources import HUB, find
from convnext.models.tensors import read_header, record_of
from convnext.tasks.convolution import accelerate
from convnext.tasks.table import row_of


@dataclass(frozen=True)
class Trained:
    """A checkpoint in memory, of any task."""

    recipe: Recipe
    classes: tuple[str, ...]
    source: Path  # the file
    metadata: dict[str, Any] = field(repr=False)
    tensors: dict[str, Tensor] = field(repr=False)

    def into(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` with these weights, on `device`, ready to answer, also in a process that is forked from this one."""
        survive()
        checkpoint.load(model, self.tensors, self.source)
        model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if dispatch.on_gpu(device) or (device.type == "cpu" and self.recipe.precision != "fp16"):
            fuse(model)  # as in training: the same scores to the bit
            accelerate(model)
        return model


def read_trained(source: str | Path, weights: str = "best") -> Trained:
    """The checkpoint of a run folder, a single file, or 'hub:OWNER/NAME', also as `convnext convert` and `push` write them.

    `weights`: 'best' (raw or EMA, whichever scored higher), 'raw', 'ema' or 'last'; a file has only its own.
    Raises CheckpointError when there is nothing to load or it is damaged.
    """
    text = source.as_posix() if isinstance(source, Path) else source
    path = find(text).path if text.startswith(HUB) else Path(source)
    if not path.exists():
        raise CheckpointError(f"There is no run or checkpoint at '{path}'.")
    file = _file(path, weights) if path.is_dir() else path
    tensors, metadata = _converted(file) or checkpoint.read(file)
    recipe, classes = described(metadata, file)
    tensors = checkpoint.of("model", tensors) or tensors
    try:
        with torch.device("meta"):  # shapes alone: a header that lies costs no memory
            checkpoint.require_fit(row_of(recipe.task).build(recipe), tensors, file)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 # a network of sizes that no network has
        reason = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(f"'{file}' is damaged: its recipe makes no network ({reason}). Restore it.") from None
    return Trained(recipe, classes, file, metadata, tensors)


def described(metadata: dict[str, Any], file: Path) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe and the class names of a run's metadata, which must agree. Raises CheckpointError where they do not."""
    metadata = checkpoint.checked(metadata, file)
    lacking = [name for name in ("recipe", "classes") if name not in metadata]
    if lacking:
        raise CheckpointError(f"'{file}' is damaged: its header has no {lacking[0]}. Restore it.")
    try:
        recipe: Recipe = parse(Recipe, metadata["recipe"], where=f"'{file}'")
    except CheckpointError:
        raise
    except ConvNeXtError as error:
        raise CheckpointError(f"{error} The file is damaged, or of another version.") from None
    classes, field = tuple(metadata["classes"]), row_of(recipe.task).classes
    n = fields_of(recipe)[field]
    if n != len(classes):
        raise CheckpointError(
            f"'{file}' is damaged: its header names {number_of(len(classes), 'class', 'classes')}, and {field} = {n} in its "
            "recipe. Restore it."
        )
    numbers = metadata.get("category_ids") or classes  # without any they are counted
    if len(numbers) != n:
        raise CheckpointError(
            f"'{file}' is damaged: its header has {len(numbers)} category_ids for {number_of(n, 'class', 'classes')}. "
            "Restore it."
        )
    return recipe, classes


def _file(folder: Path, weights: str) -> Path:
    """The weights in the folder of a run, or in one that `convnext convert --to transformers` wrote."""
    model = folder / "model.safetensors"
    return model if model.is_file() else weights_file(folder, weights)


def _converted(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors under our names and the run's metadata, where `convnext convert` wrote a run for another library."""
    try:
        header = read_header(file)
    except CheckpointError:
        return None  # `checkpoint.read` says what is wrong with it
    if header.get("format") == FORMAT or not record_of(header):
        return None
    held = read_weights(file)
    return held.state, held.record
