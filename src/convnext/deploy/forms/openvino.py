"""A network as a function of NumPy arrays: OpenVINO computes, from its own files and from .onnx."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convnext.deploy import signal_stack
from convnext.deploy.exported.opened import Pixels, Run
from convnext.deploy.forms.table import INPUT, KEY
from convnext.extras import needs

OWN_GRAPHS = 2  # shapes that OpenVINO compiles a graph for: the batches of an evaluation, and the last one


def opened(path: Path, threads: int) -> tuple[Run, str | None]:
    """The network on `threads` threads, 0 for what OpenVINO chooses, and the text of its description."""
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

    def run(images: Pixels, outputs: Sequence[str], **more: NDArray[Any]) -> list[NDArray[Any]]:
        shape = images.shape if images.shape in requests or len(requests) < OWN_GRAPHS else ()
        if shape not in requests:
            fitted = model.clone()
            if shape:
                fitted.reshape({INPUT: list(shape)})
            with signal_stack.kept():
                requests[shape] = core.compile_model(fitted, "CPU", settings).create_infer_request()
        found = requests[shape].infer({INPUT: images, **more})
        return [found[name].copy() for name in outputs]

    return run
