"""A classifier as a .convnext file for this package's own kernels, in float32 and in int8."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.export import ExportedProgram

from convnext.config import Recipe, parse
from convnext.deploy import int8
from convnext.deploy.export.pixels import Transformed
from convnext.deploy.exported.opened import Pixels
from convnext.deploy.folded_int8 import quantized
from convnext.deploy.folded_run import read, unfilled
from convnext.deploy.forms.table import KEY
from convnext.files import to_json

_BATCH = 16  # images to calibrate on at once
_NETWORK = "network.network."  # of the names in a traced program: what is inside of the transform and the decision


def write(program: ExportedProgram, path: Path, described: dict[str, Any], *, half: bool) -> None:
    """Write the folded network that was traced to `path`. Raises ConvNeXtError for one that does not fold."""
    assert not half
    names = unfilled(described).state_dict()
    _save({name: program.state_dict[_NETWORK + name] for name in names}, path, described)


def quantize(source: Path, out: Path, images: Sequence[Pixels], variant: str, described: dict[str, Any]) -> None:
    """Write the int8 form of `source` to `out`."""
    network, _ = read(source)
    transformed = Transformed(parse(Recipe, described["recipe"], where="the description").input)
    with torch.inference_mode():
        batches = [
            torch.cat([transformed(torch.from_numpy(image)) for image in images[i : i + _BATCH]])
            for i in range(0, len(images), _BATCH)
        ]
    made = quantized(network, batches, downsampling="dense" not in int8.VARIANTS[variant])
    _save(made.state_dict(), out, described)


def _save(tensors: dict[str, Tensor], path: Path, described: dict[str, Any]) -> None:
    save_file({name: each.contiguous() for name, each in tensors.items()}, path, {KEY: to_json(described)})
