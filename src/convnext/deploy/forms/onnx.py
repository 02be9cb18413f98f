"""An .onnx file as a function of NumPy arrays: ONNX Runtime computes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convnext.deploy.exported.opened import Pixels, Run
from convnext.deploy.forms.table import INPUT, KEY
from convnext.extras import needs


def opened(path: Path, threads: int) -> tuple[Run, str | None]:
    """The network on `threads` threads, 0 for what ONNX Runtime chooses, and the text of its description."""
    onnxruntime = needs("onnxruntime", f"'{path.name}'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return partial(_answer, session), session.get_modelmeta().custom_metadata_map.get(KEY)


def _answer(session: Any, images: Pixels, outputs: Sequence[str], **more: NDArray[Any]) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = session.run(list(outputs), {INPUT: images, **more})
    return found
