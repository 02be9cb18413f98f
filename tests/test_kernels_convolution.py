"""3x3 convolutions on the compiled kernels: torch in float64 is the oracle, and what they may not change stays as it is."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.errors import ConvNeXtError
from convnext.kernels import cpu
from convnext.kernels.dispatch import without_compiled
from convnext.tasks.convolution import Convolution, accelerate, convolution, convolved
from convnext.tasks.detection.types import Images
from convnext.tasks.segmentation.parts import ConvNorm
from detectors import small_detector

SHAPES = [  # N, I, O, H, W: FPN's and the mask head's channels, more than are taken at once, odd ones, odd maps, one line
    (1, 256, 256, 20, 31),
    (3, 256, 256, 14, 14),
    (1, 300, 530, 9, 12),
    (2, 17, 33, 5, 7),
    (1, 3, 1, 4, 4),
    (2, 8, 8, 1, 9),
]


@pytest.fixture(autouse=True)
def kernels() -> None:
    if reason := without_compiled():
        pytest.skip(f"the compiled kernels are not here: {reason}")


def parts(n: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(inputs)
    weight = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
    return torch.randn(n, inputs, height, width).relu(), weight, torch.randn(outputs)


def error(found: Tensor, exact: Tensor) -> float:
    """Of the largest value."""
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_a_convolution_is_off_by_a_few_millionths_of_its_largest_value(shape, relu):
    x, weight, bias = parts(*shape)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    exact = exact.relu() if relu else exact
    found = cpu.PackedConvolution(weight, bias, relu=relu)(x)
    assert found.shape == exact.shape and error(found, exact) < 4e-6
    torchs = F.conv2d(x, weight, bias, padding=1)
    assert error(found, exact) < 20 * error(torchs.relu() if relu else torchs, exact) + 1e-7


def test_an_answer_depends_on_neither_threads_nor_the_other_images():
    x, weight, bias = parts(5, 40, 24, 14, 14)
    packed = cpu.PackedConvolution(weight, bias, relu=True)
    alone = torch.cat([packed(each[None]) for each in x])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    together = packed(x.contiguous(memory_format=torch.channels_last))
    torch.set_num_threads(before)
    assert torch.equal(together, alone)


def test_what_is_no_number_stays_none_and_no_map_is_no_answer():
    x, weight, bias = parts(1, 4, 4, 6, 6)
    x[0, 0, 1, 1] = torch.nan
    packed = cpu.PackedConvolution(weight, bias, relu=True)
    assert packed(x)[0, :, 1, 1].isnan().all()
    assert packed(x[:0]).shape == (0, 4, 6, 6)
    with pytest.raises(ConvNeXtError, match=r"give \(N, 4, H, W\) float32"):
        packed(x[:, :3])


def test_tiles_are_taken_where_they_multiply_less():
    taken = {side: cpu.fewer_multiplications(side, side) for side in (1, 2, 3, 7, 14)}
    assert taken == {1: False, 2: False, 3: True, 7: True, 14: True}  # 36 a tile of 4 x 4 against 9 a position
    assert not cpu.fewer_multiplications(1, 400)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_a_unit_answers_as_in_plain_torch_and_anew_when_its_weights_change(norm):
    for unit in (convolution(24, 32, norm), ConvNorm(24, 32, 3, norm)):
        torch.manual_seed(0)
        for tensor in (*unit.parameters(), *unit.buffers()):
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.1, 1)
        unit.eval()
        x = torch.randn(2, 24, 13, 10)
        plain = copy.deepcopy(unit).double()
        assert accelerate(unit) == 1
        with torch.inference_mode():
            assert error(unit(x), plain(x.double())) < 4e-6
        with torch.no_grad():
            for module in (unit.conv, plain.conv):
                module.weight.mul_(-0.5)
        with torch.inference_mode():
            assert error(unit(x), plain(x.double())) < 4e-6


def test_training_autocast_and_copies_do_not_see_it():
    torch.manual_seed(0)
    unit = convolution(16, 16, "batch").eval()
    x = torch.randn(1, 16, 8, 8)
    plain = copy.deepcopy(unit)
    accelerate(unit)
    assert torch.equal(unit(x), plain(x)) and unit.state_dict().keys() == plain.state_dict().keys()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(unit(x), plain(x))
    with torch.inference_mode():
        assert not torch.equal(unit(x), plain(x)) and unit[0]._packed is not None
    assert copy.deepcopy(unit)[0]._packed is None


def test_whoever_hooked_into_a_unit_is_called():
    unit, called = convolution(8, 8).eval(), []
    accelerate(unit)
    unit.conv.register_forward_hook(lambda *given: called.append(given[-1].min().item()))
    with torch.inference_mode():
        unit(torch.randn(1, 8, 8, 8))
    assert called and called[0] < 0  # before ReLU


def test_a_convolution_of_very_many_channels_stays_with_torch():
    with torch.device("meta"):
        narrow, wide = (
            Convolution(2048, 512),
            Convolution(2816, 512),
        )  # UperNet's, behind all levels and behind the pools
    assert narrow.in_channels * narrow.out_channels <= 2**20 < wide.in_channels * wide.out_channels


def test_a_detector_sees_the_same_with_its_convolutions_on_the_kernels():
    model = small_detector("cascade").eval()
    images = Images.of([torch.randn(3, 96, 128), torch.randn(3, 64, 64)])

    def seen() -> list[Tensor]:
        levels, scores, deltas = model.look(images.x)
        return [*levels, *scores, *deltas, model.heads.mask[0](torch.ones(3, 16, 14, 14))]

    with torch.inference_mode():
        plain = seen()
        assert accelerate(model) == 4 + 1 + 3 * (4 + 4)  # FPN, proposals, and of each stage of the cascade box and mask
        fast = seen()
    assert all(error(a, b.double()) < 2e-5 for a, b in zip(fast, plain, strict=True))


def test_a_relu_alone_is_taken_into_the_pass():
    conv, x = Convolution(8, 8).eval(), torch.randn(1, 8, 9, 9)
    accelerate(conv)
    with torch.inference_mode():
        torch.testing.assert_close(convolved(x, conv, None, nn.ReLU()), F.relu(nn.Conv2d.forward(conv, x)))


@pytest.mark.skipif(without_compiled() is not None, reason="the compiled kernels are not here")
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_what_a_fused_optimizer_changed_is_packed_anew(norm):
    torch.manual_seed(0)
    unit = convolution(8, 8, norm).eval()
    x = torch.randn(2, 8, 16, 20).to(memory_format=torch.channels_last)
    assert accelerate(unit) == 1
    with torch.no_grad():
        before = unit(x)
    optimizer = torch.optim.AdamW(unit.parameters(), lr=0.1, fused=True)  # counts no change of a weight
    unit.train()(x).sum().backward()  # and a batch norm none of its statistics
    optimizer.step()
    unit.eval()
    plain = copy.deepcopy(unit)
    for each in plain.modules():
        if isinstance(each, Convolution):
            each.allowed = None
    with torch.no_grad():
        assert torch.allclose(unit(x), plain(x), atol=1e-4) and not torch.allclose(unit(x), before, atol=1e-2)
