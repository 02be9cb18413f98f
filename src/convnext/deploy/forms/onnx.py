"""An .onnx file as a function of NumPy arrays: ONNX Runtime computes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convnext.deploy.exported import Pixels, Run
from convnext.deploy.forms.table import KEY
from convnext.extras import needs


def opened(path: Path, threads: int) -> tuple[Run, str | None]:
    """The network on `threads` threads, 0 for what ONNX Runtime chooses, and the text of its description."""
    onnxruntime = needs("onnxruntime", f"'{path.name}'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return partial(_answer, session, name), session.get_modelmeta().custom_metadata_map.get(KEY)


def _answer(session: Any, name: str, images: Pixels, outputs: Sequence[str]) -> list[NDArray[Any]]:
    """Some of a session's outputs for its one input."""
    found: list[NDArray[Any]] = session.run(list(outputs), {name: images})
    return found
