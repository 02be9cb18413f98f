"""Conversion: there and back to the bit, the same logits in every library that is installed, and honest refusals."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from convnext.config import ConvNeXtConfig
from convnext.deploy import convert as module
from convnext.deploy.convert import compare, convert
from convnext.engine import checkpoint
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.convert import LIBRARIES, Weights, express, lacks, read_weights
from convnext.models.convnext import ConvNeXt
from convnext.models.expected import expected_tensors
from convnext.models.formats import FORMATS, recognise
from convnext.models.libraries import transformers_config
from convnext.models.provenance import Provenance, provenance
from convnext.models.weights import load_weights
from convnext.recipes.architectures import ARCHITECTURES

V1 = ConvNeXtConfig(depths=(1, 2, 1, 1), widths=(4, 8, 12, 16), classes=10)
V2 = V1.model_copy(update={"layer_scale": None, "grn": True})
ISOTROPIC = ConvNeXtConfig(depths=(2,), widths=(4,), patch=16, stem_norm=False, classes=10)
NETWORKS = {
    "v1": (V1, False),
    "v1 headless": (V1.model_copy(update={"classes": 0}), False),
    "v1 backbone": (V1.model_copy(update={"classes": 0}), True),
    "v2": (V2, False),
    "v2 headless": (V2.model_copy(update={"classes": 0}), False),
    "v2 backbone": (V2.model_copy(update={"classes": 0}), True),
    "isotropic": (ISOTROPIC, False),
    "isotropic headless": (ISOTROPIC.model_copy(update={"classes": 0}), False),
    "isotropic without layer scale": (ISOTROPIC.model_copy(update={"layer_scale": None}), False),
    "grey": (V1.model_copy(update={"in_channels": 1}), False),
    "overlap stem": (V1.model_copy(update={"stem": "overlap"}), False),
    "atto": (ARCHITECTURES["atto"].model_copy(update={"classes": 3}), False),
}


def network(name: str) -> Weights:
    config, dense = NETWORKS[name]
    generator = torch.Generator().manual_seed(7)
    state = {
        key: 0.2 * torch.randn(value.shape, generator=generator) + ("norm" in key and key.endswith("weight"))
        for key, value in expected_tensors(config, dense=dense).items()
    }
    return Weights(state, config, dense, "convnext", Provenance("made here"))


def able(name: str) -> list[str]:
    config, dense = NETWORKS[name]
    weights = Weights({}, config, dense, "convnext", Provenance("made here"))
    return [library for library in LIBRARIES if not lacks(library, weights)]


def target(folder, library: str, name: str = "w"):
    return folder / f"{name}{'.npz' if library == 'keras-npz' else '.safetensors'}"


def written(folder, name: str, library: str = "convnext"):
    """A file of that network in that library's form."""
    weights = network(name)
    save_file(express(weights, "convnext"), folder / "start.safetensors")
    out = target(folder, library, f"source_{library}")
    convert(folder / "start.safetensors", out, library, check=False)
    return out


def identical(one, other) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[key].shape and value.dtype == other[key].dtype and torch.equal(value, other[key])
        for key, value in one.items()
    )


def content(path):
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {key: torch.from_numpy(file[key]) for key in file.files if key != "__metadata__"}
    return load_file(path)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "atto"])
def test_there_and_back_is_identical_to_the_bit_for_every_pair_that_can_hold_the_network(tmp_path, name):
    """Converting the file of one library for another gives the other's file, and that for all ordered pairs."""
    sources = {library: written(tmp_path, name, library) for library in able(name)}
    assert identical(content(sources["convnext"]), network(name).state)
    for one, source in sources.items():
        for other in sources:
            there = convert(source, target(tmp_path, other, "there"), other, check=False).out
            assert identical(content(there), content(sources[other])), f"{one} -> {other}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_number_format_is_kept(tmp_path, dtype):
    save_file({key: value.to(dtype) for key, value in network("v1").state.items()}, tmp_path / "w.safetensors")
    convert(tmp_path / "w.safetensors", tmp_path / "timm.safetensors", "timm", check=False)
    assert {value.dtype for value in load_file(tmp_path / "timm.safetensors").values()} == {dtype}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("library", ["official", "timm", "mmpretrain"])
@pytest.mark.parametrize("name", ["v1", "v1 headless"])
def test_every_container_holds_the_same(tmp_path, name, library, suffix):
    convert(written(tmp_path, name), tmp_path / f"w{suffix}", library, check=False)
    assert identical(read_weights(tmp_path / f"w{suffix}").state, network(name).state)


