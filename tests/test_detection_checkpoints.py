"""Released detection checkpoints: their names, and the way there and back."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from convnext.config import ConvNeXtConfig, UperNetConfig
from convnext.errors import CheckpointError
from convnext.models.build import build_model
from convnext.models.formats import FORMATS, their_names
from convnext.tasks.detection import row
from convnext.tasks.detection.build import detector_values
from convnext.tasks.detection.checkpoint_names import from_official, load_official, to_official
from convnext.tasks.detection.detector import Detector
from convnext.tasks.segmentation.segmenter import Segmenter
from convnext.tasks.weights import load_backbone
from detectors import BACKBONE, head, small_detector

# Names and shapes as the released Mask R-CNN and Cascade Mask R-CNN of 'tiny' have them
MASK_RCNN_TINY = {
    "backbone.downsample_layers.0.0.weight": (96, 3, 4, 4),
    "backbone.downsample_layers.3.1.bias": (768,),
    "backbone.stages.2.8.pwconv1.weight": (1536, 384),
    "backbone.stages.0.0.gamma": (96,),
    "backbone.norm0.weight": (96,),
    "backbone.norm3.bias": (768,),
    "neck.lateral_convs.3.conv.weight": (256, 768, 1, 1),
    "neck.fpn_convs.0.conv.bias": (256,),
    "rpn_head.rpn_conv.weight": (256, 256, 3, 3),
    "rpn_head.rpn_cls.weight": (3, 256, 1, 1),
    "rpn_head.rpn_reg.bias": (12,),
    "roi_head.bbox_head.shared_fcs.0.weight": (1024, 12544),
    "roi_head.bbox_head.shared_fcs.1.weight": (1024, 1024),
    "roi_head.bbox_head.fc_cls.weight": (81, 1024),
    "roi_head.bbox_head.fc_reg.weight": (320, 1024),
    "roi_head.mask_head.convs.3.conv.weight": (256, 256, 3, 3),
    "roi_head.mask_head.upsample.weight": (256, 256, 2, 2),
    "roi_head.mask_head.conv_logits.weight": (80, 256, 1, 1),
}
CASCADE_TINY = {
    "roi_head.bbox_head.0.shared_convs.0.conv.weight": (256, 256, 3, 3),
    "roi_head.bbox_head.2.shared_convs.3.bn.running_var": (256,),
    "roi_head.bbox_head.1.shared_convs.3.bn.num_batches_tracked": (),
    "roi_head.bbox_head.1.shared_fcs.0.weight": (1024, 12544),
    "roi_head.bbox_head.2.fc_reg.weight": (320, 1024),
    "roi_head.mask_head.2.conv_logits.bias": (80,),
}
OFFICIAL = re.compile(
    r"backbone\.(downsample_layers|stages|norm\d)\.\S+|neck\.(lateral|fpn)_convs\.\d\.conv\.(weight|bias)"
    r"|rpn_head\.rpn_(conv|cls|reg)\.(weight|bias)"
    r"|roi_head\.bbox_head\.(\d\.)?(shared_convs\.\d\.(conv\.weight|bn\.\w+)|(shared_fcs\.\d|fc_cls|fc_reg)\.(weight|bias))"
    r"|roi_head\.mask_head\.(\d\.)?(convs\.\d\.conv|upsample|conv_logits)\.(weight|bias)"
)


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def filled(kind: str, **fields: object) -> Detector:
    """A detector whose every tensor is random, as a generated checkpoint should be."""
    model = small_detector(kind, **fields)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand_like(value) if value.is_floating_point() else value + 5)
    return model


def checkpoint(model: Detector, path, **changes: Tensor) -> str:
    torch.save({"meta": {"epoch": 36}, "state_dict": to_official(model.state_dict()) | changes}, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    # backbone 178 + 8 of norms, neck 16, RPN 6; then the heads
    [
        ("mask_rcnn_tiny", MASK_RCNN_TINY, 186 + 16 + 6 + 8 + 12),
        ("cascade_tiny", CASCADE_TINY, 186 + 16 + 6 + 3 * (30 + 12)),
    ],
)
def test_a_detector_has_the_released_names_and_shapes(name, expected, count):
    with torch.device("meta"):
        state = Detector(*detector_values(name)).state_dict()
    theirs = to_official(state)
    assert shapes(theirs).items() >= expected.items() and len(theirs) == len(state) == count
    assert not [key for key in theirs if not OFFICIAL.fullmatch(key)]
    assert list(from_official(theirs)) == list(state)


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
@pytest.mark.parametrize("norm", ["sync", "group"])
def test_a_generated_checkpoint_loads_to_the_bit_and_detects_the_same(kind, norm, tmp_path):
    model, other = filled(kind, head_norm=norm), small_detector(kind, head_norm=norm)
    said: list[str] = []
    load_official(other, checkpoint(model, tmp_path / "released.pth"), info=said.append)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert "released names" in said[-1]


def test_names_of_the_newer_backbone_are_read_too(tmp_path):
    model, other = filled("mask_rcnn"), small_detector("mask_rcnn")
    state = {
        key.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv"): value
        for key, value in to_official(model.state_dict()).items()
    }
    torch.save({"state_dict": state}, tmp_path / "newer.pth")
    load_official(other, tmp_path / "newer.pth", info=lambda _: None)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_layers_for_other_classes_and_absent_mask_heads_are_said(tmp_path):
    path, said = checkpoint(filled("cascade"), tmp_path / "released.pth"), []
    fresh = Detector(BACKBONE, head("cascade", classes=5, masks=False))
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    load_official(fresh, path, info=said.append)
    assert said[0] == "left out, as the network has none: mask heads"
    assert said[1] == "head of 3 classes replaced by a new one for 5"
    changed = {key for key, value in fresh.state_dict().items() if not torch.equal(value, before[key])}
    assert "heads.box.0.linears.0.weight" in changed and not any("score" in key and "heads" in key for key in changed)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("cascade", {"neck.lateral_convs.0.conv.bias": torch.zeros(3)}, r"fpn\.lateral\.0\.bias \(3,\) instead"),
        ("mask_rcnn", {"neck.extra.weight": torch.zeros(1)}, r"not in the model: neck\.extra\.weight"),
        ("mask_rcnn", {"rpn_head.rpn_conv.bias": torch.zeros(3)}, r"rpn\.conv\.bias \(3,\) instead of \(16,\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_in_one_line(kind, changes, message, tmp_path):
    path = checkpoint(filled("mask_rcnn"), tmp_path / "released.pth", **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        load_official(small_detector(kind), path, info=lambda _: None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kinds", [("mask_rcnn", "cascade"), ("cascade", "mask_rcnn")])
def test_of_a_detector_of_another_kind_the_parts_that_fit_are_taken(kinds, tmp_path):
    source, said = filled(kinds[0]), []
    fresh = Detector(BACKBONE, head(kinds[1], classes=5))
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    load_official(fresh, checkpoint(source, tmp_path / "released.pth"), info=said.append)
    after, held = fresh.state_dict(), source.state_dict()
    taken = [key for key in after if not key.startswith("heads.")]
    assert all(torch.equal(after[key], held[key]) for key in taken)
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith("heads."))
    assert said[0] == "start fresh, as the weights have none that fit: box heads, mask heads"
    assert said[1].endswith(f"{len(taken)} tensors read (released names).") and len(said) == 2


@pytest.mark.parametrize("kinds", [("mask_rcnn", "cascade"), ("cascade", "mask_rcnn"), ("upernet", "cascade")])
def test_a_run_gives_what_fits_to_a_network_of_another_kind_or_task(kinds, tmp_path):
    source = Segmenter(BACKBONE, UperNetConfig(classes=3, width=8)) if kinds[0] == "upernet" else filled(kinds[0])
    model, said, file = small_detector(kinds[1]), [], tmp_path / "best.safetensors"
    save_file({key: value.clone() for key, value in source.state_dict().items()}, file)
    row.ROW.load(model, str(file), info=said.append)
    after, held = model.state_dict(), source.state_dict()
    shared = [key for key in after if key in held]
    assert {key.split(".")[0] for key in shared} == {"backbone"} | ({"fpn", "rpn"} if kinds[0] != "upernet" else set())
    assert all(torch.equal(after[key], held[key]) for key in shared)
    assert said[-1] == f"{file}: {len(shared)} tensors read (a network of this package)."


def test_what_is_no_detector_is_refused(tmp_path):
    torch.save(build_model(BACKBONE).state_dict(), tmp_path / "classifier.pth")
    with pytest.raises(CheckpointError, match="it has no roi_head"):
        load_official(small_detector(), tmp_path / "classifier.pth", info=lambda _: None)
    with pytest.raises(CheckpointError, match="no place for 'other'"):
        to_official({"other": torch.zeros(1)})


@pytest.mark.parametrize("form", ["official", "timm", "convnext"])
def test_a_backbone_starts_from_classification_weights_in_any_format(form, tmp_path):
    torch.manual_seed(5)
    config = ConvNeXtConfig(**{**BACKBONE.model_dump(), "classes": 10})
    classifier = build_model(config)
    torch.save(their_names(classifier.state_dict(), FORMATS[form]), tmp_path / "weights.pth")
    model, said = small_detector(), []
    load_backbone(model.backbone, tmp_path / "weights.pth", info=said.append)
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model.backbone.network.features(x).values(), classifier.features(x).values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert f"('{form}' names), 4 left out" in said[0]


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(build_model(BACKBONE.model_copy(update={"depths": (1, 1, 2, 1)})).state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(CheckpointError, match=r"depths: \(1, 1, 2, 1\) held, \(1, 1, 1, 1\) asked"):
        load_backbone(small_detector().backbone, tmp_path / "deeper.pth", info=lambda _: None)
