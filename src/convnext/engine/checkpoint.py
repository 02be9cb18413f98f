"""Files of weights and of whole runs: one safetensors file each, with everything that is not a tensor in its header.

Nothing here executes what it reads: safetensors holds numbers and text only.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convnext.errors import CheckpointError
from convnext.files import appearing

FORMAT = "convnext"  # written into every file; a safetensors file without it is foreign
VERSION = 1


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON-able `metadata` to `path`, atomically.

    Raises OSError when the disk refuses; the file that was at `path` is then still there, untouched.
    """
    header = {"format": FORMAT, "version": str(VERSION), "metadata": json.dumps(metadata)}
    try:
        with appearing(path) as made:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, made, header)
    except SafetensorError as error:  # what the library raises when a write fails
        raise OSError(f"could not write {path}: {error}") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the metadata of a file that `save` wrote.

    Raises CheckpointError with the reason for a missing, truncated or foreign file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(path, file)  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises CheckpointError as `read` does."""
    with _opened(path) as file:
        return _metadata(path, file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at '{path}'.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"'{path}' is damaged or no checkpoint of convnext: {error}. Restore it, or remove it to start again."
        ) from None


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' holds weights without a run: no recipe, no class names. Give it to `convnext train --weights`."
        )
    if int(header["version"]) > VERSION:
        raise CheckpointError(f"'{path}' was written by a newer convnext (file version {header['version']}).")
    metadata: dict[str, Any] = json.loads(header["metadata"])
    return metadata


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every name with `prefix/` before it: several families of tensors in one file."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The family that `under` stored with `prefix`, with its own names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