def test_what_each_library_can_hold_is_what_its_code_can_build():
    every = set(LIBRARIES)
    assert set(able("v1")) == set(able("v1 headless")) == every
    assert set(able("v1 backbone")) == {"official", "transformers", "mmpretrain", "convnext"}
    assert set(able("v2")) == every - {"torchvision", "keras-npz"}
    assert set(able("v2 backbone")) == set(able("v1 backbone"))
    assert set(able("isotropic")) == set(able("isotropic without layer scale")) == {"official", "convnext"}
    assert set(able("grey")) == every - {"torchvision"}
    assert set(able("overlap stem")) == {"convnext"}


@pytest.mark.parametrize(
    ("name", "library"),
    [(name, each) for name in NETWORKS for each in ("timm", "torchvision", "transformers") if each in able(name)],
)
def test_the_logits_of_source_and_result_agree_in_the_installed_libraries(tmp_path, name, library):
    out = target(tmp_path, library)
    convert(written(tmp_path, name), out, library, check=False)
    comparison = compare(network(name), out, library, side_px=64)
    assert comparison.difference is not None and comparison.difference < 1e-5
    assert f"convnext against {library}" in comparison.note


@pytest.mark.parametrize(("one", "other"), [("timm", "torchvision"), ("torchvision", "transformers")])
def test_a_foreign_source_runs_in_its_own_library(tmp_path, one, other):
    source, out = written(tmp_path, "v1", one), tmp_path / "w.safetensors"
    convert(source, out, other, check=False)
    comparison = compare(read_weights(source), out, other, side_px=64)
    assert comparison.difference is not None and comparison.difference < 1e-5
    assert f"{one} against {other}" in comparison.note


def test_a_wrong_result_shows_in_the_comparison(tmp_path):
    out = target(tmp_path, "timm")
    convert(written(tmp_path, "v1"), out, "timm", check=False)
    wrong = network("v1")
    wrong.state["head.bias"][0] += 1
    comparison = compare(wrong, out, "timm", side_px=64)
    assert comparison.difference == pytest.approx(1, abs=1e-4)
    assert "IT DIFFERS" in compare(wrong, convert(out, tmp_path / "o.safetensors", "official").out, "official").note


def test_where_a_library_is_missing_the_reason_is_given_and_the_tensors_are_compared(tmp_path, monkeypatch):
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr("convnext.models.libraries.import_module", missing)
    done = convert(written(tmp_path, "v1"), tmp_path / "w.safetensors", "timm")
    assert done.comparison.difference is None and "timm is not installed" in done.comparison.note
    assert "to the bit" in done.comparison.note
    done = convert(written(tmp_path, "v1"), tmp_path / "w.safetensors", "official")
    assert done.comparison.difference is None and "no installable package" in done.comparison.note


def test_transformers_default_eps_of_the_final_norm_is_written_over_and_explained(tmp_path):
    """With small features, 1e-12 instead of 1e-6 under the root is visible; config.json keeps ours."""
    weights = network("v1")
    for key in weights.state:
        if key.startswith(("stages.3.", "stem.")):
            weights.state[key] *= 0.01
    save_file(weights.state, tmp_path / "small.safetensors")
    done = convert(tmp_path / "small.safetensors", tmp_path / "folder", "transformers")
    assert done.comparison.difference < 1e-5 and "1e-12" in done.comparison.note
    config = json.loads((tmp_path / "folder" / "config.json").read_text("utf-8"))
    assert config["layer_norm_eps"] == 1e-6
    default = float(done.comparison.note.partition("makes it ")[2].split()[0].rstrip("."))
    assert default > 100 * max(done.comparison.difference, 1e-9)


