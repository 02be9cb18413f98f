"""A network as OpenVINO's .xml file with a .bin beside it, in floating point and in int8."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from convnext.deploy import int8, signal_stack
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.export import detector
from convnext.deploy.exported.opened import Pixels
from convnext.deploy.forms.table import KEY
from convnext.deploy.graph import inputs_of, outputs_of
from convnext.extras import needs
from convnext.files import to_json


def write(program: ExportedProgram, path: Path, described: dict[str, Any], *, half: bool) -> None:
    """Write `program` to `path`; `half`: the weights in 16 bits."""
    model = to_openvino(program)
    model.set_rt_info(to_json(described), [KEY])
    needs("openvino", "--to openvino").save_model(model, path, compress_to_fp16=half)


def write_detector(predictor: DetectionPredictor, path: Path, *, half: bool) -> None:
    """Write the detector of `predictor`, whose graph is ONNX's, to `path`; `half`: its weights in 16 bits."""
    openvino = needs("openvino", "--to openvino")
    onnx = path.with_suffix(".onnx")
    detector.save(detector.detector_model(predictor.model, predictor.recipe, products=True), onnx)
    with _unlogged():
        model = openvino.convert_model(str(onnx))
    model.set_rt_info(to_json(detector.described(predictor, half=half)), [KEY])
    openvino.save_model(model, path, compress_to_fp16=half)
    onnx.unlink()


def quantize(source: Path, out: Path, images: Sequence[Pixels], variant: str, described: dict[str, Any]) -> None:
    """Write the int8 form of `source` to `out`."""
    openvino = needs("openvino", "--int8")
    model = quantized(openvino.Core().read_model(source), images, variant)
    model.set_rt_info(to_json(described), [KEY])
    openvino.save_model(model, out, compress_to_fp16=False)


def to_openvino(program: ExportedProgram) -> Any:
    """An openvino.Model with the inputs and outputs of `program` under their names."""
    with _unlogged():  # it loads nncf, and with that torch's compiler of extensions, which warns that there is no CUDA
        model = needs("openvino", "--to openvino").convert_model(program)
    for places, names in ((model.inputs, inputs_of(program)), (model.outputs, outputs_of(program))):
        for place, name in zip(places, names, strict=True):
            place.get_tensor().set_names({name})
    return model


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """No warning of other packages reaches the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quantized(model: Any, images: Sequence[Pixels], variant: str) -> Any:
    """An OpenVINO model with int8 arithmetic, the activations' ranges from `images`."""
    nncf = needs("nncf", "--int8 with openvino")
    nncf.set_log_level(logging.ERROR)
    kept = [*int8.kept(layers(model), variant), *resampling(model)]
    presets = nncf.QuantizationPreset  # PERFORMANCE: ranges around zero, a few per cent faster; MIXED: as they lie
    with contextlib.redirect_stdout(io.StringIO()), signal_stack.kept():  # it draws bars
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(list(images)),
            subset_size=len(images),
            preset=presets.MIXED if int8.VARIANTS[variant] else presets.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=kept),
        )


def layers(model: Any) -> int8.Layers:
    """Of an OpenVINO model, with their kinds."""
    without = set(resampling(model))

    def found() -> Iterator[tuple[str, bool, int]]:
        for node in model.get_ordered_ops():
            kind, name = node.get_type_name(), node.get_friendly_name()
            if kind in ("Convolution", "GroupConvolution"):
                height, width = node.input(1).get_shape()[-2:]
                yield name, kind == "GroupConvolution", height * width
            elif kind == "MatMul" and name not in without:
                yield name, False, 1

    return int8.kinds(found())


def resampling(model: Any) -> list[str]:
    """Names of the products that no weights of the network have a part in: those of the resize, and of attention."""
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and node.input(1).get_partial_shape().is_dynamic
    ]
