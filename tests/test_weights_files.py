"""Loading: strict, with spoken adaptations; broken, foreign and dangerous files are refused in one line."""

import argparse
import os
import pickle

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from convnext.config import ConvNeXtConfig, TimmConfig
from convnext.deploy.forms import table
from convnext.errors import CheckpointError
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.models.create import create
from convnext.models.sources import find
from convnext.models.tensors import read_tensors
from convnext.models.weights import from_ours, load_weights
from convnext.recipes.architectures import ARCHITECTURES

SMALL = ConvNeXtConfig(name="small one", depths=(1, 1, 2, 1), widths=(4, 8, 12, 16), classes=10)


def changed(**fields) -> ConvNeXt:
    return ConvNeXt(SMALL.model_copy(update=fields))


def saved(path, model: ConvNeXt, format_name: str = "official"):
    torch.save({"model": from_ours(model.state_dict(), format_name, model.config)}, path)
    return str(path)


def load(model, source) -> list[str]:
    said: list[str] = []
    load_weights(model, str(source), info=said.append)
    assert all("\n" not in message for message in said)
    return said


def refusal(model, source) -> str:
    """The one line that `load_weights` refuses with; the model keeps its values."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load(model, source)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("format_name", ["convnext", "official", "timm", "timm_conv", "torchvision", "transformers"])
def test_weights_in_any_format_fill_the_network(tmp_path, format_name):
    source, model = changed(), changed()
    said = load(model, saved(tmp_path / "w.pth", source, format_name))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())
    assert said[-1].endswith(f"tensors read ('{format_name}' names).")


def test_half_precision_weights_are_read_into_single_precision(tmp_path):
    source, model = changed(), changed()
    save_file({key: value.half() for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    load(model, tmp_path / "w.safetensors")
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, source.head.weight.half().float())


def test_a_head_for_other_classes_is_replaced_by_the_fresh_one_and_said(tmp_path):
    source, model = changed(classes=1000), changed(classes=10)
    fresh = model.head.weight.clone()
    said = load(model, saved(tmp_path / "w.pth", source))
    assert said[0] == "head of 1,000 classes replaced by a new one for 10"
    assert torch.equal(model.head.weight, fresh) and torch.equal(model.norm.weight, source.norm.weight)
    assert torch.equal(model.stages[2].blocks[1].spatial.weight, source.stages[2].blocks[1].spatial.weight)


def test_a_network_without_a_head_leaves_the_head_out_and_says_so(tmp_path):
    model = changed(classes=0)
    assert load(model, saved(tmp_path / "w.pth", changed(classes=7)))[0].startswith("head of 7 classes left out")


def test_weights_without_a_head_leave_a_new_one_and_say_so(tmp_path):
    assert (
        load(changed(), saved(tmp_path / "w.pth", changed(classes=0)))[0] == "no head in the weights: a new one for 10"
    )


def test_a_stem_for_colour_is_summed_for_grey_images_and_gives_their_logits(tmp_path):
    source, model = changed().double(), changed(in_channels=1).double()
    said = load(model, saved(tmp_path / "w.pth", source))
    grey = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(grey), source(grey.expand(2, 3, 32, 32)))
    assert "summed" in said[0]


@pytest.mark.parametrize("asked", [2, 4, 6, 13])
def test_a_stem_for_colour_is_repeated_for_other_channels_and_sees_as_much_as_before(tmp_path, asked):
    """Where every channel shows the same, the answer is that of the same image in colour; and it is timm's rule."""
    source, model = changed().double(), changed(in_channels=asked).double()
    said = load(model, saved(tmp_path / "w.pth", source))
    kernel = source.stem.layers[0].weight.detach()
    theirs = timm.models.adapt_input_conv(asked, kernel)
    torch.testing.assert_close(model.stem.layers[0].weight, theirs)
    if asked % 3 == 0:
        grey = torch.randn(2, 1, 32, 32, dtype=torch.float64)
        torch.testing.assert_close(model(grey.expand(2, asked, 32, 32)), source(grey.expand(2, 3, 32, 32)))
    assert said[0] == f"stem for 3 channels repeated for {asked}, and scaled by 3/{asked}"


