"""Our network in other runtimes: one ONNX file, written by torch's exporter, for ONNX Runtime and OpenVINO."""

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from convnext.deploy import signal_stack
from convnext.errors import ConvNeXtError
from convnext.studies.benchmark.jobs import Job, Settings
from convnext.studies.benchmark.networks import Call, images, plain

FILE = "network.onnx"


def export(settings: Settings, folder: str) -> None:
    """Write `folder`/network.onnx with a free batch."""
    _refuse(settings)
    x = torch.randn(2, settings.config.in_channels, settings.size_px, settings.size_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain(settings),
            (x,),
            str(Path(folder) / FILE),
            dynamo=True,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=4096)}},
            verbose=False,
        )


def onnxruntime(job: Job, folder: str) -> Callable[[int], Call]:
    """batch -> a call of a session whose batch is fixed."""
    ort: Any = import_module("onnxruntime")

    def of(batch: int) -> Call:
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.settings.threads
        options.add_free_dimension_override_by_name("n", batch)
        options.log_severity_level = 3
        session = ort.InferenceSession(str(Path(folder) / FILE), options, providers=["CPUExecutionProvider"])
        x = {session.get_inputs()[0].name: images(job, batch).numpy()}
        return lambda: session.run(None, x)

    return of


def openvino(job: Job, folder: str) -> Callable[[int], Call]:
    """batch -> a call of a network that is compiled for it, in float32 as asked and for the shortest latency."""
    ov: Any = import_module("openvino")
    core = ov.Core()

    def of(batch: int) -> Call:
        settings = job.settings
        model = core.read_model(str(Path(folder) / FILE))
        model.reshape([batch, settings.config.in_channels, settings.size_px, settings.size_px])
        precision = {"fp32": "f32", "bf16": "bf16"}[settings.dtype]
        wanted = {"INFERENCE_NUM_THREADS": settings.threads, "PERFORMANCE_HINT": "LATENCY"}
        with signal_stack.kept():
            compiled = core.compile_model(model, "CPU", wanted | {"INFERENCE_PRECISION_HINT": precision})
        request, x = compiled.create_infer_request(), images(job, batch).float().numpy()
        return lambda: request.infer([x], share_inputs=True, share_outputs=True)

    return of


def _refuse(settings: Settings) -> None:
    if not settings.device.startswith("cpu"):
        raise ConvNeXtError("it runs on the CPU only here")
