"""Equal detectors are traced once for all tests: of an export that is what takes most of its time."""

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext.deploy.export import detector
from once import once


def traced_once(factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> None:
    """Until `patch` ends, an export takes the graph that a detector of the same weights and recipe was traced to before."""
    trace = detector.detector_model

    def detector_model(model: Any, recipe: Any) -> Any:
        def make(folder: Path) -> None:
            (folder / "graph.onnx").write_bytes(trace(model, recipe).SerializeToString())

        place = once(factory, f"graph {digest(model, recipe)}", make)
        return import_module("onnx").load(place / "graph.onnx")

    patch.setattr(detector, "detector_model", detector_model)


def digest(model: torch.nn.Module, recipe: Any) -> str:
    """Of all that the graph follows from."""
    made = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        made.update(name.encode())
        made.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:24]
