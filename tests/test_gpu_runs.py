"""Training, going on and evaluation on a GPU with the Triton kernels: `make test-gpu`; see test_gpu.py."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: runs on a GPU are NOT tested")
from commands import convnext, rows, tiny
from convnext.deploy.load import load
from convnext.engine.checkpoint import read_metadata
from convnext.engine.fit import _Loop
from convnext.engine.update import Update
from convnext.kernels import dispatch
from convnext.kernels.gpu.available import interpreted
from convnext.models.fused import OnKernels
from images import write_colours

pytestmark = pytest.mark.gpu
DEVICE = "cpu" if interpreted() else "cuda"
SHORT = ("--schedule.steps", 4, "--checkpoint-steps", 1, "--model.kernel", 3, "--device", DEVICE, "--kernels", "triton")
if interpreted():  # every value of a map costs Python
    SHORT += ("--size", 8, "--model.patch", 4, "--batch", 2, "--model.widths", "8,8")


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter the CPU stands for the GPU."""
    monkeypatch.setattr(dispatch, "on_gpu", lambda device: device.type == DEVICE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run)]


def test_a_run_that_ended_early_goes_on_to_the_losses_of_one_that_did_not(data, tmp_path, monkeypatch):
    seen: list[bool] = []
    step = Update.__call__

    def early(self: Update, *given: object, **named: object) -> object:
        seen.append(any(isinstance(getattr(each, "kernels", None), OnKernels) for each in self.network.modules()))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return step(self, *given, **named)

    arguments = tiny(data, tmp_path / "early", *SHORT)
    monkeypatch.setattr(Update, "__call__", early)
    assert convnext(*arguments).status == 130 and all(seen)
    monkeypatch.setattr(Update, "__call__", step)
    assert "Going on" in convnext(*arguments).err
    assert convnext(*tiny(data, tmp_path / "whole", *SHORT)).status == 0
    assert losses(tmp_path / "early") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_16_bits_trains_and_evaluates_as_on_the_cpu(data, tmp_path, precision):
    run = tmp_path / "run"
    done = convnext(*tiny(data, run, *SHORT, "--precision", precision))
    assert done.status == 0, done.err
    assert all(loss == loss and loss < 10 for loss in losses(run))
    assert bool(read_metadata(run / "last.safetensors")["scaler"]) is (precision == "fp16")
    found = [
        json.loads(convnext("evaluate", run, data, "--device", device, "--json").out) for device in (DEVICE, "cpu")
    ]
    assert found[0]["n"] == found[1]["n"] and found[0]["loss"] == pytest.approx(found[1]["loss"], abs=0.05)


def test_dropped_branches_and_the_ema_live_on_the_gpu(data, tmp_path):
    more = ("--model.drop_path", 0.3, "--optim.ema", 0.9, "--precision", "bf16")
    done = convnext(*tiny(data, tmp_path / "run", *SHORT, *more))
    assert done.status == 0 and torch.tensor(losses(tmp_path / "run")).isfinite().all()


def test_a_gpu_trains_in_16_bits_by_default_and_the_rest_in_tf32_where_it_can(data, tmp_path):
    if interpreted():
        pytest.skip("the precision of a GPU is asked of a GPU")
    run = tmp_path / "run"
    done = convnext(*tiny(data, run, *SHORT))
    assert done.status == 0, done.err
    ampere = torch.cuda.get_device_capability() >= (8, 0)
    assert json.loads((run / "recipe.json").read_text())["precision"] == ("bf16" if ampere else "fp16")
    told = json.loads((run / "environment.json").read_text())["float32_matmuls"]
    assert told == ("TF32" if ampere else "float32")
    assert (f"bf16 and TF32 on {DEVICE}" if ampere else f"fp16 on {DEVICE}") in done.err
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_a_compiled_run_in_16_bits_with_tf32_beside_them_trains(data, tmp_path):
    if interpreted():
        pytest.skip("torch's compiler asks for TF32 on a GPU alone; test_precision.py has what it asks")
    done = convnext(*tiny(data, tmp_path / "run", "--schedule.steps", 2, "--device", DEVICE, "--compile"))
    assert done.status == 0 and all(loss == loss for loss in losses(tmp_path / "run")), done.err


@pytest.mark.parametrize("more", [(), ("--cuda-graphs",)], ids=["plain", "replayed"])
def test_a_step_makes_no_call_that_waits_for_the_gpu(data, tmp_path, monkeypatch, more):
    if interpreted():
        pytest.skip("torch tells of such calls on a GPU alone; test_waits.py counts them without one")
    whole, watched = _Loop._step, []

    def step(self: _Loop, number: int, batch: object) -> None:
        watched.append(number)
        torch.cuda.set_sync_debug_mode("error" if number in (5, 6) else "default")  # the first ones lay out memory
        try:
            whole(self, number, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_Loop, "_step", step)
    more += (
        "--schedule.steps",
        9,
        "--device",
        DEVICE,
        "--kernels",
        "plain",
        "--optim.clip",
        1.0,
        "--precision",
        "bf16",
    )
    done = convnext(*tiny(data, tmp_path / "run", *more))
    assert done.status == 0 and watched == [*range(9)], done.err


REPLAYED = {
    "bf16": ("--precision", "bf16"),
    "fp16": ("--precision", "fp16"),
    "muon": ("--precision", "bf16", "--optim.name", "muon"),
    "triton": ("--precision", "bf16", "--kernels", "triton"),
    "compiled": ("--precision", "bf16", "--compile"),
}


@pytest.mark.parametrize("kind", REPLAYED)
def test_replayed_steps_learn_what_steps_do_that_nobody_records(data, tmp_path, kind):
    if interpreted():
        pytest.skip("nothing is recorded on the CPU; test_replays.py has what stands for it")
    more = ("--schedule.steps", 10, "--kernels", "plain", "--model.drop_path", 0.3, "--optim.ema", 0.9, *REPLAYED[kind])
    more += ("--optim.clip", 1.0, "--optim.ema_warmup", "true", "--augment.mixup", 0.8, "--micro-batch", 5)
    found = []
    for name, graphs in (("plain", ()), ("replayed", ("--cuda-graphs",))):
        done = convnext(*tiny(data, tmp_path / name, *SHORT, *more, *graphs))
        assert done.status == 0, done.err
        found.append(losses(tmp_path / name))
    assert found[1] == pytest.approx(found[0], rel=1e-2 if kind == "muon" else 2e-3) and len({*found[1]}) == 10


def test_predictions_are_those_of_the_cpu_also_where_a_batch_is_replayed(data, tmp_path):
    run = tmp_path / "run"
    assert convnext(*tiny(data, run, *SHORT)).status == 0
    here, there = load(run, task="classification", device="cpu"), load(run, task="classification", device=DEVICE)
    side = here.recipe.input.size_px
    shown = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8)
    wanted = here.logits(shown)
    for _ in range(4):  # itself, then recorded, then replayed
        assert torch.allclose(there.logits(shown).cpu(), wanted, atol=0.05)
    assert len(list(there.predict(data / "val"))) == len(list(here.predict(data / "val")))