@pytest.mark.parametrize(("held", "asked"), [(1, 3), (4, 1), (4, 3)])
def test_other_input_channels_are_refused(tmp_path, held, asked):
    line = refusal(changed(in_channels=asked), saved(tmp_path / "w.pth", changed(in_channels=held)))
    assert (
        f"its stem reads {held} channel" in line
        and f" and the model {asked};" in line
        and f"in_channels = {held}" in line
    )


def test_another_depth_or_width_is_refused_with_both_architectures(tmp_path):
    line = refusal(changed(depths=(1, 1, 1, 1)), saved(tmp_path / "w.pth", changed()))
    assert "depths: (1, 1, 2, 1) held, (1, 1, 1, 1) asked" in line
    line = refusal(changed(widths=(4, 8, 12, 20)), saved(tmp_path / "w.pth", changed()))
    assert "widths: (4, 8, 12, 16) held, (4, 8, 12, 20) asked" in line


def test_a_published_network_in_the_file_is_named(tmp_path):
    source = saved(tmp_path / "w.pth", ConvNeXt(ARCHITECTURES["atto"]), "timm_conv")
    assert "Take the model 'atto'" in refusal(changed(), source)


def test_v2_weights_for_a_v1_network_are_refused(tmp_path):
    line = refusal(changed(), saved(tmp_path / "w.pth", changed(grn=True, layer_scale=None)))
    assert "grn: True held, False asked" in line


@pytest.mark.parametrize("fields", [{"stem": "overlap"}, {"patch": 2}])
def test_a_stem_of_another_kind_is_explained(tmp_path, fields):
    line = refusal(changed(**fields), saved(tmp_path / "w.pth", changed()))
    assert "its stem is a 'patch' stem of 4 px" in line and "Build the model with stem = patch and patch = 4" in line


def test_missing_extra_and_misshapen_tensors_are_named_five_at_most(tmp_path):
    state = from_ours(changed().state_dict(), "official", SMALL)
    for key in ("stages.2.0.dwconv.weight", "norm.bias"):
        del state[key]
    state["stages.1.0.pwconv1.bias"] = torch.zeros(3)
    state |= {f"extra.{i}": torch.zeros(1) for i in range(7)}
    torch.save(state, tmp_path / "w.pth")
    line = refusal(changed(), tmp_path / "w.pth")
    assert "2 missing: stages.2.blocks.0.spatial.weight, norm.bias" in line
    assert "7 not in the model: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more" in line
    assert "1 of another shape: stages.1.blocks.0.expand.bias (3,) instead of (32,)" in line


@pytest.mark.parametrize("key", ["downsample_layers.0.0.weight", "stages.0.0.gamma", "head.bias", "norm.weight"])
def test_any_single_missing_tensor_is_refused(tmp_path, key):
    state = from_ours(changed().state_dict(), "official", SMALL)
    del state[key]
    torch.save(state, tmp_path / "w.pth")
    refusal(changed(), tmp_path / "w.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    assert "not named as in any ConvNeXt" in refusal(changed(), tmp_path / "w.pth")


def test_a_stem_of_two_convolutions_from_timm_fits_a_network_that_has_it_and_is_explained_for_another(tmp_path):
    theirs = timm.models.convnext.ConvNeXt(depths=SMALL.depths, dims=SMALL.widths, num_classes=10, stem_type="overlap")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = changed(stem="pair")
    load(model, tmp_path / "w.pth")
    assert torch.equal(model.stem.layers[1].weight, theirs.stem[1].weight)
    assert "its stem is a 'pair' stem of 4 px" in refusal(changed(), tmp_path / "w.pth")


def test_a_baseline_reads_its_weights_under_timms_names_and_gets_a_new_head(tmp_path):
    theirs = timm.create_model("resnet18", num_classes=4)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = build_model(TimmConfig(name="resnet18", classes=3))
    said = load(model, tmp_path / "w.pth")
    assert said[0] == "head of 4 classes replaced by a new one for 3"
    assert torch.equal(model.network.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_create_loads_weights_and_says_what_it_adapted(tmp_path):
    source = saved(tmp_path / "w.pth", ConvNeXt(ARCHITECTURES["atto"]))
    said: list[str] = []
    create("atto", classes=2, weights=source, info=said.append)
    assert "head of 1,000 classes replaced by a new one for 2" in said


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, how):
    content = {"model": {"head.weight": torch.zeros(1)}, "bomb": Bomb(tmp_path / "hit")}
    if how == "pickle":
        (tmp_path / "w.pth").write_bytes(pickle.dumps(content["bomb"], protocol=2))
    else:
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=how == "torch")
    line = refusal(changed(), tmp_path / "w.pth")
    assert "never runs code" in line and "mkdir" in line
    assert not (tmp_path / "hit").exists()


