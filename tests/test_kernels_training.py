"""The block's training step on the compiled CPU kernels: V2's global response normalization, and bf16 matmuls.

The oracle is the plain block in float64; what float32 does for V1 is in test_kernels_cpu.py.
"""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from convnext.kernels import build, cpu, dispatch, structs
from convnext.kernels.block import folded
from convnext.kernels.cpu import library, packed
from convnext.kernels.dispatch import without_compiled
from convnext.models import fused
from convnext.models.convnext import Block, ConvNeXt
from convnext.models.create import create
from convnext.models.fused import fuse, weights_of

SHAPES = [  # C, N, H, W, kernel: widths of T and atto, odd maps and widths, one pixel, images larger than a span of V1
    (96, 2, 15, 13, 7),
    (40, 9, 9, 13, 7),
    (384, 2, 7, 7, 7),
    (17, 2, 5, 3, 7),
    (24, 1, 1, 1, 7),
    (40, 1, 61, 87, 7),
    (33, 2, 8, 8, 9),
    (5, 3, 3, 3, 3),
]
KINDS = ("v1", "v2", "both")


@pytest.fixture(autouse=True)
def kernels() -> None:
    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 matmuls on whatever processor has them, as if they were faster than its float32."""
    found = build.built().library
    assert found
    if not found.cn_bf16():
        pytest.skip("NOT tested here: this processor multiplies no bfloat16 values")
    for module in (fused, packed):
        monkeypatch.setattr(module, "bf16_matmuls", lambda: True)


def block_of(kind: str, width: int, kernel: int = 7, drop_path: float = 0.0) -> Block:
    """One whose every parameter matters; 'both' has layer scale and global response normalization."""
    torch.manual_seed(width)
    scale = None if kind == "v2" else 1.0
    block = Block(width, kernel=kernel, layer_scale=scale, grn=kind != "v1", drop_path=drop_path)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    block.norm.weight.data.add_(1)
    return block


def batch(width: int, n: int, h: int, w: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x (N, C, H, W) and a gradient of its shape."""
    generator = torch.Generator().manual_seed(h + seed)
    x, gradient = torch.randn(2, n, width, h, w, generator=generator)
    return x.to(memory_format=torch.channels_last), gradient.to(memory_format=torch.channels_last)


def step(block: Block, x: Tensor, gradient: Tensor, *, low: bool = False, threads: int = 1) -> dict[str, Tensor]:
    """The answer and every gradient by name, of a copy of the block; `low`: under autocast to bfloat16."""
    model, given = copy.deepcopy(block), x.clone(memory_format=torch.preserve_format).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
        y = model(given)
    y.backward(gradient.to(y.dtype))
    torch.set_num_threads(before)
    return {"y": y.detach(), "x": given.grad, **{name: p.grad for name, p in model.named_parameters()}}


