"""The fused block on the Triton kernels beside the plain block in float64: who asks for them, and what they answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convnext.config import RunOptions
from convnext.kernels import dispatch
from convnext.kernels.dispatch import gpu_path, without_kernels, without_triton
from convnext.kernels.gpu import available
from convnext.models.convnext import Block
from convnext.models.fused import fuse
from convnext.recipes import recipe
from convnext.tasks.fitting import with_kernels

sys.path.insert(0, str(Path(__file__).parent))
from interpreted import answers_of, of

GPU = torch.device("cuda", 0)
needs_triton = pytest.mark.skipif(
    not available._has_triton(), reason="Triton is not installed: the GPU path of the blocks is NOT tested"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What fused_cases.py prints."""
    return answers_of("fused_cases.py", tmp_path_factory, CONVNEXT_KERNELS="triton")


@needs_triton
def test_the_answer_and_every_gradient_are_the_plain_blocks(found):
    for case, errors in of(found, "training").items():
        assert len(errors) == (10 if case == "no layer scale" else 11)
        assert max(errors.values()) < 1e-5, (case, errors)


@needs_triton
def test_drop_path_drops_the_images_that_it_drops_in_the_plain_block(found):
    answer = of(found, "drop_path")
    assert max(answer["errors"]) < 1e-5 and answer["same draw"] and 0 < answer["dropped"] < 8


@needs_triton
def test_inference_takes_the_kernels_in_every_dtype_and_answers_in_it(found):
    answer = of(found, "inference")
    for dtype, bound in (("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1.6e-2)):
        assert answer[dtype]["dtype"] == f"torch.{dtype}" and answer[dtype]["calls"] == 1
        assert answer[dtype]["error"] < bound


@needs_triton
def test_autocast_decides_the_products_and_every_dtype_is_the_plain_blocks(found):
    for case, answer in of(found, "autocast").items():
        fused, plain = answer["errors"]
        assert answer["same dtypes"] and answer["calls"] == 1, case
        assert 1e-4 < fused < max(2e-2, 2 * plain), (case, fused, plain)  # rounded to bfloat16, and no worse than plain


@needs_triton
def test_a_network_keeps_its_names_and_state_and_answers_the_same_fused_compiled_copied_and_undone(found):
    answer = of(found, "network")
    assert answer["fused"] == answer["undone"] == 2 and answer["kinds"] and answer["same state"] and answer["plain"]
    assert max(*answer["errors"], answer["afterwards"]) < 1e-5 and answer["copied"]
    assert answer["operators in the compiled graph"] == [2]


@needs_triton
def test_a_folded_network_takes_the_kernels_too_unless_it_is_told_not_to(found):
    answer = of(found, "folded")
    assert (
        answer["calls"]["eager"] == answer["calls"]["autocast"] == answer["calls"]["in the compiled graph"] == 3
        and answer["calls"]["not fused"] == 0
    )
    assert answer["errors"].pop("autocast") < 2e-2 and max(answer["errors"].values()) < 1e-5 and not answer["V2"]


@needs_triton
def test_an_exported_block_is_one_of_plain_torch(found):
    assert of(found, "exported") is True


@needs_triton
def test_what_the_kernels_do_not_take_goes_to_the_plain_block_to_the_bit(found):
    answer = of(found, "plain_instead")
    assert answer.pop("fits") and answer.pop("the same")
    assert set(answer) == {"float64", "too wide", "mixed", "hooked", "no triton"} and not any(answer.values())


@needs_triton
def test_the_kernels_run_for_those_who_ask_by_the_environment_or_for_one_run(found):
    answer = of(found, "asking")
    assert answer["triton"] == [1, 1, None]
    assert answer["plain"][:2] == [0, 0] and "CONVNEXT_KERNELS=plain" in answer["plain"][2]
    assert answer[""][:2] == [0, 1] and "CONVNEXT_KERNELS=triton" in answer[""][2]
    assert "Give one of plain, triton" in answer["tritn"] and "mean 'triton'" in answer["tritn"]
    trained = [answer[f"train {choice}"] for choice in ("auto", "plain", "triton")]
    assert trained == ["NoneType", "NoneType", "OnKernels"]


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0), *, triton: bool = True) -> None:
    """Let this machine seem to have a GPU."""
    monkeypatch.delenv(dispatch.SWITCH, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(available, "_capability", lambda index: capability)
    monkeypatch.setattr(available, "_has_triton", lambda: triton)
    monkeypatch.setattr(available, "_has_compiler", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)


def test_doctor_says_in_one_line_what_runs_on_the_gpu_and_why(monkeypatch):
    pretend_gpu(monkeypatch)
    assert gpu_path(GPU).startswith("plain torch: ") and "CONVNEXT_KERNELS=triton" in gpu_path(GPU)
    assert gpu_path(GPU, asked=True) == "triton"
    monkeypatch.setenv(dispatch.SWITCH, "triton")
    assert gpu_path(GPU) == gpu_path(torch.device("cpu")) == "triton"
    monkeypatch.setenv(dispatch.SWITCH, "plain")
    assert gpu_path(GPU, asked=True) == "plain torch: CONVNEXT_KERNELS=plain turns the kernels off"


@pytest.mark.parametrize(
    ("fault", "said"),
    [("old", "7.5 is older than 8.0"), ("no triton", "triton is not installed"), ("no compiler", "C compiler")],
)
def test_an_old_gpu_and_what_triton_lacks_are_named_and_plain_torch_runs(monkeypatch, fault, said):
    pretend_gpu(monkeypatch, (7, 5) if fault == "old" else (9, 0), triton=fault != "no triton")
    if fault == "no compiler":
        monkeypatch.setattr(available, "_has_compiler", lambda: False)
    assert said in gpu_path(GPU, asked=True) and said in str(without_triton(GPU, asked=True))
    assert said in str(without_kernels(GPU, asked=True))
    block = Block(8, kernel=3, layer_scale=0.5, grn=False, drop_path=0.0)
    assert fuse(block, triton=True, device=GPU) == 0 and block.kernels is None


def test_a_run_on_a_gpu_is_fused_before_it_is_moved_there_in_any_precision_and_compiled(monkeypatch):
    pretend_gpu(monkeypatch)
    for precision in ("fp32", "bf16", "fp16"):
        chosen = recipe("small", "atto", images=100, image_px=32, classes=2).model_copy(update={"precision": precision})
        made = torch.nn.Sequential(Block(8, kernel=3, layer_scale=0.5, grn=False, drop_path=0.0))
        for choice, fused in (("plain", False), ("auto", False), ("triton", True)):
            with_kernels(made, chosen, RunOptions(out="x", kernels=choice, compile=True), GPU)
            assert (made[0].kernels is not None) is fused
        x = torch.randn(1, 8, 3, 3)
        assert made[0].kernels.allowed.triton and made(x).shape == x.shape  # still on the CPU: as there


def test_without_a_gpu_doctor_says_so_and_torchs_compiler_is_not_loaded():
    code = (
        "import json, sys, torch\nfrom convnext.engine.environment import environment\n"
        "torch.cuda.is_available = lambda: False\n"
        "said = environment(torch.device('cpu'))['gpu_kernels']\n"
        "print(json.dumps([said, 'torch._dynamo' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["plain torch: there is no CUDA device here", False]
