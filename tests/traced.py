"""Equal detectors are traced once for all tests: of an export that is what takes most of its time."""

import hashlib
import json
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext.deploy.export import detector
from once import once


def traced_once(factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> None:
    """Until `patch` ends, an export takes the parts that a detector of the same weights and recipe was traced to before."""
    joined, traced = detector.detector_model, detector._exported

    def detector_model(model: Any, recipe: Any, **how: Any) -> Any:
        whole, number = digest(model, recipe), count()

        def part(*given: Any) -> Any:
            def make(folder: Path) -> None:
                (folder / "part.onnx").write_bytes(traced(*given).SerializeToString())

            return import_module("onnx").load(once(factory, f"part {next(number)} {whole}", make) / "part.onnx")

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(detector, "_exported", part)
            return joined(model, recipe, **how)

    patch.setattr(detector, "detector_model", detector_model)


def digest(model: torch.nn.Module, recipe: Any) -> str:
    """Of all that the graph follows from."""
    made = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        made.update(name.encode())
        made.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:24]
