"""Parameter groups with the published layer ids, the optimizers against torch's own, and their state as tensors."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convnext.config import ConvNeXtConfig, OptimConfig, TimmConfig
from convnext.engine.depths import layer_ids, layer_scales, parameter_groups
from convnext.engine.optim import Optimizers
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.build import build_model
from convnext.recipes.architectures import ARCHITECTURES

TINY_NETWORK = ConvNeXtConfig(depths=(1, 1, 3, 1), widths=(4, 8, 12, 16), layer_scale=0.5, classes=5)
RATE = 2.0**-7  # float32 has it, as every rate that devices get
KINDS = {
    "adamw": OptimConfig(name="adamw", lr=RATE, batch=1, weight_decay=0.1, betas=(0.8, 0.95)),
    "sgd": OptimConfig(name="sgd", lr=RATE, batch=1, weight_decay=0.1, momentum=0.8),
    "sgd without momentum": OptimConfig(name="sgd", lr=RATE, batch=1, weight_decay=0.1, momentum=0.0),
    "muon": OptimConfig(name="muon", lr=RATE, batch=1, weight_decay=0.1, momentum=0.9, muon_ratio=3),
}
CONVOLUTIONS = KINDS["muon"].model_copy(update={"muon_convolutions": True})


def network(seed: int = 0, config: ConvNeXtConfig = TINY_NETWORK) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config)


def names_of(config: ConvNeXtConfig) -> list[str]:
    with torch.device("meta"):
        return [name for name, _ in build_model(config).named_parameters()]


def give_gradients(model: nn.Module, step: int) -> None:
    """In the memory format of their parameters, as a backward pass leaves them: fused kernels rely on it."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.grad = torch.empty_like(parameter).copy_(values)


