"""UperNet: its published size, its parts against slow versions, and norms that work with any batch."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig, UperNetConfig
from convnext.errors import ConvNeXtError
from convnext.recipes.architectures import architecture
from convnext.tasks.convolution import norm_layer
from convnext.tasks.segmentation.parts import ConvNorm, resized
from convnext.tasks.segmentation.profile import PUBLISHED, cost, published_cost, rows
from convnext.tasks.segmentation.segmenter import Segmenter
from convnext.tasks.segmentation.upernet import PyramidPooling

TINY = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(8, 12, 16, 24), layer_scale=0.5, classes=0)
HEAD = UperNetConfig(classes=5, width=8, aux_width=4, norm="group")

# name: G printed, G by mmcv's rule, G of convolutions and linears, parameters (M) without and with auxiliary head
PAPER = {
    "upernet_tiny": (939, 938.92, 938.49, 59.32, 60.24),
    "upernet_small": (1027, 1027.31, 1026.85, 80.95, 81.88),
    "upernet_base": (1170, 1169.83, 1169.34, 120.88, 122.10),
    "upernet_base_640": (1828, 1827.85, 1827.09, 120.88, 122.10),
    "upernet_large": (2458, 2458.21, 2457.36, 233.19, 234.99),
    "upernet_xlarge": (3335, 3335.19, 3334.25, 388.74, 391.14),
}


def network(head: UperNetConfig = HEAD, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(TINY, head)


@pytest.mark.parametrize("name", PAPER)
def test_a_segmenter_has_the_published_flops_and_parameters(name):
    printed, by_rule, plain, _, with_aux = PAPER[name]
    found = published_cost(*PUBLISHED[name])
    assert found.published / 1e9 == pytest.approx(by_rule, abs=0.005) and round(found.published / 1e9) == printed
    assert found.macs / 1e9 == pytest.approx(plain, abs=0.005)
    assert found.params / 1e6 == pytest.approx(with_aux, abs=0.005)


def test_the_auxiliary_head_has_the_published_share_of_the_parameters_and_costs_nothing_in_prediction():
    without = cost(architecture("tiny"), UperNetConfig(aux_weight=0), (512, 2048))
    assert without.params / 1e6 == pytest.approx(PAPER["upernet_tiny"][3], abs=0.005)
    assert without.published == published_cost("tiny", 512).published


def test_the_list_of_segmenters_names_every_published_one_with_its_size():
    listed = {row["name"]: row for row in rows()}
    assert set(listed) == set(PAPER)
    assert round(listed["upernet_xlarge"]["params"] / 1e6, 2) == 391.14 and listed["upernet_tiny"]["width"] == 2048


@pytest.mark.parametrize("side", [(64, 96), (33, 47)])
def test_training_gives_both_heads_at_their_strides_and_evaluation_every_pixel(side):
    model = network()
    x = torch.randn(2, 3, *side)
    main, aux = model(x)
    assert main.shape == (2, 5, side[0] // 4, side[1] // 4)
    assert aux.shape[:2] == (2, 5) and aux.shape[-1] == side[1] // 16
    model.eval()
    assert model(x).shape == (2, 5, *side)


def test_every_parameter_gets_a_gradient():  # DDP would wait for one that does not
    model = network()
    main, aux = model(torch.randn(2, 3, 64, 64))
    (main.square().sum() + aux.square().sum()).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_without_weight_there_is_no_auxiliary_head():
    model = network(HEAD.model_copy(update={"aux_weight": 0.0}))
    assert model.auxiliary is None and model(torch.randn(1, 3, 64, 64)).aux is None


def test_an_auxiliary_head_on_a_stage_that_is_not_there_is_refused():
    two = ConvNeXtConfig(depths=(1, 1), widths=(8, 12), classes=0)
    with pytest.raises(ConvNeXtError, match=r"head\.aux_stage = 2 is none of the backbone's 2 stages"):
        Segmenter(two, HEAD)
    assert Segmenter(two, HEAD.model_copy(update={"aux_stage": 1})).auxiliary is not None


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """One pixel at a time: half-pixel centres, the border repeated."""
    old_h, old_w = x.shape[-2:]
    out = x.new_zeros(*x.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * old_h / height - 0.5, 0), old_h - 1)
            z = min(max((j + 0.5) * old_w / width - 0.5, 0), old_w - 1)
            top, left = math.floor(y), math.floor(z)
            down, right = min(top + 1, old_h - 1), min(left + 1, old_w - 1)
            a, b = y - top, z - left
            upper = x[..., top, left] * (1 - b) + x[..., top, right] * b
            lower = x[..., down, left] * (1 - b) + x[..., down, right] * b
            out[..., i, j] = upper * (1 - a) + lower * a
    return out


def pooled(x: Tensor, cells: int) -> Tensor:
    """Means over cells that share borders where the side is no multiple, as floor and ceiling say."""
    height, width = x.shape[-2:]
    out = x.new_zeros(*x.shape[:2], cells, cells)
    for i in range(cells):
        rows_ = slice(i * height // cells, math.ceil((i + 1) * height / cells))
        for j in range(cells):
            out[..., i, j] = x[..., rows_, j * width // cells : math.ceil((j + 1) * width / cells)].mean((2, 3))
    return out


def test_resizing_is_bilinear_with_half_pixel_centres():
    x = torch.randn(1, 2, 3, 5, dtype=torch.float64)
    assert torch.allclose(resized(x, (7, 9)), bilinear(x, 7, 9))


def test_a_gradient_from_a_concatenation_is_resized_as_a_map_of_its_own():
    x = torch.randn(2, 8, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    beside = torch.randn(2, 3, 8, 10).to(memory_format=torch.channels_last).requires_grad_()
    y, given = resized(x, (8, 10)), []
    y.grad_fn.register_prehook(lambda gradients: given.append(gradients[0]))
    weights = torch.randn(2, 11, 8, 10).to(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad((torch.cat([y, beside], 1) * weights).sum(), x)
    assert not weights[:, :8].is_contiguous(memory_format=torch.channels_last)
    assert given[0].is_contiguous(memory_format=torch.channels_last)
    plain = F.interpolate(x, size=(8, 10), mode="bilinear")
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, x, weights[:, :8].contiguous())[0])


def test_pyramid_pooling_is_what_a_loop_over_cells_and_pixels_gives():
    torch.manual_seed(1)
    pyramid = PyramidPooling(3, UperNetConfig(classes=2, width=4, norm="none")).double()
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    parts = [x]
    for cells, branch in zip((1, 2, 3, 6), pyramid.branches, strict=True):
        mixed = torch.einsum("oc,nchw->nohw", branch.conv.weight[:, :, 0, 0], pooled(x, cells))
        parts.append(bilinear(F.relu(mixed + branch.conv.bias[:, None, None]), 7, 5))
    fuse = pyramid.fuse.conv
    expected = F.relu(F.conv2d(torch.cat(parts, 1), fuse.weight, fuse.bias, padding=1))
    assert torch.allclose(pyramid(x), expected)


def test_the_decoder_adds_from_the_top_down_and_fuses_all_levels():
    model = network(HEAD.model_copy(update={"norm": "none", "dropout": 0.0})).double().eval()
    decoder = model.decoder
    torch.manual_seed(2)
    maps = [torch.randn(1, w, 16 >> s, 24 >> s, dtype=torch.float64) for s, w in enumerate(TINY.widths)]
    top = decoder.pyramid(maps[3])
    third = decoder.laterals[2](maps[2]) + bilinear(top, 4, 6)
    second = decoder.laterals[1](maps[1]) + bilinear(third, 8, 12)
    first = decoder.laterals[0](maps[0]) + bilinear(second, 16, 24)
    smooth = [unit(x) for unit, x in zip(decoder.smooths, (first, second, third), strict=True)]
    together = torch.cat([smooth[0], *(bilinear(x, 16, 24) for x in (*smooth[1:], top))], 1)
    assert torch.allclose(decoder(maps), decoder.classify(decoder.fuse(together)))


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("sync", nn.SyncBatchNorm), ("group", nn.GroupNorm)]
)
def test_the_norm_is_a_choice_and_only_without_one_convolutions_have_a_bias(norm, kind):
    unit = ConvNorm(3, 8, 3, norm)
    assert isinstance(unit.norm, kind) and unit.conv.bias is None
    assert ConvNorm(3, 8, 3, "none").conv.bias is not None


@pytest.mark.parametrize("width", [1, 6, 32, 48, 512])
def test_groups_divide_any_width(width):
    assert width % norm_layer("group", width).num_groups == 0


def test_with_group_norm_one_image_is_the_same_alone_and_in_a_batch():
    model = network().double().eval()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    assert torch.allclose(model(x)[1:2], model(x[1:2]))
    model.train()
    assert model(x[:1]).main.isfinite().all()  # the pool of one cell has one value a channel: no batch norm takes that


@pytest.mark.parametrize("name", ["timm:resnet18", "roadmap_t:patchify", "v2_atto"])
def test_other_backbones_with_stages_fit(name):
    model = Segmenter(architecture(name), HEAD).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5, 64, 64)
