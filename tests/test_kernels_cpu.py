"""The compiled CPU kernels: the plain block in float64 is the oracle, and everything works without them too."""

import copy
import ctypes
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from children import awaited, children_of, environment, gone, started
from convnext.config import ConvNeXtConfig
from convnext.deploy.folded import FoldedStem
from convnext.errors import ConvNeXtError
from convnext.kernels import build, compiler, cpu, dispatch, structs
from convnext.kernels.block import folded
from convnext.kernels.cpu.library import pointer
from convnext.kernels.dispatch import SWITCH, allowed, without_compiled
from convnext.models.convnext import Block, ConvNeXt, Downsample, Stem
from convnext.models.fused import fuse, unfuse, weights_of

SHAPES = [  # C, N, H, W, kernel: the widths of T and atto, odd maps, odd widths, one pixel, other kernels
    (96, 2, 14, 14, 7),
    (40, 3, 9, 13, 7),
    (768, 1, 7, 7, 7),
    (384, 2, 14, 14, 7),
    (17, 2, 5, 3, 7),
    (24, 1, 1, 1, 7),
    (40, 1, 31, 57, 7),
    (33, 2, 8, 8, 9),
    (32, 2, 12, 30, 5),
    (5, 1, 3, 3, 3),
]
ANSWER = 'extern "C" __attribute__((visibility("default"))) long cn_answer() {{ return {}; }}\n'


@pytest.fixture
def kernels() -> None:
    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")


