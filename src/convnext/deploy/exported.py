"""Files of `convnext export` as functions of NumPy arrays: ONNX Runtime or OpenVINO computes, and torch is not needed.

Axes: N images, C channels, H W pixel rows and columns, K classes.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.deploy import signal_stack
from convnext.errors import CheckpointError, ConvNeXtError, nearest
from convnext.extras import installed, needs
from convnext.files import appearing

SUFFIXES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}  # what can run it, the first by choice
KEY = "convnext"  # under which a file holds our description
VERSION = 1
OWN_GRAPHS = 2  # shapes that OpenVINO compiles a graph for: the batches of an evaluation, and the last one

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]  # (N, C, H, W) normalised images -> (N, K) logits


@dataclass(frozen=True)
class Exported:
    """The network in a file, with what `convnext export` wrote about it."""

    path: Path
    backend: str
    run: Run = field(repr=False)
    description: dict[str, Any] = field(repr=False)  # recipe, classes, precision and where it came from


def is_exported(source: str | Path) -> bool:
    """Whether `source` is named like a file that `convnext export` writes."""
    path = Path(source)
    return path.suffix.lower() in (*SUFFIXES, ".pt2") and not path.is_dir()


def open_exported(source: str | Path, *, backend: str = "auto", threads: int | None = None) -> Exported:
    """The network in an exported file and its description.

    `backend`: 'onnxruntime', 'openvino', or 'auto', the first that is installed. `threads`: of the runtime; None for
    OMP_NUM_THREADS, and where that is not set for what the runtime takes by itself. Raises CheckpointError for a file
    that is missing, damaged or not ours, MissingPackage where the package that runs it is not installed.
    """
    path = Path(source)
    if path.suffix.lower() == ".pt2":
        raise CheckpointError(
            f"'{path}' is a program for torch.export.load, which may run code from the file. Load the run, or an .onnx."
        )
    if not path.is_file():
        raise CheckpointError(f"There is no exported network at '{path}'.")
    chosen = choose_backend(path, backend)
    opened = {"onnxruntime": _onnxruntime, "openvino": _openvino}[chosen]
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
    able = SUFFIXES[path.suffix.lower()]
    known = sorted({name for names in SUFFIXES.values() for name in names})
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
        description = json.loads(text or "")
        version = int(description["version"])
        _ = description["recipe"], description["classes"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{path}' was not written by `convnext export`: it holds no recipe and no class names. Export the run again."
        ) from None
    if version > VERSION:
        raise CheckpointError(f"'{path}' was written by a newer convnext (file version {version}).")
    return dict(description)


def _onnxruntime(path: Path, threads: int) -> tuple[Run, str | None]:
    onnxruntime = needs("onnxruntime", f"'{path.name}'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0], session.get_modelmeta().custom_metadata_map.get(KEY)


def _openvino(path: Path, threads: int) -> tuple[Run, str | None]:
    openvino = needs("openvino", f"'{path.name}'")
    model = openvino.Core().read_model(str(path))
    text = openvino_description(model)
    return openvino_run(model, exact='"precision": "int8"' not in str(text), threads=threads), text


def openvino_description(model: Any) -> str | None:
    """The text under KEY in an OpenVINO model, read from either of its two forms of file."""
    for place in ([KEY], ["framework", KEY]):  # the second: metadata of an ONNX file
        if model.has_rt_info(place):
            value = model.get_rt_info(place).value
            return str(value)
    return None


def openvino_run(model: Any, *, exact: bool, threads: int = 0) -> Run:
    """`model` compiled for this processor. `exact`: in float32; otherwise what is not int8 may be bfloat16.

    The first shapes that come are compiled each for itself, which makes them about a third faster: OpenVINO then knows
    that it may leave the maps as they lie in memory. Further ones share a graph of open shape.
    """
    openvino = needs("openvino", "This network")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if exact:  # on a processor with bfloat16 OpenVINO would take that
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    core, requests = openvino.Core(), dict[tuple[int, ...], Any]()

    def run(x: Floats) -> Floats:
        shape = x.shape if x.shape in requests or len(requests) < OWN_GRAPHS else ()
        if shape not in requests:
            fitted = model.clone()
            if shape:
                fitted.reshape(list(shape))
            with signal_stack.kept():
                requests[shape] = core.compile_model(fitted, "CPU", settings).create_infer_request()
        return requests[shape].infer([x])[0].copy()

    return run


def files_of(path: Path) -> list[Path]:
    """All files of a network; the one that is named comes last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def megabytes(path: Path) -> float:
    """Size of a network's files in millions of bytes."""
    return sum(file.stat().st_size for file in files_of(path)) / 1e6


def move(source: Path, out: Path) -> None:
    """Bring a network to its place, whole. Raises CheckpointError when the disk refuses."""
    pairs = list(zip(files_of(source), files_of(out), strict=True))
    try:
        with (
            contextlib.ExitStack() as leaving
        ):  # in reverse order, once all are there: the file that is named comes last
            for file, target in reversed(pairs):
                shutil.copyfile(file, leaving.enter_context(appearing(target)))
    except OSError as error:
        raise CheckpointError(
            f"Cannot write '{out}': {error.strerror or error}. Make room, or name another place with --out."
        ) from None
