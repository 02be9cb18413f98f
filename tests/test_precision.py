"""The number format of a run: what a GPU takes by default, that `--precision` decides, and that a run keeps its own."""

import contextlib
import json
from pathlib import Path

import pytest
import torch

from commands import convnext, tiny, trained
from convnext.engine.precision import capability_of, float32_here, float32_of
from convnext.recipes import FITTED, PUBLISHED
from convnext.recipes.precision import fitting_precision
from images import write_colours

H100, A100, T4, V100, P100 = (9, 0), (8, 0), (7, 5), (7, 0), (6, 0)  # compute capabilities as NVIDIA lists them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


def told(run: Path, name: str, key: str) -> object:
    return json.loads((run / f"{name}.json").read_text())[key]


@pytest.mark.parametrize("name", [None, *(name for made in FITTED.values() for name in made)])
def test_fitted_recipes_take_the_16_bits_that_the_gpu_multiplies(name):
    wanted = {H100: "bf16", A100: "bf16", T4: "fp16", V100: "fp16", P100: "fp32", None: None}
    assert {each: fitting_precision(name, each) for each in wanted} == wanted


@pytest.mark.parametrize("name", [name for made in PUBLISHED.values() for name in made])
def test_published_recipes_keep_the_precision_that_they_were_published_with(name):
    assert fitting_precision(name, H100) is None


def test_a_cpu_has_no_compute_capability_and_multiplies_float32():
    assert capability_of(torch.device("cpu")) is None and float32_here(torch.device("cpu")) == "float32"


def test_what_16_bits_leave_is_multiplied_in_tf32_where_there_is_one_and_afterwards_as_before():
    matmul, convolution, cpu = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul

    def now() -> tuple[str, ...]:
        return matmul.fp32_precision, convolution.fp32_precision, cpu.fp32_precision

    before = now()
    for precision, capability in (("fp32", H100), ("bf16", None), ("fp16", T4)):
        with float32_of(precision, capability):
            assert now() == before
    with contextlib.suppress(KeyError), float32_of("bf16", A100):
        assert now() == ("tf32", "tf32", before[-1]) and float32_here(torch.device("cuda")) == "TF32"
        raise KeyError
    assert now() == before


@pytest.mark.parametrize("already", ["none", "ieee"])
def test_the_older_flags_which_the_compiler_and_the_profiler_of_torch_ask_agree(already):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = already  # a person's own choice
        with float32_of("bf16", H100), torch.profiler.profile() as profile:
            assert torch.get_float32_matmul_precision() == "high" and matmul.allow_tf32
            torch.ones(2, 2) @ torch.ones(2, 2)
        assert profile.events() and matmul.fp32_precision == already
        assert torch.get_float32_matmul_precision() == "highest" and not matmul.allow_tf32
    finally:
        matmul.fp32_precision = before


def test_a_gpu_decides_unless_the_person_does(data, tmp_path, monkeypatch):
    monkeypatch.setattr("convnext.tasks.starting.capability_of", lambda device: H100)
    said = trained(data, tmp_path / "own", "--epochs", 1).err
    assert told(tmp_path / "own", "recipe", "precision") == "bf16" and "bf16 on cpu" in said
    trained(data, tmp_path / "asked", "--epochs", 1, "--precision", "fp32")
    assert told(tmp_path / "asked", "recipe", "precision") == "fp32"


def test_a_run_that_began_on_another_device_keeps_its_precision_and_says_so(data, tmp_path):
    run = tmp_path / "run"
    trained(data, run, "--epochs", 1, "--precision", "bf16")
    refused = convnext(*tiny(data, run, "--epochs", 1))
    assert refused.status == 2 and "precision = bf16 there and fp32 here" in refused.err
    about = run / "environment.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "device_name": "NVIDIA H100"}))
    went_on = convnext(*tiny(data, run, "--epochs", 1))
    assert went_on.status == 0, went_on.err
    assert "This run began in bf16 on another device and goes on so; here it would begin in fp32." in went_on.err
    assert told(run, "recipe", "precision") == "bf16"
