"""Checkpoints of the released layout: every name has its place, round trips keep every bit, refusals name the tensor."""

import pytest
import torch

from convnext.config import ConvNeXtConfig, TimmConfig, UperNetConfig
from convnext.errors import CheckpointError
from convnext.recipes.architectures import architecture
from convnext.tasks.segmentation.checkpoint_names import from_official, load_official, to_official
from convnext.tasks.segmentation.segmenter import Segmenter

TINY = ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(4, 8, 12, 16), layer_scale=1.0, classes=0)
HEAD = UperNetConfig(classes=5, width=8, aux_width=4, norm="batch")


def network(head: UperNetConfig = HEAD, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    model = Segmenter(TINY, head)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape))  # variances are positive
    return model


def released(width: int = 512, classes: int = 150) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the heads of a released segmenter on 'tiny', written by hand from its modules."""
    shapes: dict[str, tuple[int, ...]] = {}

    def unit(name: str, channels: int, out: int, kernel: int) -> None:
        shapes[f"{name}.conv.weight"] = (out, channels, kernel, kernel)
        shapes.update({f"{name}.bn.{leaf}": (out,) for leaf in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    for i in range(4):
        unit(f"decode_head.psp_modules.{i}.1", 768, width, 1)
    unit("decode_head.bottleneck", 768 + 4 * width, width, 3)
    for i, channels in enumerate((96, 192, 384)):
        unit(f"decode_head.lateral_convs.{i}", channels, width, 1)
        unit(f"decode_head.fpn_convs.{i}", width, width, 3)
    unit("decode_head.fpn_bottleneck", 4 * width, width, 3)
    unit("auxiliary_head.convs.0", 384, 256, 3)
    for head, channels in (("decode_head", width), ("auxiliary_head", 256)):
        shapes[f"{head}.conv_seg.weight"], shapes[f"{head}.conv_seg.bias"] = (classes, channels, 1, 1), (classes,)
    return shapes


def test_the_released_names_and_shapes_are_those_of_the_layout():
    with torch.device("meta"):
        model = Segmenter(architecture("tiny"), UperNetConfig())
    theirs = {key: tuple(value.shape) for key, value in to_official(model.state_dict()).items()}
    assert {key: shape for key, shape in theirs.items() if not key.startswith("backbone.")} == released()
    inside = {key.removeprefix("backbone."): shape for key, shape in theirs.items() if key.startswith("backbone.")}
    assert inside["downsample_layers.0.0.weight"] == (96, 3, 4, 4) and inside["norm3.weight"] == (768,)
    assert inside["stages.2.8.pwconv1.weight"] == (1536, 384) and inside["stages.0.0.gamma"] == (96,)
    assert len(inside) == 182 - 4 + 8 and "norm.weight" not in inside  # a norm for each stage instead of norm and head


def test_names_go_there_and_back_with_every_bit():
    state = network().state_dict()
    back = from_official(to_official(state))
    assert set(back) == set(state) and all(torch.equal(back[key], state[key]) for key in state)


def test_a_file_of_the_released_layout_loads_and_says_the_same(tmp_path):
    source, model, said = network(seed=1), network(seed=2), []
    torch.save({"meta": {"CLASSES": ["a"]}, "state_dict": to_official(source.state_dict())}, tmp_path / "upernet.pth")
    load_official(model, tmp_path / "upernet.pth", info=said.append)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model.eval()(x), source.eval()(x))
    assert "tensors read" in said[-1]


def test_classifiers_for_other_classes_stay_as_they_were_built_and_it_is_said(tmp_path):
    source, model, said = network(seed=1), network(HEAD.model_copy(update={"classes": 3}), seed=2), []
    torch.save({"state_dict": to_official(source.state_dict())}, tmp_path / "upernet.pth")
    own = {key: value.clone() for key, value in model.state_dict().items() if ".classify." in key}
    load_official(model, tmp_path / "upernet.pth", info=said.append)
    after = model.state_dict()
    assert len(own) == 4 and all(torch.equal(after[key], value) for key, value in own.items())
    assert torch.equal(after["decoder.fuse.conv.weight"], source.state_dict()["decoder.fuse.conv.weight"])
    assert said[0] == "head of 5 classes replaced by a new one for 3"


def test_an_auxiliary_head_that_the_model_lacks_is_left_out_and_it_is_said(tmp_path):
    model, said = network(HEAD.model_copy(update={"aux_weight": 0.0})), []
    torch.save({"state_dict": to_official(network().state_dict())}, tmp_path / "upernet.pth")
    load_official(model, tmp_path / "upernet.pth", info=said.append)
    assert said[0] == "left out, as the network has none: auxiliary head"


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(tmp_path):
    theirs = to_official(network().state_dict())
    file = tmp_path / "upernet.pth"
    spoiled = {
        "decoder.fuse.conv.weight": {
            key: v for key, v in theirs.items() if key != "decode_head.fpn_bottleneck.conv.weight"
        },
        "decode_head.more.weight": {**theirs, "decode_head.more.weight": torch.zeros(2)},
        "backbone.norms.0.weight": {**theirs, "backbone.norm0.weight": torch.zeros(5)},
    }
    for name, tensors in spoiled.items():
        torch.save({"state_dict": tensors}, file)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as error:
            load_official(network(), file, info=print)
        assert "\n" not in str(error.value)


def test_weights_of_a_classifier_and_a_foreign_backbone_are_refused(tmp_path):
    torch.save({"model": {"downsample_layers.0.0.weight": torch.zeros(4, 3, 4, 4)}}, tmp_path / "classifier.pth")
    with pytest.raises(CheckpointError, match="no decode_head"):
        load_official(network(), tmp_path / "classifier.pth", info=print)
    other = Segmenter(TimmConfig(name="resnet18", classes=0), HEAD)
    with pytest.raises(CheckpointError, match="the backbone is no ConvNeXt"):
        load_official(other, tmp_path / "classifier.pth", info=print)
