"""Matmuls on AMX: they round as other bf16 ones, read nothing that is not theirs, and may be refused by the system."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from convnext.kernels import cpu
from convnext.kernels.block import BlockWeights
from convnext.kernels.build import built
from convnext.kernels.cpu import packed, training
from convnext.kernels.cpu.int8 import int8_form
from convnext.kernels.dispatch import without_compiled
from convnext.kernels.instructions import named, present

SHAPES = [  # C, E, N, H, W: channels that fill no tile, rows that fill none, several spans
    (40, 160, 2, 9, 7),
    (17, 68, 3, 5, 3),
    (6, 24, 1, 8, 9),
    (96, 384, 4, 28, 28),
]
REFUSED = """
import ctypes, struct, sys
JUMP, RETURN, LOAD = 0x15, 0x06, 0x20
program = [(LOAD, 0, 0, 0), (JUMP, 0, 3, 158), (LOAD, 0, 0, 16), (JUMP, 0, 1, 0x1023),
           (RETURN, 0, 0, 0x00050001), (RETURN, 0, 0, 0x7FFF0000)]  # arch_prctl(0x1023, ...) answers EPERM
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
system = ctypes.CDLL(None)
assert system.prctl(38, 1, 0, 0, 0) == 0
if system.prctl(22, 2, ctypes.byref(Program(len(program), ctypes.addressof(code))), 0, 0):
    sys.exit(77)
import torch
from convnext.kernels import cpu
from convnext.kernels.cpu.int8 import int8_form, multiplied
print(int8_form(), cpu.bf16_matmuls())
torch.manual_seed(0)
held, weight = torch.randint(0, 256, (50, 70), dtype=torch.uint8), torch.randint(-128, 128, (40, 70), dtype=torch.int8)
assert torch.equal(multiplied(held, weight), (held.int() @ weight.int().T))
"""


@pytest.fixture(autouse=True)
def tiles() -> None:
    """Where there are none nothing of this file can be asked."""
    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")
    if "amx" not in {each.name for each in present()} or named():
        pytest.skip("NOT tested here: this processor has no AMX")
    if int8_form() != "AMX":
        pytest.skip("NOT tested here: the system refuses AMX to this process")


def weights(channels: int, hidden: int, *, grn: bool) -> BlockWeights:
    """Of a block whose every part matters."""
    torch.manual_seed(channels)
    one, many = [lambda n=n, scale=scale: torch.randn(n) * scale for n, scale in ((channels, 0.2), (hidden, 0.2))]
    return BlockWeights(
        spatial=torch.randn(channels, 1, 7, 7) / 7,
        spatial_bias=one(),
        norm=one() + 1,
        norm_bias=one(),
        expand=torch.randn(hidden, channels) / channels**0.5,
        expand_bias=many(),
        project=torch.randn(channels, hidden) / hidden**0.5,
        project_bias=one(),
        gamma=None if grn else one(),
        grn=many() if grn else None,
        grn_bias=many() if grn else None,
    )


def step(w: BlockWeights, x: Tensor, *, bf16: bool) -> list[Tensor]:
    """The answer and every gradient."""
    y = training.forward(w, x, None, bf16=bf16)
    by_x, by_weights = training.backward(w, x, None, x.flip(0), bf16=bf16)
    return [y, by_x, *(each for each in by_weights if each is not None)]


@pytest.mark.parametrize("grn", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_earlier_steps_left_in_memory_is_in_no_answer(shape, grn):
    channels, hidden, n, h, w = shape
    block, x = weights(channels, hidden, grn=grn), torch.randn(n, h, w, channels)
    before = step(block, x, bf16=True)
    nothing = block.map(lambda each: torch.full_like(each, float("nan")))
    step(nothing, torch.full((n + 3, h + 9, w, channels), float("nan")), bf16=True)
    for first, second in zip(before, step(block, x, bf16=True), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("grn", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_on_tiles_differs_from_float32s_by_the_rounding_of_operands(shape, grn):
    channels, hidden, n, h, w = shape
    block, x = weights(channels, hidden, grn=grn), torch.randn(n, h, w, channels)
    for low, exact in zip(step(block, x, bf16=True), step(block, x, bf16=False), strict=True):
        assert (low - exact).norm() < 0.01 * exact.norm()  # 8 bits: a value is rounded by 0.2 % at most, sums average


@pytest.mark.parametrize("rows", [1, 16, 17, 33, 64])
def test_a_tiles_answer_is_that_of_its_rows_alone(rows, monkeypatch):
    monkeypatch.setattr(packed, "bf16_matmuls", lambda: True)
    w = weights(40, 160, grn=False)._replace(norm=None, norm_bias=None, gamma=None)
    layers = cpu.PackedLayers([cpu.PackedBlock(w.map(lambda each: each.bfloat16() if each.ndim == 2 else each))])
    x = torch.randn(1, 1, 64, 40)
    x[:, :, rows + 3 :] = float("nan")  # beyond the window of the first `rows`
    (y,) = layers(x)
    (alone,) = layers(x[:, :, : rows + 3].contiguous())
    assert torch.equal(y[:, :, : max(rows - 3, 0)], alone[:, :, : max(rows - 3, 0)]) and not alone.isnan().any()


def test_a_process_that_may_not_use_tiles_multiplies_bytes_without_and_floats_in_float32():
    assert built().library
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=120)
    if done.returncode == 77:
        pytest.skip("NOT tested here: no filter of system calls may be set")
    assert (done.stdout, done.returncode) == ("AVX512-VNNI False\n", 0), done.stderr
