"""Global filter networks: published sizes, the filter against a slow convolution, and images of other sizes."""

import math

import pytest
import torch

from convnext.config import GFNetConfig, parse
from convnext.engine.depths import layer_ids
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.gfnet import GFNet, GlobalFilter
from convnext.recipes.sizes import SIZES

# Parameters in millions and FLOPs in 1e9 as the authors' repository prints them (arXiv 2107.00645, table 2).
PUBLISHED = {
    "gfnet_tiny": (7, 1.3),
    "gfnet_xsmall": (16, 2.8),
    "gfnet_small": (25, 4.5),
    "gfnet_base": (43, 7.9),
    "gfnet_h_tiny": (15, 2.0),
    "gfnet_h_small": (32, 4.5),
    "gfnet_h_base": (54, 8.4),
}
DIFFERENT = {  # what is counted here where it does not round to the print: same depths and widths, so our reading
    ("gfnet_tiny", "params"): 7.51,
    ("gfnet_h_small", "macs"): 4.58,
    ("gfnet_h_base", "macs"): 8.51,
}


def small(**fields):
    return GFNetConfig(**{"depths": (2, 1), "widths": (8, 16), "patch": 4, "size_px": 32, "classes": 3, **fields})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_its_published_parameters_and_flops(name):
    parameters, macs, _ = SIZES[name]  # counted in test_baselines
    for kind, counted, printed, digits in (
        ("params", parameters / 1e6, PUBLISHED[name][0], 0),
        ("macs", macs / 1e9, PUBLISHED[name][1], 1),
    ):
        if (name, kind) in DIFFERENT:
            assert round(counted, 2) == DIFFERENT[name, kind] and round(counted, digits) != printed
        else:
            assert round(counted, digits) == printed


@pytest.mark.parametrize("rows", [4, 5])
def test_the_filter_is_a_circular_convolution_with_a_kernel_as_large_as_the_map(rows):
    torch.manual_seed(rows)
    module = GlobalFilter(2, rows).double()
    x = torch.randn(1, rows, rows, 2, dtype=torch.double).float()
    kernel = torch.fft.irfft2(torch.view_as_complex(module.weight.data), s=(rows, rows), dim=(0, 1))
    slow = torch.zeros(1, rows, rows, 2)
    for i in range(rows):
        for j in range(rows):
            for di in range(rows):
                for dj in range(rows):
                    slow[:, i, j] += x[:, (i - di) % rows, (j - dj) % rows] * kernel[di, dj]
    assert torch.allclose(module(x), slow, atol=1e-6)


def test_the_filter_moves_with_the_image():
    module = GlobalFilter(3, 6)
    x = torch.randn(2, 6, 6, 3)
    assert torch.allclose(module(x.roll((1, 2), (1, 2))), module(x).roll((1, 2), (1, 2)), atol=1e-6)


@pytest.mark.parametrize(("rows", "size"), [(4, (6, 6)), (4, (7, 5)), (5, (8, 9)), (6, (6, 10))])
def test_on_a_larger_map_the_kernel_is_laid_on_zeros_and_acts_as_before(rows, size):
    torch.manual_seed(0)
    module = GlobalFilter(1, rows)
    kernel = torch.fft.irfft2(torch.view_as_complex(module.weight.data), s=(rows, rows), dim=(0, 1))[..., 0]
    x = torch.zeros(1, *size, 1)
    x[0, 0, 0, 0] = 1.0  # the answer to one lit place is the kernel
    answer = module(x)[0, ..., 0].detach()
    before, after = rows // 2, rows - rows // 2  # how far it reaches against and along each axis
    for i in range(-before, after):
        for j in range(-before, after):
            assert answer[i % size[0], j % size[1]] == pytest.approx(kernel[i % rows, j % rows].item(), abs=1e-6)
    assert answer.abs().gt(1e-6).sum() <= rows * rows


def test_on_a_smaller_map_the_kernel_is_cut_to_its_middle():
    module = GlobalFilter(1, 8)
    kernel = torch.fft.irfft2(torch.view_as_complex(module.weight.data), s=(8, 8), dim=(0, 1))[..., 0]
    x = torch.zeros(1, 4, 4, 1)
    x[0, 0, 0, 0] = 1.0
    answer = module(x)[0, ..., 0].detach()
    assert all(answer[i, j] == pytest.approx(kernel[i, j].item(), abs=1e-6) for i in (-2, -1, 0, 1) for j in (-2, 0, 1))


def test_every_parameter_learns_and_a_seed_gives_the_same_network():
    torch.manual_seed(1)
    model = build_model(small(layer_scale=0.1))
    torch.manual_seed(1)
    again = build_model(small(layer_scale=0.1))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (24, 40), (64, 32)])
def test_images_of_other_sizes_are_taken(size):
    model = build_model(small()).eval()
    assert model(torch.randn(2, 3, *size)).shape == (2, 3)
    assert model.embed(torch.randn(2, 3, *size)).shape == (2, 16)


def test_the_channels_last_memory_format_changes_nothing():
    model, x = build_model(small()).eval(), torch.randn(2, 3, 32, 32)
    plain = model(x)
    moved = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, moved, atol=1e-5)


def test_half_precision_keeps_its_type_around_the_transform():
    module = GlobalFilter(4, 6)
    assert module(torch.randn(1, 6, 6, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert build_model(small())(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_its_names_have_the_depths_that_layer_wise_decay_needs():
    names = [name for name, _ in build_model(small(depths=(1, 1, 4, 1), widths=(4, 4, 4, 4))).named_parameters()]
    ids = layer_ids(names)
    assert ids["stem.position"] == 0 and ids["head.weight"] == max(ids.values())
    assert ids["stages.2.blocks.0.spatial.weight"] < ids["stages.2.blocks.3.spatial.weight"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": (8,)}, "must name one or more stages, as many each"),
        ({"size_px": 4}, "size_px = 4 leaves the last stage no position: take 8 or more"),
        ({"kernel": 7}, "no field is called 'kernel'"),
    ],
)
def test_a_wrong_field_is_one_line_with_the_fix(fields, message):
    with pytest.raises(ConvNeXtError) as error:
        parse(GFNetConfig, {"depths": (2, 1), "widths": (8, 16), "patch": 4, **fields}, where="model 'x'")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_without_classes_it_gives_features_and_drops_paths_only_in_training():
    model = GFNet(small(classes=0, drop_path=0.9))
    x = torch.randn(64, 3, 32, 32)  # so many that the same ones are hardly kept twice
    assert model(x).shape == (64, 16)
    assert not torch.equal(model(x), model(x)) and torch.equal(model.eval()(x), model(x))
    assert math.isclose(model.stages[1].blocks[0].drop_path.rate, 0.9, rel_tol=1e-6)
