"""A network as an .onnx file, in floating point and in int8."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from convnext.deploy import int8
from convnext.deploy.exported.opened import Pixels
from convnext.deploy.forms.table import KEY
from convnext.deploy.graph import inputs_of, outputs_of
from convnext.errors import ConvNeXtError
from convnext.extras import needs
from convnext.files import to_json

_IMAGES, _MAPS = ("batch", "height", "width"), ("batch", "", "height", "width")  # names of axes whose length is open


def write(program: ExportedProgram, path: Path, described: dict[str, Any], *, half: bool) -> None:
    """Write `program` to `path`; its weights have their 16 bits already where they are to have them."""
    proto = to_onnx(program)
    describe(proto, described)
    try:
        path.write_bytes(proto.SerializeToString())
    except ValueError:  # what a protocol buffer of more than 2 GB raises
        raise ConvNeXtError("The network does not fit in one ONNX file of 2 GB. Try --half or --to openvino.") from None


def quantize(source: Path, out: Path, images: Sequence[Pixels], variant: str, described: dict[str, Any]) -> None:
    """Write the int8 form of `source` to `out`."""
    quantized(source, out, images, variant)
    onnx = needs("onnx", "--int8")
    proto = onnx.load(str(out))
    describe(proto, described)
    out.write_bytes(proto.SerializeToString())


def to_onnx(program: ExportedProgram) -> Any:
    """An onnx.ModelProto with the inputs and outputs of `program` under their names."""
    made = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=inputs_of(program), output_names=outputs_of(program)
    )
    assert made is not None
    proto = made.model_proto
    del proto.graph.value_info[:]  # their shapes would keep the names of torch's symbols
    for values, axes in ((proto.graph.input, _IMAGES), (proto.graph.output, _MAPS)):
        for value in values:
            for name, side in zip(axes, value.type.tensor_type.shape.dim, strict=False):
                if side.dim_param:
                    side.dim_param = name
    return proto


def describe(proto: Any, described: dict[str, Any]) -> None:
    """Put the description into an ONNX model, in place of what it says of itself."""
    values = {KEY: to_json(described), "classes": to_json(described["classes"])}
    values["preprocessing"] = to_json(described["preprocessing"])
    del proto.metadata_props[:]
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)


def quantized(source: Path, out: Path, images: Sequence[Pixels], variant: str) -> None:
    """The ONNX file `source` with int8 arithmetic as `out`, the activations' ranges from `images`."""
    onnx = needs("onnx", "--int8 with onnxruntime")
    needs("onnxruntime", "--int8 with onnxruntime", "export")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(source))
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Pixels] | None:
            found = next(self.left, None)
            return None if found is None else {name: found}

    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        quantize_static(
            str(source),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=[*int8.kept(layers(model), variant), *resampling(model)],
        )
    finally:
        logging.getLogger().setLevel(before)


def layers(model: Any) -> int8.Layers:
    """Of an ONNX model, with their kinds."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def found() -> Iterator[tuple[str, bool, int]]:
        for node in model.graph.node:
            if node.op_type == "Conv":
                groups = next((a.i for a in node.attribute if a.name == "group"), 1)
                yield node.name, groups > 1, math.prod(shapes.get(node.input[1], (1, 1, 1, 1))[2:])
            elif node.op_type in ("MatMul", "Gemm") and node.input[1] in shapes:
                yield node.name, False, 1

    return int8.kinds(found())


def resampling(model: Any) -> list[str]:
    """Names of the products that no weights of the network have a part in: those of the resize, and of attention."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] not in held]
