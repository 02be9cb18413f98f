"""The int8 kernels: plain torch with the same integers is the oracle, and the float block bounds what int8 costs."""

import pytest
import torch
from torch import Tensor, nn

from convnext.kernels import cpu
from convnext.kernels.block import BlockWeights, folded, plain
from convnext.kernels.cpu.int8 import multiplied
from convnext.kernels.dispatch import without_compiled
from convnext.kernels.int8 import BlockRanges, int8_block, int8_patch, plain_block, plain_patch, sums, to_bytes
from convnext.models.convnext import Block
from convnext.models.fused import weights_of

SHAPES = [  # C, N, H, W, kernel: widths of T and atto, odd widths and maps, one pixel, other kernels
    (96, 2, 14, 14, 7),
    (40, 3, 9, 13, 7),
    (384, 1, 7, 7, 7),
    (17, 2, 5, 3, 7),
    (24, 1, 1, 1, 7),
    (33, 2, 8, 8, 9),
    (5, 1, 3, 3, 3),
]


@pytest.fixture(autouse=True)
def kernels() -> None:
    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")


def weights(width: int, kernel: int = 7, *, grn: bool = False) -> BlockWeights:
    """Of a folded block whose every part matters."""
    torch.manual_seed(width)
    block = Block(width, kernel=kernel, layer_scale=None if grn else 1.0, grn=grn, drop_path=0.0)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    block.norm.weight.data.add_(1)
    return folded(weights_of(block)).map(Tensor.detach)


def ranges(w: BlockWeights, x: Tensor) -> BlockRanges:
    """Of the activations that x causes, each part written out here once more."""
    y = nn.functional.conv2d(x, w.spatial, w.spatial_bias, padding=w.spatial.shape[-1] // 2, groups=x.shape[1])
    y = nn.functional.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2], eps=w.eps)
    hidden = nn.functional.linear(y, w.expand, w.expand_bias)
    found = [torch.stack([each.min(), each.max()]) for each in (y, hidden)]
    if w.grn is None:
        return BlockRanges(*found)
    g = nn.functional.gelu(hidden)
    energy = g.square().sum((1, 2), keepdim=True).sqrt()
    mixed = g * (1 + w.grn * energy / (energy.mean(-1, keepdim=True) + 1e-6))
    return BlockRanges(*found, torch.stack([mixed.min(), mixed.max()]))


def grown(width: int, h: int, w: int, n: int) -> Tensor:
    return torch.randn(n, width, h, w, generator=torch.Generator().manual_seed(h)).to(memory_format=torch.channels_last)


def on_kernels(layer: cpu.PackedInt8Block | cpu.PackedInt8Patch, x: Tensor, threads: int = 1) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    (y,) = cpu.PackedLayers([layer])(x.permute(0, 2, 3, 1))
    torch.set_num_threads(before)
    return y.permute(0, 3, 1, 2)