def test_another_eps_in_the_config_of_a_source_is_kept_for_transformers_and_told_to_others(tmp_path):
    convert(written(tmp_path, "v1"), tmp_path / "one", "transformers", check=False)
    config = (tmp_path / "one" / "config.json").read_text("utf-8")
    (tmp_path / "one" / "config.json").write_text(config.replace("1e-06,", "1e-12,", 1), "utf-8")
    convert(tmp_path / "one", tmp_path / "two", "transformers", check=False)
    assert json.loads((tmp_path / "two" / "config.json").read_text("utf-8"))["layer_norm_eps"] == 1e-12
    done = convert(tmp_path / "one", tmp_path / "w.safetensors", "timm")
    assert done.comparison.difference < 1e-5 and "The source's config.json says 1e-12" in done.comparison.note


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v1", "ConvNextForImageClassification"),
        ("v2", "ConvNextV2ForImageClassification"),
        ("v1 headless", "ConvNextModel"),
        ("v2 headless", "ConvNextV2Model"),
        ("v1 backbone", "ConvNextBackbone"),
        ("v2 backbone", "ConvNextV2Backbone"),
    ],
)
def test_a_folder_for_transformers_loads_without_a_network(tmp_path, name, kind):
    done = convert(written(tmp_path, name), tmp_path / "folder", "transformers", check=False)
    model, report = getattr(transformers, kind).from_pretrained(
        tmp_path / "folder", local_files_only=True, output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert identical(express(network(name), "transformers"), dict(model.state_dict()))
    assert transformers_config(done.weights)["architectures"] == [kind]
    assert sorted(each.name for each in (tmp_path / "folder").iterdir()) == ["config.json", "model.safetensors"]
    assert identical(read_weights(tmp_path / "folder").state, network(name).state)


def test_timm_builds_from_the_file(tmp_path):
    convert(written(tmp_path, "atto"), tmp_path / "w.safetensors", "timm", check=False)
    model = timm.create_model("convnext_atto", num_classes=3, checkpoint_path=tmp_path / "w.safetensors")
    assert identical(express(network("atto"), "timm"), dict(model.state_dict()))


def test_torchvision_loads_a_pickle_of_tensors_alone(tmp_path):
    convert(written(tmp_path, "v1"), tmp_path / "w.pth", "torchvision", check=False)
    settings = [
        torchvision.models.convnext.CNBlockConfig(*each)
        for each in zip(V1.widths, (8, 12, 16, None), V1.depths, strict=True)
    ]
    model = torchvision.models.ConvNeXt(settings, num_classes=10)
    model.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    assert torch.equal(model.classifier[2].bias, network("v1").state["head.bias"])


def test_the_training_command_reads_every_converted_file(tmp_path):
    for library in able("v1"):
        out = convert(written(tmp_path, "v1"), target(tmp_path, library), library, check=False).out
        model = ConvNeXt(V1)
        load_weights(model, str(out), info=lambda _: None)
        assert identical(dict(model.state_dict()), network("v1").state)


KERAS_SHAPES = {  # of keras.applications.convnext for depths (1, 2, 1, 1) and widths (4, 8, 12, 16), as Keras 3.15 says
    "convnext_stem_conv/kernel": (4, 4, 3, 4),
    "convnext_stem_conv/bias": (4,),
    "convnext_stem_layernorm/gamma": (4,),
    "convnext_stem_layernorm/beta": (4,),
    "convnext_downsampling_layernorm_0/gamma": (4,),
    "convnext_downsampling_conv_0/kernel": (2, 2, 4, 8),
    "convnext_downsampling_conv_2/kernel": (2, 2, 12, 16),
    "convnext_stage_1_block_1_depthwise_conv/kernel": (7, 7, 1, 8),
    "convnext_stage_1_block_1_depthwise_conv/bias": (8,),
    "convnext_stage_1_block_1_layernorm/beta": (8,),
    "convnext_stage_1_block_1_pointwise_conv_1/kernel": (8, 32),
    "convnext_stage_1_block_1_pointwise_conv_1/bias": (32,),
    "convnext_stage_1_block_1_pointwise_conv_2/kernel": (32, 8),
    "convnext_stage_1_block_1_layer_scale/gamma": (8,),
    "convnext_head_layernorm/gamma": (16,),
    "convnext_head_dense/kernel": (16, 10),
    "convnext_head_dense/bias": (10,),
}


def test_arrays_for_keras_are_named_and_laid_out_as_its_layers_are(tmp_path):
    arrays = content(written(tmp_path, "v1", "keras-npz"))
    state = network("v1").state
    assert {key: tuple(arrays[key].shape) for key in KERAS_SHAPES} == KERAS_SHAPES
    assert len(arrays) == len(state)
    kernel = arrays["convnext_downsampling_conv_0/kernel"]
    assert kernel[1, 0, 2, 5] == state["stages.1.downsample.conv.weight"][5, 2, 1, 0]
    dense = arrays["convnext_stage_1_block_1_pointwise_conv_1/kernel"]
    assert dense[3, 20] == state["stages.1.blocks.1.expand.weight"][20, 3]


def test_keras_calls_a_published_network_and_the_norm_of_a_headless_one_by_its_own_names():
    config = ARCHITECTURES["tiny"].model_copy(update={"classes": 0})
    arrays = express(replace(network("v1 headless"), config=config, state=dict(expected_tensors(config))), "keras-npz")
    assert "convnext_tiny_stage_2_block_8_layer_scale/gamma" in arrays
    assert "layer_normalization/gamma" in arrays and not any("head" in key for key in arrays)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with NumPy 2
def test_a_keras_model_gives_the_same_logits(tmp_path):
    """Runs where Keras is installed beside this package; `fill_keras` needs every array and finds it."""
    keras = pytest.importorskip("keras")
    weights = replace(network("v1"), config=ARCHITECTURES["tiny"].model_copy(update={"classes": 5}))
    generator = torch.Generator().manual_seed(3)
    state = {
        key: torch.randn(v.shape, generator=generator) * 0.03 for key, v in expected_tensors(weights.config).items()
    }
    save_file(state, tmp_path / "w.safetensors")
    done = convert(tmp_path / "w.safetensors", tmp_path / "w.npz", "keras-npz")
    assert keras and done.comparison.difference is not None and done.comparison.difference < 1e-5


def test_a_released_detector_gives_its_backbone_and_says_what_it_leaves_out(tmp_path):
    backbone = express(network("v1 backbone"), "official")
    assert {"backbone.norm0.weight", "backbone.norm3.bias", "backbone.stages.1.1.dwconv.weight"} <= set(backbone)
    others = {"neck.fpn_convs.0.conv.weight": torch.zeros(3), "rpn_head.rpn_cls.bias": torch.zeros(3)}
    torch.save({"meta": {"epoch": 36}, "state_dict": backbone | others}, tmp_path / "mask_rcnn.pth")
    done = convert(tmp_path / "mask_rcnn.pth", tmp_path / "w.safetensors", "transformers", check=False)
    assert "left out: neck (1 tensor), rpn_head (1 tensor)" in done.lines()[1]
    assert {f"hidden_states_norms.stage{s}.weight" for s in (1, 2, 3, 4)} <= set(load_file(done.out))
    assert identical(read_weights(done.out).state, network("v1 backbone").state)


def test_mmpretrain_calls_the_final_norm_as_the_last_stages_and_it_is_not_taken_for_a_backbones():
    state = express(network("v1"), "mmpretrain")
    assert {"backbone.norm3.weight", "head.fc.weight", "backbone.stages.0.0.pointwise_conv1.bias"} <= set(state)
    assert recognise(state) == "mmpretrain"


def refusal(source, out, library: str) -> str:
    with pytest.raises(ConvNeXtError) as error:
        convert(source, out, library)
    assert "\n" not in str(error.value) and not os.path.exists(out)
    return str(error.value)


KEYS = ("stem", "stages.1.downsample.norm.weight", "stages.1.blocks.0.norm.weight", "stages.0.blocks.0.spatial.bias")
KEYS += ("stages.2.blocks.0.expand.weight", "head.weight", "head.bias", "stem.norm.bias", "norm.weight")


@pytest.mark.parametrize("library", ["official", "timm", "torchvision", "transformers"])
@pytest.mark.parametrize("key", KEYS)
def test_a_missing_an_extra_and_a_misshapen_tensor_are_named_as_in_the_file(tmp_path, library, key):
    ours = "stem.layers.0.weight" if key == "stem" else key
    state = express(network("v1"), library)
    name = next(iter(express_one(ours, library)))
    cases = {
        f"1 missing: {name}": {k: v for k, v in state.items() if k != name},
        "1 not in the model: stages.0.surprise": state | {"stages.0.surprise": torch.zeros(2)},
        f"1 of another shape: {name}": state | {name: torch.cat([state[name], state[name][:1]])},
    }
    for message, changed in cases.items():
        save_file(changed, tmp_path / "w.safetensors")
        line = refusal(tmp_path / "w.safetensors", tmp_path / "out.safetensors", "timm")
        if ours == "head.weight" and message.startswith("1 of another"):
            message = "1 of another shape: "  # one class more in the weight or one less in the bias: either is named
        assert message in line and str(tmp_path / "w.safetensors") in line


def express_one(key: str, library: str):
    state = network("v1").state
    everything = express(network("v1"), library)
    return {name: 0 for name, ours in zip(everything, state, strict=True) if ours == key}


@pytest.mark.parametrize(
    ("name", "library", "message"),
    [
        ("v2", "torchvision", "torchvision has no V2 block"),
        ("v2", "keras-npz", "keras-npz has no V2 block"),
        ("isotropic", "timm", "timm has no isotropic network"),
        ("isotropic", "transformers", "Take --to official or convnext."),
        ("v1 backbone", "timm", "Take --to official, transformers, mmpretrain or convnext."),
        ("overlap stem", "official", "official has no overlap stem"),
        ("grey", "torchvision", "stem for 1 channel"),
        ("v1", "torchvison", "Did you mean 'torchvision'?"),
    ],
)
def test_a_library_that_cannot_hold_the_network_is_refused_with_those_that_can(tmp_path, name, library, message):
    assert message in refusal(written(tmp_path, name), target(tmp_path, library, "out"), library)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path):
    torch.save({"model": network("v1").state, "bomb": Bomb(tmp_path / "hit")}, tmp_path / "w.pth")
    assert "never runs code" in refusal(tmp_path / "w.pth", tmp_path / "out.safetensors", "timm")
    np.savez(tmp_path / "w.npz", bomb=np.array([Bomb(tmp_path / "hit")], dtype=object))
    assert "never runs code" in refusal(tmp_path / "w.npz", tmp_path / "out.safetensors", "timm")
    assert not (tmp_path / "hit").exists()


