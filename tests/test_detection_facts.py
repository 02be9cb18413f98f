"""Published sizes of detectors: arXiv 2201.03545, Table 3, at 1280 x 800, and the counting rule behind them."""

import pytest
import torch
from torch import nn

from convnext.models.profile import count_parameters
from convnext.recipes.architectures import architecture
from convnext.recipes.dense import coco_cascade_3x, coco_mask_rcnn_3x
from convnext.tasks.backbone import Backbone
from convnext.tasks.detection.build import PUBLISHED, detector_values
from convnext.tasks.detection.profile import cost, counted, rows

TABLE = [  # name, printed G, mmcv-style and pure G counted independently, parameters in M counted independently
    ("mask_rcnn_tiny", 262, 262.14, 261.90, 48.10),
    ("cascade_tiny", 741, 741.01, 740.15, 85.93),
    ("cascade_small", 827, 827.33, 826.44, 107.57),
    ("cascade_base", 964, 964.48, 963.57, 145.80),
    ("cascade_large", 1354, 1354.38, 1353.41, 254.71),
    ("cascade_xlarge", 1898, 1898.42, 1897.40, 406.88),
]


@pytest.mark.parametrize(("name", "printed", "published", "pure", "params"), TABLE)
def test_a_detector_has_the_published_operations_and_parameters(name, printed, published, pure, params):
    found = cost(*detector_values(name))
    assert round(found.published / 1e9) == printed
    assert found.published / 1e9 == pytest.approx(published, abs=0.01)
    assert found.macs / 1e9 == pytest.approx(pure, abs=0.01)
    assert found.params / 1e6 == pytest.approx(params, abs=0.01)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("mask_rcnn_swin_tiny", 267),
        ("cascade_resnet50", 739),
        ("cascade_resnext101_32x4d", 819),
        ("cascade_swin_tiny", 745),
    ],
)
def test_the_same_rule_gives_the_published_operations_of_baselines(name, printed):
    assert cost(*detector_values(name)).published / 1e9 == pytest.approx(printed, abs=1)


def test_the_recipes_of_coco_are_the_published_networks():
    for recipe, name in ((coco_mask_rcnn_3x("tiny"), "mask_rcnn_tiny"), (coco_cascade_3x("tiny"), "cascade_tiny")):
        assert recipe.head == detector_values(name)[1]


def test_boxes_of_no_class_in_particular_would_miss_the_published_parameters():
    per_class = cost(*detector_values("cascade_tiny")).params
    shared = per_class - 3 * (80 - 1) * 4 * 1025
    assert round(per_class / 1e6) == 86 != round(shared / 1e6)


def test_the_list_has_every_name_with_its_size(monkeypatch):
    assert {"mask_rcnn_tiny", *(f"cascade_{size}" for size in ("tiny", "small", "base", "large", "xlarge"))} < set(
        PUBLISHED
    )
    monkeypatch.setattr("convnext.tasks.detection.profile.PUBLISHED", ("cascade_tiny",))
    (row,) = rows()
    size = {"height": 800, "width": 1280}
    assert row == {"name": "cascade_tiny", "params": 85_930_578, "macs": 741_012_673_460, **size}


def test_the_rule_adds_biases_of_convolutions_activations_and_batch_norms():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = nn.Sequential(layers, nn.Linear(4 * 4 * 4, 5), nn.GELU(), nn.LayerNorm(5)).eval()
    with counted(model) as count:
        model(torch.zeros(1, 3, 8, 8))
    assert count["macs"] == 8 * 8 * 4 * 27 + 64 * 5
    assert count["extras"] == 256 + 2 * 256 + 256 + 256  # bias, norm, activation; what pooling reads


@pytest.mark.parametrize(("name", "params"), [("tiny", 27_818_592), ("small", 49_453_152), ("xlarge", 348_143_872)])
def test_a_backbone_has_its_published_parameters_and_four_norms(name, params):
    config = architecture(name)
    with torch.device("meta"):
        backbone = Backbone(config)
    assert count_parameters(backbone) == params + 2 * sum(config.widths)