def run(model: nn.Module, optimizers: Optimizers, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizers.set_lr(1e-2 / (1 + step))
        optimizers.step()


def copied(tensors) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


# Weight decay


@pytest.mark.parametrize("decay", [1.0, 0.8])
@pytest.mark.parametrize("name", ["atto", "v2_atto", "iso_small"])
def test_every_parameter_is_in_one_group_and_only_matrices_and_kernels_decay(name, decay):
    with torch.device("meta"):
        model = build_model(ARCHITECTURES[name])
    groups = parameter_groups(model, OptimConfig(lr=1, batch=1, weight_decay=0.05, layer_decay=decay))
    found = [name for group in groups for name in group["names"]]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    shapes = {name: value for name, value in model.named_parameters()}
    for group in groups:
        for parameter, name in zip(group["params"], group["names"], strict=True):
            assert parameter is shapes[name]
            kernel = parameter.ndim > 1 and not name.endswith(".bias")
            assert group["weight_decay"] == (0.05 if kernel else 0.0)


def test_a_bias_of_two_dimensions_does_not_decay():
    model = nn.Module()
    model.bias_table = nn.Module()
    model.bias_table.bias = nn.Parameter(torch.zeros(2, 2))
    (group,) = parameter_groups(model, OptimConfig(lr=1, batch=1))
    assert group["weight_decay"] == 0


def test_frozen_parameters_are_left_out_and_leave_the_ids_of_the_others_alone():
    model = network()
    whole = layer_scales([name for name, _ in model.named_parameters()], 0.7)
    for part in (model.stem, model.stages[0], model.stages[2].blocks[2]):
        part.requires_grad_(False)
    groups = parameter_groups(model, OptimConfig(lr=1, batch=1, layer_decay=0.7))
    found = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert found == {name: whole[name] for name, value in model.named_parameters() if value.requires_grad}


# Layer-wise decay


def by_place(ids: dict[str, float], depths: tuple[int, ...]) -> dict[str, float | list[float]]:
    """The one value of each place of a network; fails where a place has several."""

    def one(prefix: str) -> float:
        (value,) = {value for name, value in ids.items() if name.startswith(prefix)}
        return value

    places: dict[str, float | list[float]] = {name: one(f"{name}.") for name in ("stem", "norm", "head")}
    for stage, depth in enumerate(depths):
        places[f"stage{stage}"] = [one(f"stages.{stage}.blocks.{block}.") for block in range(depth)]
        if stage:
            places[f"down{stage}"] = one(f"stages.{stage}.downsample.")
    return places


@pytest.mark.parametrize("name", ["small", "base", "large", "xlarge", "v2_base"])
def test_networks_of_27_blocks_have_the_published_ids(name):
    config = ARCHITECTURES[name]
    assert by_place(layer_ids(names_of(config)), config.depths) == {
        "stem": 0,
        "stage0": [1, 1, 1],
        "down1": 2,
        "stage1": [2, 2, 2],
        "down2": 3,
        "stage2": [3 + block // 3 for block in range(27)],
        "down3": 12,
        "stage3": [12, 12, 12],
        "norm": 13,
        "head": 13,
    }


@pytest.mark.parametrize("name", ["tiny", "v2_tiny"])
def test_tiny_has_the_ids_published_for_detection(name):
    config = ARCHITECTURES[name]
    assert by_place(layer_ids(names_of(config)), config.depths) == {
        "stem": 0,
        "stage0": [1, 1, 1],
        "down1": 2,
        "stage1": [2, 2, 2],
        "down2": 3,
        "stage2": [3, 3, 3, 4, 4, 4, 5, 5, 5],
        "down3": 6,
        "stage3": [6, 6, 6],
        "norm": 7,
        "head": 7,
    }


def test_the_scales_are_the_published_numbers():
    config = ARCHITECTURES["base"]
    scales = by_place(layer_scales(names_of(config), 0.7), config.depths)
    assert scales["stem"] == pytest.approx(0.009689, abs=5e-7)
    assert scales["stage0"][0] == pytest.approx(0.013841, abs=5e-7)
    assert scales["down2"] == scales["stage2"][0] == pytest.approx(0.028248, abs=5e-7)
    assert scales["stage2"][26] == pytest.approx(0.49)
    assert scales["down3"] == scales["stage3"][0] == pytest.approx(0.7)
    assert scales["norm"] == scales["head"] == 1
    scales = by_place(layer_scales(names_of(config), 0.8), config.depths)
    assert scales["stem"] == pytest.approx(0.054976, abs=5e-7) and scales["stage3"][0] == pytest.approx(0.8)


def test_an_isotropic_network_is_cut_into_groups_of_three_blocks():
    config = ARCHITECTURES["iso_small"]
    places = by_place(layer_ids(names_of(config)), config.depths)
    assert places == {"stem": 0, "stage0": [1 + block // 3 for block in range(18)], "norm": 7, "head": 7}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_ids_of_any_network_rise_from_0_without_a_gap(depths):
    config = ConvNeXtConfig(depths=tuple(depths), widths=(2,) * len(depths))
    ids = list(layer_ids(names_of(config)).values())  # parameters come in the order of the network
    assert ids[0] == 0 and {later - earlier for earlier, later in pairwise(ids)} <= {0, 1}


def test_layer_decay_of_a_foreign_network_is_refused_in_one_line():
    with torch.device("meta"):
        model = build_model(TimmConfig(name="resnet18"))
    with pytest.raises(ConvNeXtError, match=r"parameter 'network\..*Set --optim\.layer_decay 1\.$"):
        parameter_groups(model, OptimConfig(lr=1, batch=1, layer_decay=0.8))


# Steps


def reference(model: nn.Module, optim: OptimConfig) -> list[torch.optim.Optimizer]:
    """The same optimizer from torch's own parts, with groups written by hand."""
    named = dict(model.named_parameters())
    matrices = [value for name, value in named.items() if value.ndim == 2 and ".blocks." in name]
    muon = []
    if optim.name == "muon":
        muon = [torch.optim.Muon(matrices, lr=optim.muon_ratio * optim.lr, weight_decay=0.1, momentum=0.9)]
    rest = [value for value in named.values() if not muon or all(value is not matrix for matrix in matrices)]
    groups = [
        {"params": [value for value in rest if value.ndim > 1], "weight_decay": 0.1},
        {"params": [value for value in rest if value.ndim == 1], "weight_decay": 0.0},
    ]
    if optim.name == "sgd":
        return [torch.optim.SGD(groups, lr=RATE, momentum=optim.momentum)]
    return [*muon, torch.optim.AdamW(groups, lr=RATE, betas=optim.betas, eps=1e-8)]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_torch_also_those_that_a_graph_records(kind, recorded):
    ours, theirs = network().double(), network().double()
    optimizers = Optimizers(ours, KINDS[kind], recorded=recorded)
    expected = reference(theirs, KINDS[kind])
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizers.set_lr(RATE)
        optimizers.step()
        for optimizer in expected:
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_first_step_that_fp16_skips_leaves_no_trace(kind):
    model = network()
    optimizers, before = Optimizers(model, KINDS[kind]), copied(model.state_dict())
    fresh = copied(optimizers.tensors())
    give_gradients(model, 0)
    optimizers.set_lr(RATE)
    for optimizer in optimizers.all:  # as torch's scaler tells it
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(1.0)
    optimizers.step()
    assert same(model.state_dict(), before) and same(optimizers.tensors(), fresh)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_one_gradient_that_is_no_number_takes_the_step_from_all_weights(kind, clip):
    """With Muon there are two optimizers, and the gradients of one of them are all finite here."""
    model = network()
    optimizers = Optimizers(model, KINDS[kind])
    optimizers.set_lr(RATE)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=4.0), copied(model.state_dict())
    for broken in (True, False):
        give_gradients(model, 0)
        if broken:
            model.head.weight.grad[0, 0] = torch.nan
        optimizers.take_gradients()
        scaler.scale(torch.zeros(()))  # of the loss; makes the scale
        if clip:
            scaler.unscale_(optimizers.one)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizers.one)
        scaler.update()
        assert same(model.state_dict(), before) is broken and scaler.get_scale() == 2.0
        optimizers.zero_grad()
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_first_step_of_adamw_is_its_formula():
    model = network().double()
    before = copied(model.state_dict())
    optimizers = Optimizers(model, OptimConfig(lr=RATE, batch=1, weight_decay=0.1, layer_decay=0.5))
    optimizers.set_lr(RATE)
    give_gradients(model, 0)
    optimizers.step()
    scales = layer_scales(list(before), 0.5)
    for name, parameter in model.named_parameters():
        lr = RATE * scales[name]
        shrunk = before[name] * (1 - lr * (0.1 if parameter.ndim > 1 else 0))
        moved = (
            lr * parameter.grad / (parameter.grad.abs() + 1e-8)
        )  # corrected for bias, both moments are the gradient's
        torch.testing.assert_close(parameter.detach(), shrunk - moved, rtol=1e-9, atol=1e-12)


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    optimizers = Optimizers(network(), KINDS["muon"])
    muon, adamw = optimizers.all
    taken = {name for group in muon.param_groups for name in group["names"]}
    left = {name for group in adamw.param_groups for name in group["names"]}
    inside = [f"stages.{stage}.blocks.{block}" for stage, depth in enumerate((1, 1, 3, 1)) for block in range(depth)]
    assert taken == {f"{place}.{part}.weight" for place in inside for part in ("expand", "project")}
    assert taken.isdisjoint(left) and taken | left == {name for name, _ in network().named_parameters()}
    assert "head.weight" in left


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_a_convolution_between_blocks_as_its_matrix(layout):
    model = network().double().to(memory_format=layout)
    names = ["stem.layers.0.weight", *(f"stages.{stage}.downsample.conv.weight" for stage in (1, 2, 3))]
    expected = {name: nn.Parameter(dict(model.named_parameters())[name].detach().flatten(1)) for name in names}
    theirs = torch.optim.Muon(expected.values(), lr=3 * RATE, weight_decay=0.1, momentum=0.9)
    optimizers = Optimizers(model, CONVOLUTIONS)
    muon, _ = optimizers.all
    taken = {name for group in muon.param_groups for name in group["names"]}
    assert {name for name in taken if ".blocks." not in name} == set(names)
    for step in range(4):
        give_gradients(model, step)
        for name in names:
            expected[name].grad = dict(model.named_parameters())[name].grad.flatten(1)
        optimizers.set_lr(RATE)
        optimizers.step()
        theirs.step()
    for name in names:
        found = dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(found.flatten(1), expected[name].detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_done_to_a_gradient_after_it_was_taken_reaches_muon(layout):
    """Unscaling and clipping write to gradients in place."""
    model = network().to(memory_format=layout)
    optimizers = Optimizers(model, CONVOLUTIONS)
    give_gradients(model, 0)
    for parameter in model.parameters():
        parameter.grad = parameter.grad.contiguous()  # not the memory format of the parameters
    optimizers.take_gradients()
    for parameter in model.parameters():
        parameter.grad.fill_(3.0)
    assert len(optimizers.flat) == 4 and all((matrix.grad == 3).all() for _, matrix in optimizers.flat)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_muon_without_matrices_in_blocks_is_adamw():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    (only,) = Optimizers(model, KINDS["muon"]).all
    assert isinstance(only, torch.optim.AdamW)


def test_both_rates_of_muon_follow_the_schedule_and_the_depth():
    optimizers = Optimizers(network(), KINDS["muon"].model_copy(update={"layer_decay": 0.5}))
    scales = layer_scales([name for name, _ in network().named_parameters()], 0.5)
    optimizers.set_lr(RATE / 2)  # half of the peak
    muon, adamw = optimizers.all
    for optimizer, peak in ((muon, 3 * RATE), (adamw, RATE)):
        for group in optimizer.param_groups:
            for name in group["names"]:
                assert group["lr"] == pytest.approx(0.5 * peak * scales[name])


def test_zero_grad_forgets_every_gradient():
    model = network()
    optimizers = Optimizers(model, KINDS["muon"])
    give_gradients(model, 0)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


# State


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("optim", [*KINDS.values(), CONVOLUTIONS], ids=[*KINDS, "muon for convolutions"])
def test_loaded_state_goes_on_to_the_bit(optim, steps, layout):
    model = network().to(memory_format=layout)
    optimizers = Optimizers(model, optim)
    run(model, optimizers, range(steps))
    saved = {name: value.contiguous() for name, value in copied(optimizers.tensors()).items()}  # as a file gives them
    kept = copied(saved)

    other = network(1).to(memory_format=layout)
    other.load_state_dict(model.state_dict())
    again = Optimizers(other, optim)
    again.load(saved)
    assert same(again.tensors(), optimizers.tensors())
    run(model, optimizers, range(steps, steps + 3))
    run(other, again, range(steps, steps + 3))
    assert same(model.state_dict(), other.state_dict())
    assert same(again.tensors(), optimizers.tensors())
    assert same(saved, kept)  # what was loaded is not written to


def test_state_is_named_after_parameters():
    model = network()
    names = {name for name, _ in model.named_parameters()}
    adamw = Optimizers(model, KINDS["adamw"]).tensors()
    assert set(adamw) == {f"{name}/{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    muon = Optimizers(model, KINDS["muon"]).tensors()
    assert "stages.0.blocks.0.expand.weight/momentum_buffer" in muon and "head.weight/exp_avg" in muon
    assert Optimizers(model, KINDS["sgd without momentum"]).tensors() == {}


def test_state_of_another_optimizer_or_network_is_refused_in_one_line():
    optimizers = Optimizers(network(), KINDS["adamw"])
    with pytest.raises(CheckpointError, match=r"does not fit 'adamw' on this model; first at 'head\.bias/exp_avg'\.$"):
        optimizers.load(Optimizers(network(), KINDS["sgd"]).tensors())
    wider = network(config=TINY_NETWORK.model_copy(update={"classes": 6}))
    with pytest.raises(CheckpointError, match=r"first at 'head\."):
        optimizers.load(Optimizers(wider, KINDS["adamw"]).tensors())