def exactly(block: Block, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """`step` of the plain block in float64."""
    return step(copy.deepcopy(block).double(), x.double(), gradient.double())


def distance(found: Tensor, exact: Tensor) -> float:
    """The largest difference, in parts of the largest exact value."""
    found, exact = found.detach(), exact.detach()
    return float((found - exact).abs().max() / exact.abs().max())


def on_kernels(block: Block) -> Block:
    made = copy.deepcopy(block)
    assert fuse(made) == 1
    return made


@pytest.mark.parametrize("kind", ["v2", "both"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_gradient_of_a_block_of_v2_is_the_plain_one_in_float64(shape, kind):
    width, n, h, w, kernel = shape
    block, (x, gradient) = block_of(kind, width, kernel), batch(width, n, h, w)
    exact, made = exactly(block, x, gradient), on_kernels(block)
    assert dispatch.fits_compiled(made, x, dispatch.allowed(x.device))
    for threads in (1, 2):
        found = step(made, x, gradient, threads=threads)
        assert distance(found.pop("y"), exact["y"]) < 5e-6
        for name, value in found.items():
            assert distance(value, exact[name]) < 5e-5, name


def test_a_hidden_channel_that_is_silent_everywhere_has_finite_gradients():
    """Its energy is 0, whose square root has no slope there: the plain block takes 0 for it."""
    block, (x, gradient) = block_of("v2", 40), batch(40, 2, 6, 5)
    block.expand.bias.data[3] = -1000.0
    exact, found = exactly(block, x, gradient), step(on_kernels(block), x, gradient)
    assert all(distance(value, exact[name]) < 5e-5 for name, value in found.items())
    assert found["grn.weight"][3] == exact["grn.weight"][3] == 0


def test_an_image_that_drop_path_drops_passes_and_teaches_nothing():
    made, (x, gradient) = on_kernels(block_of("v2", 40, drop_path=0.5)).train(), batch(40, 8, 6, 6)
    torch.manual_seed(3)
    found = step(made, x, gradient)
    dropped = [torch.equal(y, own) for y, own in zip(found["y"], x, strict=True)]
    assert 0 < sum(dropped) < 8
    gradient = gradient * torch.tensor([0.0 if gone else 1.0 for gone in dropped]).view(-1, 1, 1, 1)
    torch.manual_seed(3)
    again = step(made, x, gradient)
    for name in set(found) - {"x", "y"}:
        assert torch.equal(found[name], again[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(96, 2, 15, 13, 7), (40, 3, 9, 13, 7), (17, 3, 7, 9, 5)], ids=str)
def test_with_bf16_matmuls_no_gradient_is_farther_from_float64_than_autocasts(bf16, shape, kind):
    """Each tensor's distance over three batches, as a root of the sum of squares; odd rows, which are taken in pairs."""
    width, n, h, w, kernel = shape
    block = block_of(kind, width, kernel)
    made, apart, low_apart = on_kernels(block), dict[str, float](), dict[str, float]()
    for seed in range(3):
        x, gradient = batch(width, n, h, w, seed)
        exact, found = exactly(block, x, gradient), step(made, x, gradient, low=True)
        for name, value in step(block, x, gradient, low=True).items():
            scale = exact[name].norm()
            apart[name] = apart.get(name, 0) + float(((found[name] - exact[name]).norm() / scale) ** 2)
            low_apart[name] = low_apart.get(name, 0) + float(((value - exact[name]).norm() / scale) ** 2)
    assert apart["y"] > 1e-7  # bf16 it is
    assert {name: apart[name] / low_apart[name] for name in apart if apart[name] > low_apart[name]} == {}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_matmuls_on_two_threads_find_the_same_gradients(bf16, shape):
    width, n, h, w, kernel = shape
    made, (x, gradient) = on_kernels(block_of("v2", width, kernel)), batch(width, n, h, w)
    one, two = (step(made, x, gradient, low=True, threads=threads) for threads in (1, 2))
    assert all(distance(one[name].float(), two[name].float()) < 0.02 for name in one)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
def test_the_same_step_of_v2_twice_gives_the_same_bits(bf16, low, threads):
    made, (x, gradient) = on_kernels(block_of("v2", 96)), batch(96, 3, 28, 27)
    one, two = (step(made, x, gradient, low=low, threads=threads) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_x_alone_is_kept_for_the_way_back_in_its_own_dtype(bf16, kind, dtype):
    made, (x, _) = on_kernels(block_of(kind, 40)), batch(40, 2, 6, 5)
    kept: list[Tensor] = []
    own = {each.data_ptr() for each in made.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        made(x.to(dtype).requires_grad_())
    (left,) = [each for each in kept if each.data_ptr() not in own]
    assert left.shape == (2, 6, 5, 40) and left.dtype is dtype


def test_where_bf16_matmuls_are_no_gain_a_bf16_run_computes_in_float32(monkeypatch):
    monkeypatch.setattr(fused, "bf16_matmuls", lambda: False)
    made, (x, gradient) = on_kernels(block_of("v1", 40)), batch(40, 2, 6, 5)
    low, full = step(made, x, gradient, low=True), step(made, x, gradient)
    assert all(torch.equal(low[name], full[name]) for name in full)


@pytest.mark.parametrize(("rates", "gain"), [((178.0, 89.0), False), ((118.0, 236.0), True), ((100.0, 120.0), False)])
def test_a_processor_has_bf16_matmuls_where_they_are_faster(bf16, monkeypatch, rates, gain):
    """Intel's Xeons of the fifth generation have the instruction, at half of float32's rate."""
    monkeypatch.setattr(library, "_rate", lambda rounds, count, *, bf16: rates[bf16])
    assert library.bf16_matmuls.__wrapped__() is gain


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_block_of_v2_with_bf16_matmuls_is_closer_than_a_block_in_bfloat16(bf16, shape):
    width, n, h, w, kernel = shape
    block, (x, _) = block_of("v2", width, kernel).bfloat16(), batch(width, n, h, w)
    layer = cpu.PackedBlock(folded(weights_of(block)))
    assert layer.kind is structs.Kind.BLOCK_BF16
    with torch.no_grad():
        exact = copy.deepcopy(block).double()(x.double())
        plain = float((block(x.bfloat16()) - exact).norm() / exact.norm())
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        (y,) = cpu.PackedLayers([layer])(x.permute(0, 2, 3, 1))
        torch.set_num_threads(before)
        assert float((y.permute(0, 3, 1, 2) - exact).norm() / exact.norm()) < min(plain, 0.01)


def test_a_network_of_v2_is_fused_and_on_a_gpu_stays_plain(monkeypatch):
    network = create("v2_atto", depths=(1, 1, 2, 1), widths=(16, 24, 32, 40), classes=5)
    assert isinstance(network, ConvNeXt)
    x = torch.randn(2, 3, 48, 40)
    exact = copy.deepcopy(network).double()(x.double())
    assert fuse(network) == 5 and distance(network(x), exact) < 1e-5
    wanted = create("v2_atto", depths=(1, 1, 2, 1), widths=(16, 24, 32, 40), classes=5)
    monkeypatch.setattr(dispatch, "on_gpu", lambda device: True)  # what was fused before it was moved there, and after
    monkeypatch.setattr(dispatch, "without_kernels", lambda device, triton: None)
    monkeypatch.setattr(dispatch, "fits_triton", lambda block, x, allowed: True)
    monkeypatch.setattr(fused, "_on_gpu", lambda block, x: x)
    assert fuse(wanted) == 0 and distance(network(x), exact) < 1e-5