def test_the_arguments_beside_the_weights_of_a_training_checkpoint_are_allowed(tmp_path):
    source, model = changed(), changed()
    torch.save({"model": source.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=4e-3)}, tmp_path / "w.pth")
    load(model, tmp_path / "w.pth")
    assert torch.equal(model.head.weight, source.head.weight)


def broken_files() -> dict[str, tuple[str, bytes, str]]:
    whole = save(changed().state_dict())
    return {
        "truncated safetensors": ("w.safetensors", whole[: len(whole) // 2], "truncated"),
        "safetensors cut in its header": ("w.safetensors", whole[:30], "truncated"),
        "empty": ("w.pth", b"", "empty (0 bytes)"),
        "html": ("w.pth", b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        "html called safetensors": ("w.safetensors", b"<html>gone</html>", "a web page"),
        "lfs pointer": ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "keras": ("w.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 80, "an HDF5 file"),
        "text": ("w.pth", b"hello there, this is not a file of weights", "w.pth"),
        "text called safetensors": ("w.safetensors", b"hello there, this is not it", "truncated or foreign"),
        "no tensors": ("w.safetensors", save({}), "holds no tensors"),
    }


@pytest.mark.parametrize("case", broken_files())
def test_a_broken_or_foreign_file_is_refused_with_the_reason(tmp_path, case):
    name, content, message = broken_files()[case]
    (tmp_path / name).write_bytes(content)
    line = refusal(changed(), tmp_path / name)
    assert message in line and name in line


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_torch_file_is_refused(tmp_path, share):
    torch.save(changed().state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: int(len(content) * share)])
    assert "w.pth" in refusal(changed(), tmp_path / "w.pth")


def test_a_torch_file_whose_numbers_changed_is_refused_by_its_own_checksums(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"head.weight": torch.linspace(0, 1, 4096)}, path)
    content = bytearray(path.read_bytes())
    at = content.index(torch.linspace(0, 1, 4096).numpy().tobytes()[4000:4064])
    content[at + 6] ^= 1  # another number, and a finite one
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: its record '\w+/data/0' differs from its own checksum"):
        read_tensors(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"epoch": 3}])
def test_a_torch_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="tensors"):
        read_tensors(tmp_path / "w.pth")


def test_a_missing_file_is_refused_with_the_nearest_and_a_folder_with_what_it_holds(tmp_path):
    (tmp_path / "best.safetensors").write_bytes(save(changed().state_dict()))
    assert "Did you mean 'best.safetensors'?" in refusal(changed(), tmp_path / "bset.safetensors")
    assert "No file" in refusal(changed(), tmp_path / "nowhere" / "best.safetensors")
    assert "is a folder" in refusal(changed(), tmp_path) and "best.safetensors" in refusal(changed(), tmp_path)


@pytest.mark.parametrize("suffix", [form.suffix for form in table.FORMS])
def test_an_exported_file_is_no_weights_to_start_from(tmp_path, suffix):
    (tmp_path / f"model{suffix}").write_bytes(b"whatever")
    with pytest.raises(CheckpointError, match="is exported already"):
        find(tmp_path / f"model{suffix}")
