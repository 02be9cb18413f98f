"""The network in a .convnext file as a function of NumPy arrays, by torch and this package's compiled kernels.

The file is one of safetensors, the tensors of a folded network by their names there, int8 or not; its description is in the
metadata, and its digest at the end. Axes: N images, H W pixel rows and columns, C channels, K classes.
"""

import math
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import Recipe, parse
from convnext.deploy.export.answering import Answering
from convnext.deploy.exported.classifier import ExportedClassifier
from convnext.deploy.exported.opened import Exported, Pixels, Run, description_of
from convnext.deploy.folded import Folded
from convnext.deploy.folded_int8 import with_int8
from convnext.deploy.forms.table import KEY, LOGITS
from convnext.deploy.optimize import foldable, optimize
from convnext.engine.checkpoint import dtype_of
from convnext.errors import ConvNeXtError
from convnext.files import from_json
from convnext.kernels.dispatch import without_compiled
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.streams import tell


def run_of(path: Path, threads: int) -> tuple[Run, str]:
    """The network on `threads` threads of torch, 0 for as many as it has, and the text of its description."""
    network, text = read(path)
    described = description_of(path, text)
    if threads:
        torch.set_num_threads(threads)
    if described["precision"] == "int8" and (reason := without_compiled()):
        tell(f"'{path.name}' answers many times slower than it could: {reason}.")

    def run(images: Pixels, outputs: Sequence[str], **more: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            logits = network(_transformed(answering, torch.from_numpy(images)))
            found = {LOGITS: logits} if tuple(outputs) == (LOGITS,) else answering.answers(logits)
        return [found[name].numpy() for name in outputs]

    answering = Answering(network, ExportedClassifier.around(Exported(path, "torch", run, described)))
    if answering.transformed.size >= network.config.patch:  # else plain torch says what is wrong
        network.release()
    return run, text


def read(path: Path) -> tuple[Folded, str]:
    """The network in a file and the text of its description. Raises what a damaged file causes."""
    with path.open("rb") as file:  # one tensor after the other: the file is never held beside them
        start = 8 + int.from_bytes(file.read(8), "little")
        header = from_json(file.read(start - 8))
        text = str(header.pop("__metadata__", {}).get(KEY, ""))
        described = description_of(path, text)
        tensors = {name: _tensor(file, start, entry) for name, entry in header.items()}
    network = with_int8(unfilled(described), tensors)
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False), text


def _tensor(file: BufferedReader, start: int, entry: dict[str, Any]) -> Tensor:
    """The one that `entry` of the header describes, whose offsets are counted from `start`."""
    (first, last), dtype = entry["data_offsets"], dtype_of(entry["dtype"])
    size = math.prod(entry["shape"]) * dtype.itemsize
    made = torch.empty(entry["shape"] if size == last - first else 0, dtype=dtype)
    file.seek(start + first)
    if made.nbytes != size or file.readinto(made.reshape(-1).view(torch.uint8).numpy().data) != size:
        raise ValueError("a tensor is not as long as its shape says")
    return made


def unfilled(described: dict[str, Any]) -> Folded:
    """The folded network that a description names, without values. Raises ConvNeXtError where it is not one that folds."""
    recipe = parse(Recipe, described["recipe"], where="the description")
    with torch.device("meta"):
        model = build_model(recipe.model).eval() if recipe.task == "classification" else None
    if not isinstance(model, ConvNeXt) or not foldable(model):
        what = f"'{recipe.model.name}'" if recipe.task == "classification" else f"a network for {recipe.task}"
        raise ConvNeXtError(f"--to convnext is for classifiers whose norms fold, and this is {what}. Take --to onnx.")
    made = optimize(model)
    assert isinstance(made, Folded)
    return made


def _transformed(answering: Answering, images: Tensor) -> Tensor:  # (N, H, W, C) -> (N, C, S, S)
    """What the network takes; images that a resize would leave as they are go without it."""
    transform, (height, width) = answering.transformed, images.shape[1:3]
    side = transform.shorter or transform.size
    if (height, width) != (side, side):
        return transform(images)
    before = round((side - transform.size) / 2)
    seen = slice(before, before + transform.size)
    return transform.normalised(images[:, seen, seen].permute(0, 3, 1, 2).float())