def relative(x: Tensor, exact: Tensor) -> float:
    """|x - exact| / |exact|."""
    return float((x.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize(
    "shape", [(1, 4, 1), (13, 40, 160), (14, 96, 33), (31, 17, 5), (56, 384, 96), (3, 1, 70)], ids=str
)
def test_the_sums_of_a_matmul_are_those_of_plain_integers_to_the_bit(shape):
    """Also where every product is the largest there is, which saturating instructions get wrong."""
    rows, inputs, outputs = shape
    torch.manual_seed(0)
    some = torch.randint(0, 256, (rows, inputs)), torch.randint(-127, 128, (outputs, inputs))
    for held, weight in (some, (torch.full_like(some[0], 255), torch.full_like(some[1], 127))):
        found = multiplied(held.to(torch.uint8), weight.to(torch.int8))
        assert torch.equal(found.long(), held @ weight.T)
        assert torch.equal(sums(held.to(torch.uint8), weight.to(torch.int8)).long(), held @ weight.T)


@pytest.mark.parametrize("grn", [False, True], ids=["V1", "V2"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_on_the_kernels_is_the_plain_int8_block(shape, grn):
    """A float between two bytes may round either way, a step of a byte here and there, which a matmul spreads."""
    width, n, h, w, kernel = shape
    x, float_weights = grown(width, h, w, n), weights(width, kernel, grn=grn)
    made = int8_block(float_weights, ranges(float_weights, x))
    wanted = plain_block(x, made)
    answers = [on_kernels(cpu.PackedInt8Block(made), x, threads) for threads in (1, 2)]
    step = (made.project.abs().amax(1) * made.project_scale).max()  # what one step of one hidden byte does at most
    for y in answers:
        assert (y - wanted).abs().max() <= 8 * step and relative(y - x, wanted - x) < 3e-3
    assert torch.equal(*answers)


@pytest.mark.parametrize("grn", [False, True], ids=["V1", "V2"])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_the_plain_int8_block_is_the_float_block_within_the_steps_of_its_bytes(shape, grn):
    width, n, h, w, kernel = shape
    x, float_weights = grown(width, h, w, n), weights(width, kernel, grn=grn)
    made, exact = int8_block(float_weights, ranges(float_weights, x)), plain(x, float_weights)
    assert relative(plain_block(x, made) - x, exact - x) < 0.03


def test_gelus_table_is_gelu_and_holds_zero_exactly():
    float_weights = weights(24)
    x = grown(24, 6, 6, 2)
    made = int8_block(float_weights, found := ranges(float_weights, x))
    least, most = max(float(found.hidden[0]), -3.5), float(found.hidden[1])
    values = torch.linspace(least, most, 256, dtype=torch.float64)
    exact = nn.functional.gelu(values)
    step = float(exact.max() - exact.min()) / 255
    zero = round(-float(exact.min()) / step)
    assert ((made.gelu.double() - zero) * step - exact).abs().max() <= 0.5 * step + 1e-9
    assert int(made.gelu[int((values.abs()).argmin())]) in (zero - 1, zero, zero + 1)


def test_an_activation_beyond_its_range_is_cut_off_and_never_wraps():
    float_weights = weights(24)
    x = grown(24, 6, 6, 2)
    narrow = BlockRanges(torch.tensor([-0.5, 0.5]), torch.tensor([-0.5, 0.5]))
    made = int8_block(float_weights, narrow)
    held = to_bytes(torch.tensor([-9.0, -0.5, 0.0, 0.5, 9.0]), *made.normed)
    assert held.tolist() == [0, 0, 128, 255, 255]
    assert relative(on_kernels(cpu.PackedInt8Block(made), x), plain_block(x, made)) < 1e-3


@pytest.mark.parametrize(
    ("inputs", "outputs", "h", "w"), [(96, 192, 8, 6), (40, 80, 5, 7), (17, 9, 1, 4), (5, 3, 1, 1)]
)
def test_a_downsampling_layer_on_the_kernels_is_the_plain_int8_layer_and_nearly_the_float_one(inputs, outputs, h, w):
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs, 2, 2) / inputs, torch.randn(outputs)
    x = grown(inputs, h, w, 3)
    normed = nn.functional.layer_norm(x.permute(0, 2, 3, 1), (inputs,), eps=1e-6)
    made = int8_patch(weight, bias, torch.stack([normed.min(), normed.max()]), 1e-6)
    wanted = plain_patch(x, made)
    answers = [on_kernels(cpu.PackedInt8Patch(made), x, threads) for threads in (1, 2)]
    step = (made.weight.flatten(1).abs().amax(1) * made.scale).max()
    assert torch.equal(*answers) and (answers[0] - wanted).abs().max() <= 2 * step
    whole = nn.functional.pad(normed.permute(0, 3, 1, 2), (0, w < 2, 0, h < 2), mode="replicate")
    assert relative(wanted, nn.functional.conv2d(whole, weight, bias, stride=2)) < 0.02
