"""Layer-wise and stage-wise decay of detectors and segmenters with the published numbers, and schedules that count steps."""

import pytest
import torch
from torch import nn

from convnext.config import OptimConfig, ScheduleConfig
from convnext.engine.depths import layer_scales, parameter_groups, stage_ids
from convnext.engine.schedule import lr_at, total_steps, warmup_steps
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.recipes.architectures import architecture

ADE20K = ScheduleConfig(steps=160_000, kind="linear", warmup_steps=1500, warmup_from=1e-6)
COCO = ScheduleConfig(epochs=36, kind="step", milestones=(27, 33), warmup_steps=500, warmup_from=0.001)
PER_EPOCH = 7330  # of COCO's 117,266 images with objects, 16 a step


def dense(name: str, prefix: str = "backbone.network.") -> list[str]:
    """Names of a dense network on this backbone: with norms of its own behind the stages, and two heads."""
    with torch.device("meta"):
        inside = [key for key, _ in build_model(architecture(name)).named_parameters()]
    kept = [f"{prefix}{key}" for key in inside if not key.startswith(("norm.", "head."))]
    return [
        *kept,
        *(f"backbone.norms.{s}.weight" for s in range(4)),
        "decoder.fuse.conv.weight",
        "head.stages.0.weight",
    ]


def places(scales: dict[str, float]) -> dict[str, float]:
    """The one value of each part of the network."""
    parts = {f"stage{s}": f"backbone.network.stages.{s}.blocks." for s in range(4)}
    parts |= {f"down{s}": f"backbone.network.stages.{s}.downsample." for s in (1, 2, 3)}
    parts |= {"stem": "backbone.network.stem.", "norms": "backbone.norms.", "decoder": "decoder.", "head": "head."}
    found = {}
    for part, prefix in parts.items():
        (found[part],) = {value for name, value in scales.items() if name.startswith(prefix)}
    return found


@pytest.mark.parametrize(
    ("name", "stem", "stages"),
    [
        ("tiny", 0.478, (0.531, 0.590, 0.656, 0.729)),
        *((name, 0.254, (0.282, 0.314, 0.349, 0.387)) for name in ("small", "base", "large", "xlarge")),
    ],
)
def test_stage_wise_decay_has_the_published_factors(name, stem, stages):
    found = places(layer_scales(dense(name), 0.9, by="stage"))
    assert {found["stem"], found["down1"], found["down2"], found["down3"]} == {found["stem"]}
    assert found["stem"] == pytest.approx(stem, abs=5e-4)
    assert [found[f"stage{s}"] for s in range(4)] == pytest.approx(stages, abs=5e-4)
    assert found["norms"] == found["decoder"] == found["head"] == 1


@pytest.mark.parametrize(("name", "last"), [("tiny", 7), ("small", 13), ("base", 13)])
def test_layer_wise_decay_counts_from_the_heads_and_stage_norms_are_heads(name, last):
    scales = layer_scales(dense(name), 0.7)
    assert scales["backbone.network.stem.norm.weight"] == pytest.approx(0.7**last)
    assert scales["backbone.network.stages.0.blocks.0.gamma"] == pytest.approx(0.7 ** (last - 1))
    assert scales["backbone.network.stages.3.blocks.0.gamma"] == pytest.approx(0.7)
    assert scales["backbone.network.stages.3.downsample.conv.weight"] == pytest.approx(0.7)
    rest = {value for key, value in scales.items() if not key.startswith("backbone.network.")}
    assert rest == {1.0}


def test_the_third_stage_of_tiny_has_the_published_ids_of_detection():
    scales = layer_scales(dense("tiny"), 0.5)
    thirds = [scales[f"backbone.network.stages.2.blocks.{block}.gamma"] for block in range(9)]
    assert thirds == [0.5 ** (7 - place) for place in (3, 3, 3, 4, 4, 4, 5, 5, 5)]


def test_ids_are_the_same_directly_under_backbone_and_without_a_head():
    with_network = stage_ids(dense("tiny"))
    plain = stage_ids(dense("tiny", "backbone."))
    assert {key.replace("backbone.network.", "backbone."): place for key, place in with_network.items()} == plain
    with torch.device("meta"):
        names = [key for key, _ in build_model(architecture("tiny")).named_parameters()]
    assert set(stage_ids(names).values()) == {0, 1, 2, 3, 4, 7}


def test_groups_take_the_stage_wise_factors_and_no_decay_of_norms_and_biases():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build_model(architecture("tiny"))
            self.decoder = nn.Conv2d(4, 4, 1)

    with torch.device("meta"):
        model = Net()
    groups = parameter_groups(model, OptimConfig(lr=1, batch=1, layer_decay=0.9, decay_by="stage"))
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert set(scales) == {name for name, _ in model.named_parameters()}
    assert scales["backbone.stages.1.downsample.conv.weight"] == pytest.approx(0.9**7)
    assert scales["decoder.weight"] == 1 and decays["decoder.weight"] == 0.05 and decays["decoder.bias"] == 0


def test_decay_on_a_foreign_backbone_is_refused_in_one_line():
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"layer1": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)})
    with pytest.raises(ConvNeXtError, match=r"parameter 'layer1\.weight' is none"):
        parameter_groups(model, OptimConfig(lr=1, batch=1, layer_decay=0.9, decay_by="stage"))


# Schedules


def lr(step: int, schedule: ScheduleConfig, per_epoch: int) -> float:
    return lr_at(step, steps_per_epoch=per_epoch, optim=OptimConfig(lr=1e-4, batch=16), schedule=schedule)


@pytest.mark.parametrize("per_epoch", [1, 1263, 50_000])
def test_a_schedule_of_steps_does_not_look_at_epochs(per_epoch):
    assert total_steps(per_epoch, ADE20K) == 160_000 and warmup_steps(per_epoch, ADE20K) == 1500
    assert [lr(step, ADE20K, per_epoch) for step in (0, 700, 80_000)] == [lr(s, ADE20K, 7) for s in (0, 700, 80_000)]


def test_ade20k_warms_up_to_the_line_that_falls_from_the_start_to_zero():
    assert lr(0, ADE20K, 1263) == pytest.approx(1e-10)
    assert lr(750, ADE20K, 1263) == pytest.approx(1e-4 * (1 - 750 / 160_000) * (1e-6 + (1 - 1e-6) / 2))
    for step in (1500, 40_000, 159_999):
        assert lr(step, ADE20K, 1263) == pytest.approx(1e-4 * (1 - step / 160_000))


def test_coco_warms_up_over_500_steps_and_falls_after_27_and_33_epochs():
    assert total_steps(PER_EPOCH, COCO) == 36 * PER_EPOCH
    assert lr(0, COCO, PER_EPOCH) == pytest.approx(1e-7)
    assert lr(250, COCO, PER_EPOCH) == pytest.approx(1e-4 * (0.001 + 0.999 / 2))
    assert lr(500, COCO, PER_EPOCH) == lr(27 * PER_EPOCH - 1, COCO, PER_EPOCH) == pytest.approx(1e-4)
    assert lr(27 * PER_EPOCH, COCO, PER_EPOCH) == lr(33 * PER_EPOCH - 1, COCO, PER_EPOCH) == pytest.approx(1e-5)
    assert lr(33 * PER_EPOCH, COCO, PER_EPOCH) == pytest.approx(1e-6)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps = 20 does not fit in steps = 10"):
        ScheduleConfig(steps=10, warmup_steps=20)
