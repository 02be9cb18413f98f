"""The number format of a run: what a device takes by default, that `--precision` decides, and that a run keeps its own."""

import contextlib
import json
from pathlib import Path

import pytest
import torch

from commands import Done, convnext, tiny, trained
from convnext.engine.precision import capability_of, fast_format, float32_here, float32_of
from convnext.kernels import instructions
from convnext.recipes import FITTED, PUBLISHED, is_fitted
from images import write_colours

H100, A100, T4, V100, P100 = (9, 0), (8, 0), (7, 5), (7, 0), (6, 0)  # compute capabilities as NVIDIA lists them
CPU = torch.device("cpu")
AMX = frozenset().union(*(each.needs for each in instructions.SETS if each.name == "amx"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


def undecided(data: Path, out: Path, *more: object) -> Done:
    """A run of one epoch for which nobody says the numbers."""
    words = tiny(data, out, "--epochs", 1, *more)
    at = words.index("--precision")
    return convnext(*words[:at], *words[at + 2 :])


def told(run: Path, name: str, key: str) -> object:
    return json.loads((run / f"{name}.json").read_text())[key]


@pytest.fixture
def without_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with all that this one has but AMX."""
    flags = instructions.abilities() - AMX
    monkeypatch.setattr(instructions, "abilities", lambda: flags)


@pytest.mark.parametrize(
    ("capability", "wanted"), [(H100, "bf16"), (A100, "bf16"), (T4, "fp16"), (V100, "fp16"), (P100, None)]
)
def test_the_16_bits_that_a_gpu_multiplies(capability, wanted, monkeypatch):
    monkeypatch.setattr("convnext.engine.precision.capability_of", lambda device: capability)
    assert fast_format(torch.device("cuda")) == wanted


def test_a_cpu_multiplies_bf16_fast_where_it_has_amx_and_may_use_it(monkeypatch):
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    monkeypatch.setattr(instructions, "abilities", lambda: AMX)
    assert fast_format(CPU) == "bf16" and fast_format(torch.device("mps")) is None
    monkeypatch.setenv(instructions.SWITCH, "avx512_bf16")
    assert fast_format(CPU) is None


@pytest.mark.parametrize("lacks", sorted(AMX))
def test_a_cpu_without_one_flag_of_amx_trains_in_float32(lacks, monkeypatch):
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    monkeypatch.setattr(instructions, "abilities", lambda: AMX - {lacks})
    assert fast_format(CPU) is None


def test_fitted_recipes_leave_the_format_to_the_device_and_published_ones_do_not():
    assert is_fitted(None) and all(is_fitted(name) for made in FITTED.values() for name in made)
    assert not any(is_fitted(name) for made in PUBLISHED.values() for name in made)


def test_a_cpu_has_no_compute_capability_and_multiplies_float32():
    assert capability_of(CPU) is None and float32_here(CPU) == "float32"


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


@pytest.mark.parametrize("fast", ["bf16", None])
def test_the_device_decides_unless_the_person_or_a_published_recipe_does(fast, data, tmp_path, monkeypatch):
    monkeypatch.setattr("convnext.tasks.starting.fast_format", lambda device: fast)
    said = undecided(data, tmp_path / "own").err
    chosen = fast or "fp32"
    assert told(tmp_path / "own", "recipe", "precision") == chosen and f"{chosen} on cpu" in said
    other = {"bf16": "fp32", "fp32": "bf16"}[chosen]
    trained(data, tmp_path / "asked", "--epochs", 1, "--precision", other)
    assert told(tmp_path / "asked", "recipe", "precision") == other
    assert undecided(data, tmp_path / "published", "--recipe", "imagenet1k").status == 0
    assert told(tmp_path / "published", "recipe", "precision") == "fp32"


@pytest.mark.parametrize(("there", "value"), [("device_name", "NVIDIA H100"), ("fast_precision", "bf16")])
def test_a_run_that_began_on_another_device_keeps_its_precision_and_says_so(
    data, tmp_path, without_tiles, there, value
):
    run = tmp_path / "run"
    trained(data, run, "--epochs", 1, "--precision", "bf16")
    refused = undecided(data, run)
    assert refused.status == 2 and "precision = bf16 there and fp32 here" in refused.err
    about = run / "environment.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), there: value}))
    went_on = undecided(data, run)
    assert went_on.status == 0, went_on.err
    assert "This run began in bf16 on another device and goes on so; here it would begin in fp32." in went_on.err
    assert told(run, "recipe", "precision") == "bf16"
