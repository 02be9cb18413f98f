"""Files of weights and of whole runs: one safetensors file each, with everything that is not a tensor in its header.

A file is written beside its name, flushed to the disk and renamed, so a reader sees the old file or the new one and
never half of either. Nothing here executes what it reads: safetensors holds numbers and text only.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convnext.errors import CheckpointError, TrainingError

FORMAT = "convnext"  # written into every file; a safetensors file without it is foreign
VERSION = 1


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON-able `metadata` to `path`, atomically.

    Raises OSError when the disk refuses; the file that was at `path` is then still there, untouched.
    """
    header = {"format": FORMAT, "version": str(VERSION), "metadata": json.dumps(metadata)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # what a new file of this user has; the library would keep others out
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, header)
        temporary.chmod(mode)
        replace(temporary, path)
    except SafetensorError as error:  # what the library raises when a write fails
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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


def replace(temporary: Path, path: Path) -> None:
    """Flush `temporary` to the disk and give it the name `path`, so that a power cut leaves one whole file."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically. Raises TrainingError when the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        replace(temporary, path)
    except OSError as error:
        raise TrainingError(
            f"Cannot write '{path}': {error.strerror or error}. Make room and give the same command again, or choose "
            "another --out."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every name with `prefix/` before it: several families of tensors in one file."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The family that `under` stored with `prefix`, with its own names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
