"""The roadmap: one network that is ResNet at its start and ConvNeXt at its end, and every published figure between."""

import json
from itertools import pairwise

import pytest
import torch
import torchvision
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig, RoadmapConfig, parse
from convnext.engine.checkpoint import save
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.create import create
from convnext.models.profile import count_parameters
from convnext.models.roadmap import Roadmap, as_convnext
from convnext.recipes import recipe
from convnext.recipes.architectures import ARCHITECTURES
from convnext.recipes.roadmap import REGIMES, STEPS, chosen_steps, narrower, roadmap, rows
from convnext.studies.roadmap.text import roadmap_text

# Millions of parameters at 1000 classes, counted independently of this package
PARAMETERS = {
    "t": [25.557, 25.557, 28.629, 28.622, 15.723, 33.761, 25.851, 25.626, 25.721, 25.864, 26.054, 26.292, 25.864, 25.864,
          25.797, 25.797, 28.589],
    "b": [64.674, 64.674, 83.066, 83.058, 42.586, 96.527, 83.700, 83.095, 83.369, 83.781, 84.330, 85.016, 83.781, 83.781,
          83.600, 83.600, 88.591],
}  # fmt: skip
CHANGES = {  # the fields that each step changes in its base
    "resnet": set(),
    "stage_ratio": {"depths"},
    "patchify": {"stem"},
    "depthwise": {"depthwise"},
    "width": {"width"},
    "inverted": {"bottleneck"},
    "move_up": {"order"},
    **{f"kernel_{k}": {"kernel"} for k in (5, 7, 9, 11)},
    "gelu": {"activation"},
    "fewer_activations": {"activations_per_block"},
    "fewer_norms": {"norms_per_block"},
    "layer_norm": {"norm"},
    "separate_downsampling": {"downsample", "bias", "layer_scale"},
}
LAST = {"t": "tiny", "b": "base"}


def small(config: RoadmapConfig, *, width: int = 8, depths: tuple[int, ...] = (1, 1, 2, 1)) -> RoadmapConfig:
    return config.model_copy(update={"width": width, "depths": depths, "classes": 5})


