"""Files of `convnext export` as functions of NumPy arrays: ONNX Runtime or OpenVINO computes, and torch is not needed.

Axes: N images, C channels, H W pixel rows and columns, K classes.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from convnext.deploy.forms import table
from convnext.deploy.forms.seal import require_sealed
from convnext.errors import CheckpointError, ConvNeXtError, nearest
from convnext.extras import installed, needs
from convnext.files import appearing, from_json, told

VERSION = 2  # of the description; files of 1 took normalised images

Pixels = NDArray[Any]  # uint8, float32 of wide bands


class Run(Protocol):
    """A network: (N, H, W, C) images, and its other inputs by name, to those of its outputs that are named."""

    def __call__(self, images: Pixels, outputs: Sequence[str], **more: NDArray[Any]) -> list[NDArray[Any]]: ...


@dataclass(frozen=True)
class Exported:
    """The network in a file, with what `convnext export` wrote about it."""

    path: Path
    backend: str
    run: Run = field(repr=False)
    description: dict[str, Any] = field(repr=False)  # recipe, classes, precision and where it came from

    @property
    def task(self) -> str:
        """What it was trained for."""
        return str(self.description["recipe"]["task"])


def is_exported(source: str | Path) -> bool:
    """Whether `source` is named like a file that `convnext export` writes."""
    return table.form_of(source) is not None and not Path(source).is_dir()


def open_exported(source: str | Path, *, backend: str = "auto", threads: int | None = None) -> Exported:
    """The network in an exported file and its description.

    `backend`: 'onnxruntime', 'openvino', or 'auto', the first that is installed. `threads`: of the runtime; None for
    OMP_NUM_THREADS, and where that is not set for what the runtime takes by itself. Raises CheckpointError for a file
    that is missing, damaged or not ours, MissingPackage where the package that runs it is not installed.
    """
    path = Path(source)
    form = table.form_of(path)
    if form and form.unopened:
        raise CheckpointError(f"'{path}' is {form.unopened}")
    if not path.is_file():
        raise CheckpointError(f"There is no exported network at '{path}'.")
    chosen = choose_backend(path, backend)
    require_sealed(path)
    opened = table.called(table.backends()[chosen].opener)
    try:
        run, text = opened(path, chosen_threads(threads))
    except ConvNeXtError:
        raise
    except Exception as error:  # noqa: BLE001 - each runtime has its own kinds for a file that it cannot read
        reason = str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"'{path}' is damaged or no network for {chosen}: {reason} Export it again.") from None
    return Exported(path, chosen, run, description_of(path, text))


def chosen_threads(threads: int | None = None) -> int:
    """`threads`, or OMP_NUM_THREADS; 0 where neither says a number: the runtime chooses."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return threads if threads is not None else int(wish) if wish.isdecimal() else 0


def choose_backend(path: Path, wanted: str = "auto") -> str:
    """Which runtime is to run `path`. Raises ConvNeXtError where none that is installed can."""
    form = table.form_of(path)
    assert form is not None
    able, known = form.backends, sorted(table.backends())
    if wanted != "auto":
        if wanted not in known:
            raise ConvNeXtError(f"backend = '{wanted}' is none of auto, {', '.join(known)}.{nearest(wanted, known)}")
        if wanted not in able:
            raise ConvNeXtError(f"{wanted} does not run '{path.suffix}' files; {' and '.join(able)} can.")
        needs(wanted, f"'{path.name}'")
        return wanted
    for name in able:
        if installed(name):
            return name
    needs(able[0], f"'{path.name}'")
    raise AssertionError


def description_of(path: Path, text: str | None) -> dict[str, Any]:
    """What `convnext export` wrote about the network. Raises CheckpointError where it did not write this file."""
    try:
        description = from_json(text or "")
        version = description["version"]
        if type(version) is not int or not isinstance(description["recipe"]["task"], str):
            raise ValueError("no description")
        if not all(isinstance(name, str) for name in description["classes"]):
            raise ValueError("no class names")
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{path}' was not written by `convnext export`: it holds no recipe and no class names. Export the run again."
        ) from None
    if version != VERSION:
        age, fix = ("a newer", "Install that.") if version > VERSION else ("an older", "Export the run again.")
        raise CheckpointError(f"'{path}' was written by {age} convnext (file version {version}, here {VERSION}). {fix}")
    return dict(description)


def files_of(path: Path) -> list[Path]:
    """All files of a network; the one that is named comes last."""
    form = table.form_of(path)
    return [*(path.with_suffix(suffix) for suffix in (form.beside if form else ())), path]


def megabytes(path: Path) -> float:
    """Size of a network's files in millions of bytes."""
    return sum(file.stat().st_size for file in files_of(path)) / 1e6


def move(source: Path, out: Path) -> None:
    """Bring a network to its place, whole. Raises ConvNeXtError when the disk refuses."""
    pairs = list(zip(files_of(source), files_of(out), strict=True))
    with (
        told(out),
        contextlib.ExitStack() as leaving,
    ):  # in reverse, once all are there: the file that is named comes last
        for file, target in reversed(pairs):
            shutil.copyfile(file, leaving.enter_context(appearing(target)))