def test_broken_archives_of_arrays_are_refused(tmp_path):
    whole = written(tmp_path, "v1", "keras-npz").read_bytes()
    for share in (0.3, 0.99):
        (tmp_path / "w.npz").write_bytes(whole[: int(len(whole) * share)])
        assert "w.npz" in refusal(tmp_path / "w.npz", tmp_path / "out.safetensors", "timm")


@pytest.mark.parametrize(
    ("out", "library", "message"),
    [
        ("w.npz", "timm", "name end in .safetensors"),
        ("w.safetensors", "keras-npz", "name end in .npz"),
        ("w.h5", "official", "name end in .safetensors"),
        ("w", "timm", "name end in .safetensors"),
    ],
)
def test_a_suffix_that_cannot_hold_the_weights_is_refused(tmp_path, out, library, message):
    assert message in refusal(written(tmp_path, "v1"), tmp_path / out, library)


def test_source_and_result_may_not_be_one_file(tmp_path):
    source = written(tmp_path, "v1")
    with pytest.raises(ConvNeXtError, match="both source and result"):
        convert(source, source, "timm")
    assert identical(load_file(source), network("v1").state)


@pytest.mark.parametrize(
    ("out", "library"), [("w.safetensors", "timm"), ("w.pth", "timm"), ("w.npz", "keras-npz"), ("w", "transformers")]
)
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch, out, library):
    def full(*_):
        raise OSError(28, "No space left on device")

    source, path = written(tmp_path, "v1"), tmp_path / out
    path.mkdir() if library == "transformers" else path.write_bytes(b"before")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\. Make room"):
        convert(source, path, library)
    assert sorted(tmp_path.rglob("*")) == before and (path.is_dir() or path.read_bytes() == b"before")


