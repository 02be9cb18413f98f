"""Parity: same weights, same input, same logits and gradients as timm, torchvision and transformers, in float64."""

import timm
import torch
import torchvision
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
)

from convnext.config import ConvNeXtConfig
from convnext.models.convnext import ConvNeXt
from convnext.models.formats import FORMATS, translate
from convnext.models.weights import from_ours
from convnext.recipes.architectures import ARCHITECTURES

ATTO = ARCHITECTURES["atto"].model_copy(update={"classes": 10})
V2_ATTO = ARCHITECTURES["v2_atto"].model_copy(update={"classes": 10})
TINY = ARCHITECTURES["tiny"].model_copy(update={"classes": 10})
SMALLEST = ConvNeXtConfig(depths=(1, 2, 2, 1), widths=(8, 12, 16, 24), classes=10)
SMALLEST_V2 = SMALLEST.model_copy(update={"layer_scale": None, "grn": True})


def shaken(config: ConvNeXtConfig) -> ConvNeXt:
    """A network whose every parameter counts: fresh ones hide their blocks behind gamma = 1e-6 and grn = 0."""
    model = ConvNeXt(config).double().eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        scale = parameter.shape[1:].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        center = 1.0 if name.endswith(("norm.weight", "gamma")) else 0.0
        parameter.data.copy_(center + scale * noise)
    return model


def assert_same(ours: ConvNeXt, theirs: nn.Module, format_name: str, size: tuple[int, int]) -> None:
    """Equal logits, and equal gradients of the input and of every parameter."""
    theirs = theirs.double().eval()
    theirs.load_state_dict(from_ours(ours.state_dict(), format_name, ours.config))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    logits, reference = ours(mine), theirs(other)
    reference = getattr(reference, "logits", reference)
    torch.testing.assert_close(logits, reference, rtol=1e-9, atol=1e-10)
    assert logits.std() > 0.1
    weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
    (logits * weights).sum().backward()
    (reference * weights).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-8, atol=1e-10)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    compared = 0
    for name, parameter in theirs.named_parameters():
        gradient = gradients[translate(name, FORMATS[format_name], to_ours=True)]
        torch.testing.assert_close(gradient, parameter.grad.reshape(gradient.shape), rtol=1e-8, atol=1e-9)
        compared += 1
    assert compared == len(gradients)


def test_v1_equals_timm_in_its_form_with_convolutions():
    assert_same(shaken(ATTO), timm.create_model("convnext_atto", num_classes=10), "timm_conv", (64, 64))


def test_v1_equals_timm_in_its_form_with_linears():
    theirs = timm.models.convnext.ConvNeXt(depths=(1, 2, 2, 1), dims=(8, 12, 16, 24), num_classes=10)
    assert_same(shaken(SMALLEST), theirs, "timm", (64, 32))


def test_v2_equals_timm():
    assert_same(shaken(V2_ATTO), timm.create_model("convnextv2_atto", num_classes=10), "timm_conv", (64, 96))


def test_v1_equals_timm_at_a_size_that_no_stride_divides():
    assert_same(shaken(ATTO), timm.create_model("convnext_atto", num_classes=10), "timm_conv", (97, 131))


def test_v1_equals_torchvision():
    theirs = torchvision.models.convnext_tiny(num_classes=10)
    assert_same(shaken(TINY), theirs, "torchvision", (32, 64))


def test_v1_equals_transformers_with_our_eps_in_the_final_norm():
    # The other norms of transformers have 1e-6 built in; only the last one follows the config, whose default is 1e-12.
    config = ConvNextConfig(depths=[1, 2, 2, 1], hidden_sizes=[8, 12, 16, 24], num_labels=10, layer_norm_eps=1e-6)
    assert_same(shaken(SMALLEST), ConvNextForImageClassification(config), "transformers", (75, 64))


def test_v2_equals_transformers_with_our_eps_in_the_final_norm():
    config = ConvNextV2Config(depths=[1, 2, 2, 1], hidden_sizes=[8, 12, 16, 24], num_labels=10, layer_norm_eps=1e-6)
    assert_same(shaken(SMALLEST_V2), ConvNextV2ForImageClassification(config), "transformers_v2", (64, 75))
