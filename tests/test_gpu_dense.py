"""Detectors and segmenters on a GPU with the Triton kernels: `make test-gpu`; see test_gpu.py."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton is not installed: dense tasks on a GPU are NOT tested")
from commands import convnext, rows
from convnext.deploy.load import load
from convnext.engine.checkpoint import read_metadata
from convnext.kernels import dispatch
from convnext.kernels.gpu.available import interpreted
from shape_objects import write_objects
from shapes import write_shapes
from test_cli_dense import arguments

pytestmark = pytest.mark.gpu
DEVICE = "cpu" if interpreted() else "cuda"
SHORT = ["--model.kernel", 3, "--device", DEVICE, "--kernels", "triton"]
if interpreted():  # every value of a map costs Python
    SHORT += ["--model.widths", "8,8,8,8", "--epochs", 1]
TASKS = {"detection": write_objects, "segmentation": write_shapes}
FIGURE = {"detection": "box_ap", "segmentation": "pixel_accuracy"}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter the CPU stands for the GPU."""
    monkeypatch.setattr(dispatch, "on_gpu", lambda device: device.type == DEVICE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("dense")
    return {task: write(place / task, train=4, val=3) for task, write in TASKS.items()}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_in_16_bits_trains_evaluates_and_predicts_as_on_the_cpu(data, tmp_path, task, precision):
    run = tmp_path / "run"
    done = convnext(*arguments(data[task], run, task, *SHORT, "--precision", precision))
    assert done.status == 0, done.err
    assert np.isfinite([row["loss"] for row in rows(run)]).all()
    assert bool(read_metadata(run / "last.safetensors")["scaler"]) is (precision == "fp16")
    asked = ("evaluate", run, data[task], "--workers", 0, "--json")
    here, there = (json.loads(convnext(*asked, "--device", each).out) for each in ("cpu", DEVICE))
    assert here["n"] == there["n"] and there[FIGURE[task]] == pytest.approx(here[FIGURE[task]], abs=0.1)
    images = sorted((data[task] / "val").rglob("*.png"))[:3]
    found = [list(load(run, device=each).predict(images)) for each in ("cpu", DEVICE)]
    if task == "segmentation":
        same = [float((one.mask == other.mask).mean()) for one, other in zip(*found, strict=True)]
        assert min(same) > 0.9
    else:
        assert [len(each) for each in found] == [len(images)] * 2


@pytest.mark.parametrize("task", TASKS)
def test_a_compiled_run_trains(data, tmp_path, task):
    if interpreted():
        pytest.skip("test_compiled_sizes.py has what is compiled without a GPU")
    done = convnext(
        *arguments(data[task], tmp_path / "run", task, *SHORT, "--kernels", "plain", "--compile", "--precision", "bf16")
    )
    assert done.status == 0, done.err
    assert np.isfinite([row["loss"] for row in rows(tmp_path / "run")]).all()