def differing(one: RoadmapConfig, other: RoadmapConfig) -> set[str]:
    names = set(RoadmapConfig.model_fields) - {"name"}
    return {name for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("regime", REGIMES)
def test_every_step_has_the_papers_macs_to_two_decimals_and_its_parameters(regime):
    found = rows(regime)
    likely = [step.likely_gflops or step.paper_gflops for step in roadmap(regime)]
    assert [round(row["macs"] / 1e9, 2) for row in found] == likely
    assert [round(row["params"] / 1e6, 3) for row in found] == PARAMETERS[regime]


def test_two_printed_cells_do_not_hold_and_are_marked_with_both_values():
    for regime, expected in {"t": {"layer_norm": (4.46, 4.15), "separate_downsampling": (4.49, 4.46)}, "b": {}}.items():
        marked = {s.name: (s.paper_gflops, s.likely_gflops) for s in roadmap(regime) if s.misprint}
        assert marked == expected
    text = roadmap_text("t")
    for value in ("4.1456", "4.46*", "4.4555", "4.49*", "printed 4.46", "printed 4.49"):
        assert value in text


@pytest.mark.parametrize("regime", REGIMES)
def test_the_table_for_programs_has_seventeen_rows_of_five_keys(regime):
    found = json.loads(json.dumps(rows(regime)))
    assert [row["step"] for row in found] == list(STEPS) and len(found) == 17
    assert all(list(row) == ["step", "params", "macs", "paper_gflops", "paper_top1"] for row in found)
    assert all(isinstance(row["params"], int) and isinstance(row["macs"], int) for row in found)
    assert (found[0]["paper_top1"], found[-1]["paper_top1"]) == {"t": (76.13, 81.97), "b": (78.2, 83.6)}[regime]


@pytest.mark.parametrize("regime", REGIMES)
def test_a_step_changes_in_its_base_what_its_name_says_and_nothing_else(regime):
    steps = {step.name: step for step in roadmap(regime)}
    for name, expected in CHANGES.items():
        step = steps[name]
        more = {"width"} if (regime, name) == ("b", "stage_ratio") else set()  # 64 to 84: the paper says so
        assert differing(step.config, steps[step.base].config) == expected | more
    assert list(steps) == ["resnet_original", *CHANGES]


def test_a_step_builds_on_the_row_above_but_gelu_goes_on_from_kernel_7():
    for above, step in pairwise(roadmap("t")):
        assert step.base == ("kernel_7" if step.name == "gelu" else above.name)
    assert [step.recipe for step in roadmap("b")] == ["original"] + ["modern"] * 16


def test_the_first_step_is_torchvisions_resnet_with_the_same_weights():
    torch.manual_seed(0)
    model = Roadmap(RoadmapConfig(depths=(1, 2, 1, 1), classes=7)).double().eval()
    oracle = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=7)
    mine, theirs = model.state_dict(), oracle.state_dict()
    for (name, value), (other, there) in zip(mine.items(), theirs.items(), strict=True):  # the same order of layers
        assert value.shape == there.shape, (name, other)
        if "running" in name:
            value.uniform_(0.5, 1.5)
    oracle.load_state_dict(dict(zip(theirs, mine.values(), strict=True)))
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    assert torch.allclose(model(x), oracle.double().eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_last_step_is_convnext_tensor_by_tensor(regime):
    with torch.device("meta"):
        last = build_model(roadmap(regime)[-1].config)
        convnext = build_model(ARCHITECTURES[LAST[regime]])
    shapes = {name: tensor.shape for name, tensor in as_convnext(last.state_dict()).items()}
    assert shapes == {name: tensor.shape for name, tensor in convnext.state_dict().items()}
    assert count_parameters(last) == count_parameters(convnext)


def test_the_last_step_gives_the_logits_of_convnext_with_the_same_weights():
    torch.manual_seed(0)
    config = small(roadmap("t")[-1].config).model_copy(update={"layer_scale": 0.5, "drop_path": 0.3})
    model = build_model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms too
    same = ConvNeXtConfig(depths=config.depths, widths=(8, 16, 32, 64), classes=5)
    convnext = build_model(same).double().eval()
    convnext.load_state_dict(as_convnext(model.state_dict()))
    x = torch.randn(2, 3, 64, 45, dtype=torch.float64)
    assert torch.allclose(model(x), convnext(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("step", roadmap("t"), ids=lambda step: step.name)
def test_a_narrow_step_learns_with_every_parameter(step):
    torch.manual_seed(0)
    model = build_model(small(step.config).model_copy(update={"drop_path": 0.1}))
    loss = F.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("patch", [2, 4])
def test_either_stem_and_either_way_of_downsampling_take_small_and_odd_images(patch):
    for step in chosen_steps("t", ("resnet", "patchify", "kernel_11", "separate_downsampling")):
        with torch.device("meta"):
            model = build_model(small(step.config).model_copy(update={"patch": patch}))
            for size in ((16, 16), (33, 47)):
                assert model(torch.empty(2, 3, *size)).shape == (2, 5)
            assert model.stem(torch.empty(1, 3, 32, 64)).shape == (1, 8, 32 // patch, 64 // patch)


def test_any_combination_of_decisions_can_be_built():
    mixed = RoadmapConfig(norm="layer", downsample="layer", stem="patch", order="spatial_first", depths=(1, 1), width=8)
    batch = RoadmapConfig(downsample="layer", norms_per_block=1, depthwise=True, depths=(1, 1), width=8, classes=0)
    with torch.device("meta"):
        assert build_model(mixed)(torch.empty(1, 3, 32, 32)).shape == (1, 1000)
        assert build_model(batch)(torch.empty(2, 3, 32, 32)).shape == (2, 64)  # 4 x the width of stage 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": 4}, "kernel = 4 is even"),
        ({"stem": "conv"}, "stem = 'conv' is refused"),
        ({"depths": []}, "names no stage"),
        ({"kernal": 7}, "no field is called 'kernal'. Did you mean 'kernel'?"),
    ],
)
def test_a_decision_that_does_not_exist_is_one_line(fields, message):
    with pytest.raises(ConvNeXtError) as error:
        parse(RoadmapConfig, fields, where="step")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_step_is_a_network_by_name_and_a_wrong_one_is_named():
    with torch.device("meta"):
        assert create("roadmap_b:patchify", classes=3).config.width == 84
    chosen = recipe("small", "roadmap_t:gelu", images=1000, image_px=32, classes=4)
    assert (chosen.model.activation, chosen.model.patch, chosen.optim.name) == ("gelu", 2, "adamw")
    assert recipe("imagenet1k", "roadmap_b:gelu", images=9, image_px=9, classes=4).model.drop_path == 0.5
    with pytest.raises(ConvNeXtError, match="Did you mean 'kernel_7'"):
        create("roadmap_t:kernel7")
    with pytest.raises(ConvNeXtError, match="regime = 's'"):
        roadmap("s")


def test_a_trained_step_gives_its_weights_to_another_number_of_classes(tmp_path):
    shape = {"depths": (1, 1), "width": 4}
    torch.manual_seed(0)
    one = create("roadmap_t:gelu", classes=5, **shape)
    save(tmp_path / "best.safetensors", one.state_dict(), {})
    said: list[str] = []
    other = create("roadmap_t:gelu", classes=3, weights=str(tmp_path / "best.safetensors"), info=said.append, **shape)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(one.eval().embed(x), other.eval().embed(x)) and "head" in said[0]
    with pytest.raises(ConvNeXtError, match="does not fit"):
        create("roadmap_t:fewer_norms", weights=str(tmp_path / "best.safetensors"), **shape)


def test_steps_are_chosen_in_the_roadmaps_order_and_narrowed_to_multiples_of_four():
    assert [step.name for step in chosen_steps("t", ("gelu", "resnet"))] == ["resnet", "gelu"]
    assert [narrower(RoadmapConfig(width=w), 0.25).width for w in (64, 84, 96, 128)] == [16, 20, 24, 32]
    assert narrower(RoadmapConfig(width=84), 1) == RoadmapConfig(width=84)
    assert [narrower(RoadmapConfig(width=w), 0.125).width for w in (64, 84, 96, 128)] == [8, 12, 12, 16]
    with pytest.raises(ConvNeXtError, match=r"width_factor = 0.1 must be from 0.125"):
        narrower(RoadmapConfig(), 0.1)
