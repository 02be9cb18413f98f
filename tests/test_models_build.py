"""From names to networks: `create`, the baselines of timm, and what is refused."""

import subprocess
import sys

import pytest
import torch

from convnext.config import TimmConfig
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.models.create import create


def test_create_builds_a_published_network_with_the_fields_given():
    with torch.device("meta"):
        model = create("convnext_atto", classes=7, in_channels=1, drop_path=0.2, stem="overlap", patch=2)
    assert isinstance(model, ConvNeXt)
    assert (model.config.depths, model.config.classes, model.config.stem) == ((2, 2, 6, 2), 7, "overlap")
    assert model.stages[-1].blocks[-1].drop_path.rate == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tinny", {}, "Did you mean 'tiny'?"),
        ("tiny", {"layer_scal": 0.1}, "'layer_scal'. Did you mean 'layer_scale'?"),
        ("tiny", {"kernel": 4}, "kernel = 4 is even"),
        ("tiny", {"classes": -1}, "classes = -1"),
        ("timm:resnet17", {}, "timm has no model called 'resnet17'. Did you mean 'resnet1"),
        ("timm:vgg11", {"drop_path": 0.1}, "no stochastic depth"),
    ],
)
def test_a_wrong_name_or_field_is_one_line_with_the_fix(name, fields, message):
    with pytest.raises(ConvNeXtError) as error, torch.device("meta"):
        create(name, **fields)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_baseline_keeps_the_contract_of_our_own_networks(name):
    config = TimmConfig(name=name, classes=6, in_channels=1)
    with torch.device("meta"):
        model = build_model(config)
        x = torch.empty(2, 1, 224, 224)
        assert model.config == config
        assert model(x).shape == (2, 6)
        assert model.embed(x).shape == (2, model.network.num_features)
    assert [key for key in model.state_dict() if key.startswith(model.head_prefixes)]


def test_building_a_convnext_does_not_import_timm():
    code = "import sys, convnext.models.create; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
