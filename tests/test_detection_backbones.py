"""Backbones with stages, refusals of those without, and detectors by name."""

import pytest
import torch

from convnext.config import ConvNeXtConfig, OptimConfig, TimmConfig
from convnext.engine.depths import parameter_groups
from convnext.errors import ConvNeXtError
from convnext.recipes.architectures import architecture
from convnext.tasks.backbone import Backbone
from convnext.tasks.detection.build import detector, detector_values
from convnext.tasks.detection.detector import Detector
from detectors import BACKBONE, head


@pytest.mark.parametrize("name", ["atto", "v2_atto", "roadmap_t:depthwise", "roadmap_t:fewer_norms", "gfnet_h_tiny"])
def test_every_network_with_stages_is_a_backbone(name):
    config = architecture(name)
    with torch.device("meta"):
        backbone = Backbone(config)
        maps = backbone.eval()(torch.empty(1, 3, 96, 160))
    assert backbone.strides == (4, 8, 16, 32)
    assert [tuple(each.shape) for each in maps] == [
        (1, width, 96 // stride, 160 // stride) for width, stride in zip(backbone.widths, backbone.strides, strict=True)
    ]
    plain = name != "roadmap_t:depthwise"  # whose stages end in an activation
    assert all(isinstance(each, torch.nn.LayerNorm) == plain for each in backbone.norms)


@pytest.mark.parametrize(
    ("name", "widths"), [("resnet18", (64, 128, 256, 512)), ("swin_tiny_patch4_window7_224", None)]
)
def test_baselines_give_stages_of_any_size(name, widths):
    with torch.device("meta"):
        backbone = Backbone(TimmConfig(name=name))
        maps = backbone(torch.empty(2, 3, 64, 96))
    assert backbone.widths == (widths or (96, 192, 384, 768)) and backbone.strides == (4, 8, 16, 32)
    assert maps[0].shape == (2, backbone.widths[0], 16, 24)


def test_a_stem_of_smaller_patches_makes_a_finer_pyramid():
    config = BACKBONE.model_copy(update={"patch": 2, "stem": "overlap"})
    model = Detector(config, head())
    assert model.backbone.strides == (2, 4, 8, 16) and model.rpn.anchors.strides == (2, 4, 8, 16, 32)
    assert len(model.eval().detect([torch.zeros(3, 50, 70), torch.zeros(3, 64, 40)])) == 2


def test_fixed_batch_norms_stay_as_they_are_in_training():
    backbone = Backbone(TimmConfig(name="resnet18"), fixed_batch_norm=True).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.randn(1, 3, 32, 32))
    assert backbone.training and all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


@pytest.mark.parametrize("name", ["iso_small", "vit_small"])
def test_a_network_of_one_resolution_is_refused_in_one_line(name):
    with pytest.raises(
        ConvNeXtError, match=r"nothing to build a pyramid from\. Take (one|a network) with stages"
    ) as error:
        Backbone(architecture(name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask_rcnn_tinny", "Did you mean 'tiny'"),
        ("cascde_tiny", "Did you mean 'cascade_tiny'"),
        ("mask_rcnn_timm:no", "timm"),
    ],
)
def test_an_unknown_detector_is_told_the_nearest_name(name, message):
    with pytest.raises(ConvNeXtError, match=message), torch.device("meta"):
        detector(name)


def test_a_name_is_a_kind_and_a_backbone():
    backbone, values = detector_values("cascade_mask_rcnn_v2_base", 7, drop_path=0.3, most=50)
    assert isinstance(backbone, ConvNeXtConfig) and (backbone.name, backbone.drop_path) == ("v2_base", 0.3)
    assert (values.kind, values.classes, values.most, len(values.stages)) == ("cascade", 7, 50, 3)
    with pytest.raises(ConvNeXtError, match="mostt"):
        detector_values("mask_rcnn_tiny", mostt=3)


def test_only_the_backbone_is_slowed_by_layer_wise_decay():
    with torch.device("meta"):
        model = Detector(*detector_values("mask_rcnn_tiny"))
    groups = parameter_groups(model, OptimConfig(lr=1e-4, batch=16, layer_decay=0.95))
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scales["backbone.network.stem.layers.0.weight"] == pytest.approx(0.95**7)
    assert scales["backbone.network.stages.3.blocks.0.expand.weight"] == pytest.approx(0.95)
    assert {scale for name, scale in scales.items() if not name.startswith("backbone.network.")} == {1.0}
