"""The Open Inference Protocol (KServe v2) over HTTP, with its binary extension: tensors in, tensors out.

Specification: kserve/open-inference-protocol, `inference_rest.md`, and Triton's `extension_binary_data.md`.
Axes: N images, H W pixel rows and columns, C channels, K classes, D objects of all images.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.deploy.images import FRAMES_NDIM, Given
from convnext.deploy.prediction import (
    ClassificationPrediction,
    DetectionPrediction,
    Prediction,
    SegmentationPrediction,
)
from convnext.deploy.serve.limits import Limits, Refused
from convnext.deploy.serve.models import Model
from convnext.errors import DataError, nearest, number_of, on_one_line
from convnext.files import from_json, to_json

LENGTH = "inference-header-content-length"  # header: bytes of JSON before the tensors
PIXELS, ENCODED = "images", "encoded"  # inputs, of which a request has one
_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8"), "UINT8": np.dtype("u1")}
_SIZE = struct.Struct("<I")  # before each element of BYTES
Tensor = NDArray[Any] | list[bytes]  # a list is BYTES
_ALL = 1 << 30  # classes: more than there are


@dataclass(frozen=True)
class Output:
    """One tensor of an answer."""

    datatype: str
    shape: tuple[int, ...]  # as metadata say it; -1 is any
    make: Callable[[Model, Sequence[Any]], Tensor]


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    id: str
    images: list[Given]
    outputs: dict[str, bool]  # name -> whether it comes as bytes


def metadata(model: Model) -> dict[str, Any]:
    """What the protocol tells of a model."""
    classes = len(model.predictor.classes)
    inputs: list[dict[str, Any]] = [{"name": ENCODED, "datatype": "BYTES", "shape": [-1]}]
    if not model.reads_bands:
        inputs.insert(0, {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, model.channels]})
    outputs = [
        {"name": name, "datatype": output.datatype, "shape": [classes if n == _ALL else n for n in output.shape]}
        for name, output in OUTPUTS[model.task].items()
    ]
    return {"name": model.name, "versions": ["1"], "platform": "convnext", "inputs": inputs, "outputs": outputs}


def asked(body: bytes, length: str | None, model: Model, limits: Limits) -> Asked:
    """What a body asks of `model`; `length`: the header LENGTH. Raises Refused where it is not of the protocol."""
    if length is not None and (not length.isdecimal() or int(length) > len(body)):
        raise Refused(400, f"{LENGTH} = '{on_one_line(length)}' is no number of bytes within the body.")
    end = len(body) if length is None else int(length)
    try:
        request = from_json(body[:end])
    except ValueError as error:
        raise Refused(
            400, f"The body is no JSON of the Open Inference Protocol: {on_one_line(str(error))[:200]}."
        ) from None
    inputs = _list_of(request, "inputs")
    if len(inputs) != 1 or inputs[0].get("name") not in (PIXELS, ENCODED):
        raise Refused(400, f"A request has one input, '{PIXELS}' or '{ENCODED}'. Its metadata say what these are.")
    if model.reads_bands and inputs[0]["name"] == PIXELS:
        raise Refused(400, f"'{model.name}' reads files of bands. Send them as '{ENCODED}'.")
    images = _images(inputs[0], body[end:], model, limits)
    parameters = request.get("parameters")
    whole = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    return Asked(str(request.get("id", ""))[:200], images, _outputs(request, model, whole))


def answer(model: Model, request: Asked, predictions: Sequence[Prediction]) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and its headers."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in request.outputs.items():
        output = OUTPUTS[model.task][name]
        tensor = output.make(model, predictions)
        shape = [len(tensor)] if isinstance(tensor, list) else list(tensor.shape)
        row: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": shape}
        if binary:
            tail.append(_packed(tensor, output.datatype))
            row["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            row["data"] = _listed(tensor)
        outputs.append(row)
    named = {"id": request.id} if request.id else {}
    head = to_json({"model_name": model.name, "model_version": "1", **named, "outputs": outputs}).encode()
    if not tail:
        return head, {"content-type": "application/json"}
    return head + b"".join(tail), {"content-type": "application/octet-stream", LENGTH: str(len(head))}


def how(model: Model, request: Asked) -> dict[str, Any]:
    """Options of the predictor for a request: a classifier names all of its classes."""
    if "probabilities" not in request.outputs:
        return {}
    return {"threshold": 0.0} if model.several else {"top": _ALL}


def _images(given: Mapping[str, Any], tail: bytes, model: Model, limits: Limits) -> list[Given]:
    name, shape = given["name"], given.get("shape")
    datatype = {PIXELS: "UINT8", ENCODED: "BYTES"}[name]
    if given.get("datatype") != datatype:
        raise Refused(
            400, f"The input '{name}' has datatype '{on_one_line(str(given.get('datatype')))}'; it is {datatype}."
        )
    if not isinstance(shape, list) or not all(type(n) is int and 0 < n <= 1 << 30 for n in shape):
        raise Refused(400, f"The shape of '{name}' is no list of whole numbers from 1 on.")
    if len(shape) != (FRAMES_NDIM if name == PIXELS else 1) or (name == PIXELS and shape[3] not in (1, 3, 4)):
        form = "[N, H, W, C] with 1, 3 or 4 channels" if name == PIXELS else "[N]"
        raise Refused(400, f"The shape of '{name}' is {shape}; it must be {form}.")
    if shape[0] > limits.files:
        raise Refused(413, f"A request has at most {number_of(limits.files, 'image')} here, not {shape[0]}.")
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and size != len(tail):
        raise Refused(
            400, f"binary_data_size = {on_one_line(str(size))[:40]}, and {len(tail)} bytes come after the JSON."
        )
    if name == ENCODED:
        files = _unpacked(tail) if size is not None else _decoded(given.get("data"))
        if len(files) != shape[0]:
            raise Refused(400, f"The input '{name}' holds {len(files)} elements, and its shape is {shape}.")
        return [Given(f"<bytes {number}>", data) for number, data in enumerate(files, 1)]
    pixels = _pixels(tail if size is not None else given.get("data"), shape)
    return [
        Given(f"<image {number}>", image[:, :, 0] if shape[3] == 1 else image) for number, image in enumerate(pixels, 1)
    ]


def _pixels(data: Any, shape: list[int]) -> NDArray[np.uint8]:
    count = shape[0] * shape[1] * shape[2] * shape[3]
    try:
        values = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.array(data)
    except ValueError:  # lists of different lengths
        values = np.zeros(0)
    if values.size != count:
        raise Refused(400, f"The input '{PIXELS}' holds {values.size} values, and its shape {shape} has {count}.")
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise Refused(400, f"The input '{PIXELS}' holds other values than whole numbers from 0 to 255.")
    return values.astype(np.uint8, copy=False).reshape(shape)


def _unpacked(tail: bytes) -> list[bytes]:
    """Elements of BYTES."""
    found: list[bytes] = []
    place = 0
    while place < len(tail):
        if place + _SIZE.size > len(tail):
            raise Refused(400, "The bytes after the JSON end within the length of an element.")
        (size,) = _SIZE.unpack_from(tail, place)
        place += _SIZE.size
        if place + size > len(tail):
            raise Refused(400, "The bytes after the JSON end within an element.")
        found.append(tail[place : place + size])
        place += size
    return found


def _decoded(data: Any) -> list[bytes]:
    """Files in JSON, as base64."""
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (TypeError, ValueError, binascii.Error):
        raise Refused(400, f"The input '{ENCODED}' in JSON is a list of files in base64.") from None


def _outputs(request: Mapping[str, Any], model: Model, binary: bool) -> dict[str, bool]:
    """Name -> whether as bytes. Those that are asked for, else all but the JSON, which says the same once more."""
    known = OUTPUTS[model.task]
    if "outputs" not in request:
        return {name: binary for name in known if known[name] is not _JSON}
    found: dict[str, bool] = {}
    for output in _list_of(request, "outputs"):
        name, parameters = str(output.get("name")), output.get("parameters")
        if name not in known:
            raise Refused(
                400, f"No output is called '{on_one_line(name)}', only {', '.join(known)}.{nearest(name, known)}"
            )
        more = parameters if isinstance(parameters, dict) else {}
        if strange := [key for key in more if key != "binary_data"]:
            raise Refused(400, f"The parameter '{on_one_line(strange[0])}' of an output is not known here.")
        found[name] = more.get("binary_data", binary) is True
    return found


def _list_of(request: Any, name: str) -> list[dict[str, Any]]:
    found = request.get(name) if isinstance(request, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise Refused(400, f"The body is no request of the Open Inference Protocol: it has no list of {name}.")
    return found


def _packed(tensor: Tensor, datatype: str) -> bytes:
    if isinstance(tensor, list):
        return b"".join(_SIZE.pack(len(each)) + each for each in tensor)
    return np.ascontiguousarray(tensor, _TYPES[datatype]).tobytes()


def _listed(tensor: Tensor) -> list[Any]:
    """Flat, as the protocol prefers."""
    return [each.decode() for each in tensor] if isinstance(tensor, list) else tensor.ravel().tolist()


def _answers(model: Model, found: Sequence[Prediction]) -> Tensor:
    return [to_json(prediction.to_dict()).encode() for prediction in found]


def _probabilities(model: Model, found: Sequence[ClassificationPrediction]) -> Tensor:
    """(N, K)"""
    places = {name: k for k, name in enumerate(model.predictor.classes)}
    scores = np.zeros((len(found), len(places)), np.float32)
    for row, prediction in zip(scores, found, strict=True):
        for name, score in prediction.predictions:
            row[places[name]] = score
    return scores


def _boxes(model: Model, found: Sequence[DetectionPrediction]) -> Tensor:
    return np.concatenate([prediction.boxes.reshape(-1, 4) for prediction in found])


def _scores(model: Model, found: Sequence[DetectionPrediction]) -> Tensor:
    return np.concatenate([prediction.scores for prediction in found])


def _labels(model: Model, found: Sequence[DetectionPrediction]) -> Tensor:
    return np.concatenate([prediction.labels for prediction in found])


def _of_image(model: Model, found: Sequence[DetectionPrediction]) -> Tensor:
    return np.repeat(np.arange(len(found)), [len(prediction) for prediction in found])


def _masks(model: Model, found: Sequence[SegmentationPrediction]) -> Tensor:
    if len({prediction.size for prediction in found}) > 1:
        raise DataError("The output 'mask' holds images of one size. Ask for those of other sizes in other requests.")
    return np.stack([prediction.mask for prediction in found])


_JSON = Output("BYTES", (-1,), _answers)
OUTPUTS: dict[str, dict[str, Output]] = {  # task -> what its networks answer
    "classification": {"probabilities": Output("FP32", (-1, _ALL), _probabilities), "json": _JSON},
    "detection": {
        "boxes": Output("FP32", (-1, 4), _boxes),  # x0 y0 x1 y1
        "scores": Output("FP32", (-1,), _scores),
        "labels": Output("INT64", (-1,), _labels),
        "image": Output("INT64", (-1,), _of_image),  # to which of the N images an object belongs, from 0
        "json": _JSON,
    },
    "segmentation": {"mask": Output("UINT8", (-1, -1, -1), _masks), "json": _JSON},
}