@contextmanager
def on(threads: int) -> Iterator[None]:
    """The kernels on that many threads; the slow oracle outside stays on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that compiles at once, an empty cache, and building as it is before anyone asked."""
    source = tmp_path / "source"
    source.mkdir()
    (source / compiler.UNIT).write_text(ANSWER.format(42), "utf-8")
    monkeypatch.setattr(compiler, "SOURCES", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(SWITCH, raising=False)
    if compiler.find_compiler() is None:
        pytest.skip("no C++ compiler is installed")
    return source


def random_block(width: int, kernel: int = 7, gamma: float | None = 1.0, drop_path: float = 0.0) -> Block:
    torch.manual_seed(width)
    block = Block(width, kernel=kernel, layer_scale=gamma, grn=False, drop_path=drop_path)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    block.norm.weight.data.add_(1)
    return block


def packed(block: Block) -> cpu.PackedBlock:
    return cpu.PackedBlock(folded(weights_of(block)))


def on_kernels(module: nn.Module) -> bool:
    return isinstance(module, Block) and module.kernels is not None


def fits(block: Block, x: Tensor) -> bool:
    return dispatch.fits_compiled(block, x, allowed(x.device))


def run(layer: cpu.PackedBlock | cpu.PackedPatch | cpu.PackedHead, x: Tensor) -> Tensor:
    """One layer alone: (N, H, W, C) -> (N, H, W, C)."""
    (y,) = cpu.PackedLayers([layer])(x)
    return y


def error(x: Tensor, exact: Tensor) -> float:
    """The largest difference, in parts of the largest exact value."""
    x, exact = x.detach(), exact.detach()
    return float((x - exact).abs().max() / exact.abs().max())


def grown(width: int, h: int, w: int, n: int) -> Tensor:
    return torch.randn(n, width, h, w, generator=torch.Generator().manual_seed(h)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_block_is_the_plain_block_in_float64(kernels, shape):
    width, n, h, w, kernel = shape
    block, x = random_block(width, kernel), grown(width, h, w, n)
    layer = packed(block)
    with torch.no_grad():
        exact = block.double()(x.double()).permute(0, 2, 3, 1)
    for threads in (1, 2):
        with on(threads):
            y = run(layer, x.permute(0, 2, 3, 1))
        assert y.is_contiguous() and error(y, exact) < 5e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_block_of_v2_is_the_plain_block_in_float64(kernels, shape):
    """Also with more images than are held at once."""
    width, n, h, w, kernel = shape
    torch.manual_seed(width)
    block = Block(width, kernel=kernel, layer_scale=None, grn=True, drop_path=0.0)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    block.norm.weight.data.add_(1)
    for images in (n, 9 * n):
        x = grown(width, h, w, images)
        with torch.no_grad():
            exact = copy.deepcopy(block).double()(x.double()).permute(0, 2, 3, 1)
        answers = []
        for threads in (1, 2):
            with on(threads):
                answers.append(run(packed(block), x.permute(0, 2, 3, 1)))
        assert error(answers[0], exact) < 5e-6 and error(answers[1], exact) < 5e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_matmuls_are_closer_than_a_block_in_bfloat16(kernels, shape, monkeypatch):
    """Maps, convolution, norm, GELU and sums stay float32: what is rounded are the matrices and what they multiply."""
    if not build.built().library.cn_bf16():
        pytest.skip("this processor multiplies no bfloat16 numbers")
    monkeypatch.setattr(cpu.packed, "bf16_matmuls", lambda: True)  # slower than float32 on some that have them
    width, n, h, w, kernel = shape
    block, x = random_block(width, kernel), grown(width, h, w, n)
    block.bfloat16()
    layer = packed(copy.deepcopy(block))
    assert layer.kind is structs.Kind.BLOCK_BF16
    with torch.no_grad():
        exact = copy.deepcopy(block).double()(x.double()).permute(0, 2, 3, 1)
        plain = error(block(x.bfloat16()).double().permute(0, 2, 3, 1), exact)
    answers = []
    for threads in (1, 2):
        with on(threads):
            answers.append(run(layer, x.permute(0, 2, 3, 1)))
    assert all(y.dtype == torch.float32 and error(y, exact) < min(plain, 0.01) for y in answers)
    low = run(layer, x.bfloat16().permute(0, 2, 3, 1))
    assert low.dtype == torch.bfloat16 and error(low, exact) < 0.02


def test_a_packed_block_writes_where_it_is_told_and_survives_a_copy(kernels):
    layers, x = cpu.PackedLayers([packed(random_block(40))]), torch.randn(1, 6, 6, 40)
    out = torch.empty_like(x)
    assert layers(x, out=[out])[0] is out
    assert torch.equal(copy.deepcopy(layers)(x)[0], out) and torch.equal(pickle.loads(pickle.dumps(layers))(x)[0], out)


@pytest.mark.parametrize("shape", [(3, 40, 4, 2, 19, 32), (4, 96, 4, 1, 16, 16), (1, 17, 2, 1, 6, 5)], ids=str)
def test_a_packed_stem_is_the_plain_stem_in_float64(kernels, shape):
    inputs, width, patch, n, h, w = shape
    stem = Stem(ConvNeXtConfig(in_channels=inputs, patch=patch, widths=(width, 48, 64, 80), depths=(1, 1, 1, 1)))
    for p in stem.parameters():
        nn.init.normal_(p)
    layer = cpu.PackedPatch(stem.layers[0].weight, stem.layers[0].bias, after=(stem.norm.weight, stem.norm.bias))
    x = torch.randn(n, inputs, h, w)
    with torch.no_grad():
        exact = stem.double()(x.double()).permute(0, 2, 3, 1)
    assert error(run(layer, x.permute(0, 2, 3, 1)), exact) < 5e-6  # planes, seen as channels last: never copied
    assert error(run(layer, x.permute(0, 2, 3, 1).contiguous()), exact) < 5e-6


@pytest.mark.parametrize("size", [(2, 64, 64), (1, 37, 51), (3, 9, 70), (1, 5, 4), (1, 1, 1)], ids=str)
@pytest.mark.parametrize(
    "config",
    [
        ConvNeXtConfig(widths=(40, 80), depths=(1, 1), stem="overlap"),
        ConvNeXtConfig(widths=(40, 80), depths=(1, 1), stem="overlap", patch=8, in_channels=1),
        ConvNeXtConfig(widths=(17, 80), depths=(1, 1), stem="overlap", patch=2, in_channels=13),
        ConvNeXtConfig(widths=(24, 80), depths=(1, 1), stem="pair", stem_width=16, stem_activation=True),
        ConvNeXtConfig(widths=(24, 80), depths=(1, 1), stem="pair", stem_norm=False),
    ],
    ids=lambda config: f"{config.stem}{config.patch}",
)
def test_a_packed_stem_that_overlaps_is_the_plain_one_in_float64(kernels, config, size):
    torch.manual_seed(0)
    stem, x = Stem(config), torch.randint(0, 256, (size[0], config.in_channels, *size[1:])).float()
    for p in stem.parameters():
        nn.init.normal_(p, std=0.3)
    shift = torch.linspace(100, 130, config.in_channels)[:, None, None]
    part = FoldedStem(copy.deepcopy(stem.layers), copy.deepcopy(stem.norm), shift)
    with torch.no_grad():
        exact = stem.double()(x.double() - shift.double()).permute(0, 2, 3, 1)
        plain = part(x).permute(0, 2, 3, 1)
    bound = max(5e-6, 4 * error(plain, exact))  # of one position a norm may divide by next to nothing
    for threads in (1, 2):
        with on(threads):
            assert error(run(part.packed(), x.permute(0, 2, 3, 1)), exact) < bound
            assert error(run(part.packed(), x.permute(0, 2, 3, 1).contiguous()), exact) < bound


@pytest.mark.parametrize(
    "shape", [(40, 80, 2, 14, 14), (17, 5, 1, 7, 5), (96, 192, 1, 1, 9), (8, 24, 1, 1, 1)], ids=str
)
def test_a_packed_downsampling_layer_is_the_plain_one_in_float64(kernels, shape, monkeypatch):
    before, width, n, h, w = shape
    torch.manual_seed(0)
    layer, x = Downsample(before, width), grown(before, h, w, n)
    nn.init.ones_(layer.norm.weight)
    y = run(cpu.PackedPatch(layer.conv.weight, layer.conv.bias, normalise=True), x.permute(0, 2, 3, 1))
    with torch.no_grad():
        exact = layer.double()(x.double()).permute(0, 2, 3, 1)
    assert y.shape == exact.shape and error(y, exact) < 5e-6
    if build.built().library.cn_bf16():  # the matrix and the normed pixels are rounded, 0.2 % at most
        monkeypatch.setattr(cpu.packed, "bf16_matmuls", lambda: True)
        low = cpu.PackedPatch(layer.conv.weight.bfloat16(), layer.conv.bias, normalise=True)
        assert low.kind is structs.Kind.PATCH_BF16 and not low.exact
        assert 1e-6 < error(run(low, x.permute(0, 2, 3, 1)), exact) < 0.01


@pytest.mark.parametrize("shape", [(40, 7, 9, 3, 5), (320, 1000, 1, 7, 7), (17, 3, 200, 1, 1)], ids=str)
def test_a_packed_head_is_the_plain_one_in_float64(kernels, shape):
    width, classes, n, h, w = shape
    torch.manual_seed(0)
    linear, x = nn.Linear(width, classes), grown(width, h, w, n)
    layer = cpu.PackedHead(linear.weight, linear.bias)
    with torch.no_grad():
        pooled = x.double().mean((2, 3))
        exact = linear.double()(nn.functional.layer_norm(pooled, (width,), eps=1e-6))
    for threads in (1, 2):
        with on(threads):
            y = run(layer, x.permute(0, 2, 3, 1))
        assert y.shape == (n, 1, 1, classes) and error(y.flatten(1), exact) < 5e-6


def test_layers_in_one_call_give_the_bits_of_layers_alone(kernels):
    """Whichever maps are wanted, from planes or from channels-last memory."""
    torch.manual_seed(0)
    blocks = [packed(random_block(width)) for width in (24, 24, 40)]
    stem = cpu.PackedPatch(torch.randn(24, 3, 4, 4), torch.randn(24), after=(torch.ones(24), torch.zeros(24)))
    downsample = cpu.PackedPatch(torch.randn(40, 24, 2, 2), torch.randn(40), normalise=True)
    layers = [stem, blocks[0], blocks[1], downsample, blocks[2], cpu.PackedHead(torch.randn(5, 40), torch.randn(5))]
    together, x = cpu.PackedLayers(layers), torch.randn(2, 3, 20, 28)
    for given in (x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1).contiguous()):
        alone = [given]
        for layer in layers:
            alone.append(run(layer, alone[-1]))
        for wanted in ((), (0,), (2, 4), range(6), (5,)):
            maps = together(given, wanted)
            assert len(maps) == max(len(wanted), 1)
            assert all(torch.equal(y, alone[i + 1]) for i, y in zip(wanted or (5,), maps, strict=True))


def test_gelu_and_its_derivative_are_within_a_millionth(kernels):
    library = build.built().library
    assert library
    x = torch.cat([torch.linspace(-9, 9, 200_001), torch.tensor([-1e4, -100.0, 100.0, 1e4, 0.0])])
    value, derivative = torch.empty_like(x), torch.empty_like(x)
    library.cn_gelu(pointer(x), pointer(value), pointer(derivative), ctypes.c_long(len(x)))
    exact = x.double().requires_grad_()
    nn.functional.gelu(exact).sum().backward()
    gelu = nn.functional.gelu(exact.detach())
    assert float(((value - gelu).abs() / gelu.abs().clamp_min(1)).max()) < 1e-6
    assert float((derivative - exact.grad).abs().max()) < 3e-6


def test_a_value_that_is_not_a_number_is_not_hidden(kernels):
    x = torch.randn(1, 9, 9, 40)
    x[0, 4, 4, 7] = torch.nan
    assert run(packed(random_block(40)), x).isnan().any()


@pytest.mark.parametrize("gamma", [1.0, None], ids=["scaled", "unscaled"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_gradient_of_a_fused_block_is_the_plain_one_in_float64(kernels, shape, gamma):
    width, n, h, w, kernel = shape
    block, x = random_block(width, kernel, gamma), grown(width, h, w, n).requires_grad_()
    plain, exact_x = copy.deepcopy(block).double(), x.detach().double().requires_grad_()
    exact, gradient = plain(exact_x), torch.randn(x.shape)
    exact.backward(gradient.double())
    assert fuse(block) == 1 and fits(block, x)
    for threads in (1, 2):
        block.zero_grad()
        x.grad = None
        with on(threads):
            y = block(x)
            y.backward(gradient)
        assert error(y, exact) < 5e-6 and error(x.grad, exact_x.grad) < 1e-5
        for (name, p), q in zip(block.named_parameters(), plain.parameters(), strict=True):
            assert error(p.grad, q.grad) < 5e-5, name


def test_drop_path_drops_the_images_that_it_drops_in_the_plain_block(kernels):
    block, x = random_block(40, drop_path=0.5), grown(40, 6, 6, 16)
    plain = copy.deepcopy(block)
    fuse(block)
    gradients = []
    for model in (block, plain):
        torch.manual_seed(3)
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        gradients.append([torch.rand(1)])  # the generator stands where it would
    assert torch.equal(gradients[1][0], gradients[3][0])
    assert all(error(a, b) < 1e-4 for a, b in zip(gradients[0], gradients[2], strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_step_twice_gives_the_same_bits(kernels, threads):
    block, x = random_block(96), grown(96, 28, 28, 3)
    fuse(block)
    runs = []
    for _ in range(2):
        block.zero_grad()
        with on(threads):
            y = block(x)
            y.square().sum().backward()
        runs.append([y, *(p.grad.clone() for p in block.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_fused_network_has_the_same_state_and_the_same_logits(kernels):
    torch.manual_seed(0)
    config = ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(24, 48, 64, 80), classes=7, layer_scale=1.0)
    model, x = ConvNeXt(config).eval(), torch.randn(2, 3, 48, 40)
    names, exact = list(model.state_dict()), copy.deepcopy(model).double()(x.double())
    assert fuse(model) == 5 and fuse(model) == 0
    assert list(model.state_dict()) == names and error(model(x), exact) < 1e-5
    assert unfuse(model) == 5 and not any(on_kernels(module) for module in model.modules())


def test_frozen_weights_get_no_gradient_and_the_others_do(kernels):
    block = random_block(24)
    block.spatial.requires_grad_(False)
    fuse(block)
    block(grown(24, 5, 5, 1)).sum().backward()
    assert block.spatial.weight.grad is None and block.expand.weight.grad is not None


@pytest.mark.parametrize("gamma", [1.0, None], ids=["scaled", "unscaled"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
def test_under_autocast_to_bfloat16_a_block_answers_in_its_dtype_and_closer(kernels, given, gamma):
    block, x = random_block(40, gamma=gamma), grown(40, 9, 7, 2).to(given)
    plain, gradient = copy.deepcopy(block), torch.randn(x.shape)
    fuse(block)
    found = []
    for model in (block, plain, copy.deepcopy(plain).double()):
        own, double = x.clone().requires_grad_(), next(model.parameters()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16, enabled=not double):
            y = model(own.double() if double else own)
        y.float().backward(gradient)
        found.append((y, own.grad, model.expand.weight.grad))
    fused, low, exact = found
    assert fused[0].dtype == low[0].dtype and fused[1].dtype == given
    for own, autocast, true in zip(fused, low, exact, strict=True):
        assert (own.double() - true).norm() <= (autocast.double() - true).norm()


def test_where_the_kernels_do_not_fit_the_block_is_the_plain_one(kernels):
    block, x = random_block(24), grown(24, 5, 5, 2)
    exact = block(x)
    fuse(block)
    assert fits(block, x)
    assert not fits(block, x.double()) and not fits(block, x.to("meta"))
    with torch.autocast("cpu", torch.float16):
        assert not fits(block, x) and block(x).isfinite().all()
    assert torch.allclose(torch.func.vmap(lambda one: block(one[None])[0])(x), exact, atol=1e-5)
    program = torch.export.export(block.eval(), (x,))
    assert torch.allclose(program.module()(x), exact, atol=1e-5)
    handle = block.expand.register_forward_hook(lambda *_: None)
    assert not fits(block, x) and torch.equal(block(x), exact)
    handle.remove()
    assert fits(block, x)


def test_a_flat_map_is_normed_with_epsilon_and_stays_finite(kernels):
    layer = cpu.PackedPatch(torch.ones(8, 16, 2, 2), torch.ones(8), normalise=True)
    assert torch.equal(run(layer, torch.full((1, 4, 4, 16), 3.0)), torch.ones(1, 2, 2, 8))
    after = cpu.PackedPatch(torch.ones(8, 3, 4, 4), torch.ones(8), after=(torch.ones(8), torch.zeros(8)))
    assert torch.equal(run(after, torch.zeros(1, 8, 8, 3)), torch.zeros(1, 2, 2, 8))


def test_a_wrong_map_is_refused_in_one_line(kernels):
    layer = packed(random_block(24))
    for x in (torch.zeros(1, 4, 4, 23), torch.zeros(1, 4, 4, 24, dtype=torch.float64), torch.zeros(4, 4, 24)):
        with pytest.raises(ConvNeXtError, match=r"give \(N, H, W, 24\) float32 on the CPU"):
            run(layer, x)


def test_a_switch_of_the_environment_turns_the_kernels_off(monkeypatch):
    monkeypatch.setenv("CONVNEXT_KERNELS", "plain")
    assert without_compiled() == "CONVNEXT_KERNELS=plain turns them off"
    block, x = random_block(24), grown(24, 5, 5, 1)
    exact = block(x)
    assert fuse(block) == 0 and torch.equal(block(x), exact)
    with pytest.raises(ConvNeXtError, match="Use the plain path"):
        packed(block)


def test_the_environment_is_asked_when_a_network_is_fused_and_not_at_every_call(kernels, monkeypatch):
    block, x = random_block(24), grown(24, 5, 5, 1)
    fuse(block)
    wanted = block(x)
    monkeypatch.setenv("CONVNEXT_KERNELS", "plain")
    assert torch.equal(block(x), wanted) and dispatch.fits_compiled(block, x, block.kernels.allowed)


def test_structures_of_another_size_than_the_librarys_are_a_reason_and_plain_torch_runs(kernels, monkeypatch):
    class Head(ctypes.Structure):
        _fields_ = (*structs.Head._fields_, ("more", ctypes.c_long))

    assert structs.mismatch(build.built().library) is None
    monkeypatch.setattr(structs, "STRUCTURES", (structs.Block, Head))
    found = build.compiled.__wrapped__()
    assert found.library is None and "\n" not in found.reason
    assert "take a Head of 40 bytes" in found.reason and "gives one of 48" in found.reason
    monkeypatch.setattr(dispatch, "compiled", lambda: found)
    block, x = random_block(24), grown(24, 5, 5, 1)
    exact = block(x)
    assert fuse(block) == 0 and torch.equal(block(x), exact) and without_compiled() == found.reason


def test_the_kernels_bring_no_openmp_of_their_own(kernels):
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list what a process has loaded")
    code = (
        "from convnext.kernels.dispatch import without_compiled\nassert without_compiled() is None\n"
        "lines = open('/proc/self/maps').read().splitlines()\n"
        "print(len({line.split()[-1] for line in lines if 'libgomp' in line}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1


def test_without_a_compiler_there_is_a_reason(tiny_source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler is installed" in str(build.built.__wrapped__().reason)


def test_what_does_not_compile_is_a_reason_with_the_compilers_words(tiny_source):
    (tiny_source / compiler.UNIT).write_text("this is not a program\n", "utf-8")
    found = build.built.__wrapped__()
    assert found.library is None and "could not compile the kernels" in found.reason and "error" in found.reason


def test_a_library_is_built_once_and_a_damaged_one_again(tiny_source):
    first = build.built.__wrapped__()
    (path,) = build.cache_folder().glob("kernels-*.so")
    made = path.stat().st_mtime_ns
    assert first.library.cn_answer() == 42 and build.built.__wrapped__().reason is None
    assert path.stat().st_mtime_ns == made
    whole = path.read_bytes()
    path.unlink()  # the loaded one keeps its own bytes
    path.write_bytes(whole[: len(whole) // 2])
    assert build.built.__wrapped__().library.cn_answer() == 42
    assert all(other.stem.endswith(compiler.content_hash(other)) for other in build.cache_folder().glob("kernels-*.so"))


def test_the_cache_keeps_the_newest_libraries(tiny_source):
    for answer in range(build.KEPT + 2):
        (tiny_source / compiler.UNIT).write_text(ANSWER.format(answer), "utf-8")
        assert build.built.__wrapped__().library.cn_answer() == answer
    kept = list(build.cache_folder().glob("kernels-*.so"))
    assert len(kept) == build.KEPT and build.cached(build.cache_folder(), kept[0].name.split("-")[1])


def test_a_cache_that_cannot_be_written_to_costs_only_the_cache(tiny_source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.built.__wrapped__().library.cn_answer() == 42


def test_two_processes_build_at_once(tiny_source, tmp_path):
    code = (
        "import sys, pathlib; from convnext.kernels import build, compiler; compiler.SOURCES = pathlib.Path(sys.argv[1]); "
        "sys.exit(build.built().library.cn_answer() != 42)"
    )
    command = [sys.executable, "-c", code, str(tiny_source)]
    running = [subprocess.Popen(command, env=os.environ.copy()) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert [path.suffix for path in build.cache_folder().iterdir()] == [".so"]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")
def test_a_build_that_was_killed_leaves_no_compiler_and_the_next_start_removes_its_files(
    tiny_source, tmp_path, monkeypatch
):
    slow, mark = tmp_path / "slow", tmp_path / "started"
    slow.write_text(f"#!/bin/sh\ntouch {mark}\nsleep 1000\n")
    slow.chmod(0o755)
    code = (
        "import sys, pathlib; from convnext.kernels import build, compiler; "
        "compiler.SOURCES = pathlib.Path(sys.argv[1]); build.built()"
    )
    with started(code, tiny_source, env=environment(CXX=str(slow))) as process:
        assert awaited(mark.exists)
        children = children_of(process.pid)
        process.kill()
        assert children and gone(children)
    (left,) = build.cache_folder().iterdir()
    assert left.name.endswith(".tmp")
    assert build.built.__wrapped__().library.cn_answer() == 42
    assert [path.suffix for path in build.cache_folder().iterdir()] == [".so"]