def test_a_folder_that_cannot_be_finished_does_not_appear(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    source = written(tmp_path, "v1")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(module, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "folder", "transformers")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "licence"),
    [
        ("hub:facebook/convnext-tiny-224", "MIT"),
        ("hub:facebook/convnext-base-384-22k-1k", "MIT"),
        ("hub:timm/convnext_large.fb_in22k_ft_in1k_384", "MIT"),
        ("hub:timm/convnext_atto.d2_in1k", "unknown"),
        ("hub:timm/convnext_base.clip_laion2b", "unknown"),
        ("hub:facebook/convnextv2-tiny-22k-384", "CC-BY-NC-4.0"),
        ("hub:timm/convnextv2_atto.fcmae_ft_in1k", "CC-BY-NC-4.0"),
        ("hub:somebody/convnext-tiny-224", "unknown"),
        ("folder/convnext_xlarge_22k_1k_384_ema.pth", "MIT"),
        ("convnext_iso_small_1k_224_ema.pth", "MIT"),
        ("convnextv2_nano_22k_384_ema.pt", "CC-BY-NC-4.0"),
        ("cascade_mask_rcnn_convnext_base_22k_3x.pth", "MIT"),
        ("mine.safetensors", "unknown"),
    ],
)
def test_the_licence_of_the_released_weights_is_known_and_of_others_is_not(source, licence):
    assert provenance(source, {}).licence == licence


