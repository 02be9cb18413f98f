"""The contract of the fused block: the plain reference is the network's own block, and folding changes nothing."""

import pytest
import torch
from torch import nn

from convnext.kernels.block import BlockWeights, fold_affine, folded, plain, schema
from convnext.models.convnext import Block
from convnext.models.fused import weights_of

KINDS = {"v1": (0.7, False), "unscaled": (None, False), "v2": (None, True), "both": (0.7, True)}


def block_of(kind: str, dtype: torch.dtype = torch.float64) -> Block:
    """One whose every parameter matters."""
    torch.manual_seed(0)
    layer_scale, grn = KINDS[kind]
    made = Block(12, kernel=5, layer_scale=layer_scale, grn=grn, drop_path=0.0).to(dtype)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_block_of_the_network(kind):
    made, x = block_of(kind), torch.randn(2, 12, 6, 5, dtype=torch.float64)
    assert torch.allclose(plain(x, weights_of(made)), made(x), rtol=1e-12, atol=1e-12)


def test_the_reference_of_a_v1_block_has_its_bits_in_float32():
    made, x = block_of("v1", torch.float32), torch.randn(2, 12, 6, 5)
    assert torch.equal(plain(x, weights_of(made)), made(x))


def test_a_dropped_image_passes_and_a_kept_one_is_scaled():
    made, x = block_of("v1"), torch.randn(2, 12, 6, 5, dtype=torch.float64)
    y = plain(x, weights_of(made), torch.tensor([0.0, 2.0]))
    assert torch.equal(y[0], x[0]) and torch.allclose(y[1] - x[1], 2 * (made(x) - x)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_folding_changes_no_answer_and_leaves_no_affine_part(kind):
    made, x = block_of(kind), torch.randn(2, 12, 6, 5, dtype=torch.float64)
    weights = folded(weights_of(made))
    assert weights.norm is weights.norm_bias is weights.gamma is weights.grn_bias is None
    assert torch.allclose(plain(x, weights), made(x), rtol=1e-12, atol=1e-12)


def test_folding_rounds_once_to_the_dtype_of_the_weights():
    made = block_of("both", torch.float32)
    low, wide = folded(weights_of(made)), folded(weights_of(made).map(torch.Tensor.double))
    for name in ("expand", "expand_bias", "project", "project_bias"):
        assert getattr(low, name).dtype == torch.float32
        assert torch.equal(getattr(low, name), getattr(wide, name).float())


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Conv2d(6, 4, 3)], ids=str)
def test_an_affine_part_in_front_of_a_layer_goes_into_it(layer):
    layer = layer.double()
    scale, shift = torch.rand(2, 6, dtype=torch.float64)
    conv = isinstance(layer, nn.Conv2d)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64) if conv else torch.randn(3, 6, dtype=torch.float64)
    over = (slice(None), None, None) if conv else slice(None)
    wanted = layer(scale[over] * x + shift[over])
    layer.weight.data, bias = (
        each.detach() for each in fold_affine(layer.weight, layer.bias, scale, shift, torch.float64)
    )
    layer.bias = nn.Parameter(bias)
    assert torch.allclose(layer(x), wanted, rtol=1e-12, atol=1e-12)


def test_an_operators_schema_names_every_field_of_the_weights_in_order():
    spelled = schema(BlockWeights, "Tensor x", "Tensor? keep", "Tensor")
    made = torch._C.parse_schema(f"convnext::block{spelled}")
    assert [each.name for each in made.arguments] == ["x", *BlockWeights._fields, "keep"]
    optional = {each.name for each in made.arguments if isinstance(each.type, torch._C.OptionalType)}
    assert optional == {"spatial_bias", "norm", "norm_bias", "gamma", "grn", "grn_bias", "keep"}