def test_weights_from_the_hub_carry_its_name_and_licence(tmp_path, monkeypatch):
    convert(written(tmp_path, "v1"), tmp_path / "model.safetensors", "transformers", check=False)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")  # without our metadata
    monkeypatch.setattr("convnext.models.hub.download", lambda _: tmp_path / "model.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = convert("hub:facebook/convnext-tiny-224", tmp_path / "w.safetensors", "timm", check=False)
    assert done.lines()[1] == "licence: MIT (by the name of the repository), from hub:facebook/convnext-tiny-224."


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_licence_travels_through_a_chain_of_conversions(tmp_path, suffix):
    state = express(network("v2"), "official")
    torch.save({"model": state}, tmp_path / "convnextv2_atto_1k_224_ema.pt")
    first = convert(tmp_path / "convnextv2_atto_1k_224_ema.pt", tmp_path / f"a{suffix}", "timm", check=False)
    assert "Commercial use is not allowed" in first.lines()[1]
    convert(first.out, tmp_path / "b.safetensors", "transformers", check=False)
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["license"] == "CC-BY-NC-4.0" and header["origin"] == "convnextv2_atto_1k_224_ema.pt"
    assert header["format"] == "pt" and header["library"] == "transformers"


def test_arrays_for_keras_carry_the_licence_too(tmp_path):
    source = written(tmp_path, "v1").rename(tmp_path / "convnext_tiny_1k_224_ema.safetensors")
    header = {"license": "MIT", "origin": "a file"}
    save_file(load_file(source), source, header)
    convert(source, tmp_path / "w.npz", "keras-npz", check=False)
    assert provenance("w.npz", read_header(tmp_path / "w.npz")).licence == "MIT"


def read_header(path):
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["__metadata__"]))


def test_a_run_gives_its_best_weights_its_class_names_and_stays_a_run(tmp_path):
    classes = [f"class {i}" for i in range(10)]
    worse = {key: torch.zeros_like(value) for key, value in network("v1").state.items()}
    for name, tensors, top1 in (("best", worse, 0.1), ("best_ema", network("v1").state, 0.2)):
        record = {"recipe": {"any": 1}, "classes": classes, "score": top1, "state": {"step": 3}}
        checkpoint.save(tmp_path / "run" / f"{name}.safetensors", tensors, record)
    done = convert(tmp_path / "run", tmp_path / "folder", "transformers", check=False)
    config = json.loads((tmp_path / "folder" / "config.json").read_text("utf-8"))
    assert config["id2label"]["7"] == "class 7" and identical(done.weights.state, network("v1").state)
    assert read_weights(tmp_path / "folder").classes == tuple(classes)
    convert(tmp_path / "run", tmp_path / "w.safetensors", "convnext", check=False)
    tensors, metadata = checkpoint.read(tmp_path / "w.safetensors")
    assert identical(tensors, network("v1").state) and metadata["classes"] == classes and "state" not in metadata


def test_the_checkpoint_of_a_running_run_gives_its_model(tmp_path):
    tensors = checkpoint.under("model", network("v1").state) | {"optimizer/0": torch.zeros(3)}
    checkpoint.save(tmp_path / "last.safetensors", tensors, {"classes": []})
    assert identical(read_weights(tmp_path / "last.safetensors").state, network("v1").state)


def test_what_was_done_is_told_in_lines_and_in_json(tmp_path):
    done = convert(written(tmp_path, "v1"), tmp_path / "w.safetensors", "timm")
    assert done.lines()[0].startswith("classifier 'custom', depths (1, 2, 1, 1)")
    assert "licence: unknown" in done.lines()[1] and "timm" in done.lines()[2]
    assert json.loads(json.dumps(done.to_dict()))["max_logit_difference"] < 1e-5


def test_every_format_is_written_for_some_library_or_read_only_as_a_variant():
    assert set(FORMATS) - {"convnext"} == {
        *("official", "official_isotropic", "timm", "timm_conv", "torchvision", "transformers", "transformers_v2"),
        *("transformers_bare", "transformers_v2_bare", "mmpretrain", "mmpretrain_dense", "keras"),
        *("timm_ols", "timm_ols_conv", "timm_ols_act", "timm_ols_act_conv"),
        *("transformers_dinov3", "transformers_dinov3_bare"),
    }
