"""What goes with weights: whose they are and under which licence, and the recipe and class names of the run that made them."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from commands import convnext, trained
from convnext.config import ConvNeXtConfig, DetectorHeadConfig
from convnext.deploy.convert import convert
from convnext.deploy.load import load
from convnext.engine import checkpoint
from convnext.errors import CheckpointError
from convnext.models.convert import read_weights
from convnext.models.convnext import ConvNeXt
from convnext.models.provenance import provenance, read_provenance
from convnext.tasks.detection.detector import Detector
from images import write_colours

RELEASED = "convnextv2_atto_1k_224_ema.pt"  # by this name the licence is known
V2 = ConvNeXtConfig(depths=(1, 1), widths=(8, 16), patch=2, layer_scale=None, grn=True, classes=10)
WORDS = ["--model.grn", "true", "--model.layer_scale", "none", "--model.stem", "patch"]
FOUR = ["--model.depths", "1,1,1,1", "--model.widths", "8,16,16,16", "--model.patch", 4, "--size", 64]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run from scratch that every library can hold."""
    out = tmp_path_factory.mktemp("scratch") / "run"
    trained(data, out, "--epochs", 1, "--model.stem", "patch", *FOUR)
    return out


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """A run that started from a released V2 network."""
    folder = tmp_path_factory.mktemp("tuned")
    torch.save({"model": ConvNeXt(V2).state_dict()}, folder / RELEASED)
    done = trained(data, folder / "run", "--epochs", 1, "--weights", folder / RELEASED, *WORDS)
    assert "CC-BY-NC-4.0" in done.err and "not for commercial use" in done.err
    return folder / "run"


def test_every_checkpoint_of_a_run_says_where_its_first_weights_came_from(tuned):
    for name in ("last", "best", "best_ema"):
        metadata = checkpoint.read_metadata(tuned / f"{name}.safetensors")
        assert (metadata["origin"], metadata["license"]) == (RELEASED, "CC-BY-NC-4.0")


def test_a_run_that_goes_on_keeps_its_origin_and_one_that_starts_from_it_inherits_it(data, tuned, tmp_path):
    shutil.copytree(tuned, tmp_path / "run")
    again = [
        "--epochs",
        1,
        "--weights",
        tmp_path / "gone.safetensors",
        *WORDS,
    ]  # not looked at: the run has its weights
    trained(data, tmp_path / "run", *again)
    assert checkpoint.read_metadata(tmp_path / "run" / "last.safetensors")["license"] == "CC-BY-NC-4.0"
    trained(data, tmp_path / "next", "--epochs", 1, "--weights", tmp_path / "run", *WORDS)
    known = read_provenance(str(tmp_path / "next" / "best.safetensors"))
    assert (known.origin, known.licence, known.known_by) == (RELEASED, "CC-BY-NC-4.0", "the metadata of the file")


def test_a_converted_fine_tuned_network_is_still_not_for_commercial_use(tuned, tmp_path):
    done = convnext("convert", tuned, tmp_path / "w.safetensors", "--to", "convnext", "--no-check")
    assert (
        f"licence: CC-BY-NC-4.0 (by the metadata of the file), from {RELEASED}. Commercial use is not allowed."
        in done.out
    )
    assert read_weights(tmp_path / "w.safetensors").provenance.licence == "CC-BY-NC-4.0"


def test_weights_of_a_run_from_scratch_are_called_by_the_run_and_are_ones_own(run, tmp_path):
    assert "license" not in checkpoint.read_metadata(run / "best.safetensors")
    known = read_provenance(str(run / "best.safetensors"))
    assert (known.origin, known.licence) == ("run/best.safetensors", "own weights")
    lines = convert(run, tmp_path / "w.safetensors", "timm").lines()
    assert "licence: own weights (by the run, which began with random weights), from run/best.safetensors." in lines
    assert provenance("x.safetensors", {"format": "convnext", "metadata": "no JSON"}).origin == "x.safetensors"


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("convnext", "w.safetensors"),
        ("official", "w.safetensors"),
        ("timm", "w.safetensors"),
        ("torchvision", "w.pth"),
        ("transformers", "folder"),
        ("mmpretrain", "w.pth"),
        ("keras-npz", "w.npz"),
    ],
)
def test_a_converted_run_alone_predicts_as_the_run_does(run, data, tmp_path, library, name):
    done = convert(run, tmp_path / name, library, check=False)
    assert done.to_dict()["predicts"] and any("`convnext predict` takes it" in line for line in done.lines())
    own, other = load(run, device="cpu"), load(tmp_path / name, device="cpu")
    assert other.classes == own.classes == ("blue", "green", "red") and other.recipe == own.recipe
    image = next((data / "val" / "red").iterdir())
    assert other(image).predictions == own(image).predictions


def test_a_run_that_went_through_another_library_is_a_run_again(run, tmp_path):
    convert(run, tmp_path / "w.npz", "keras-npz", check=False)
    convert(tmp_path / "w.npz", tmp_path / "back.safetensors", "convnext", check=False)
    metadata = checkpoint.read_metadata(tmp_path / "back.safetensors")
    before = checkpoint.read_metadata(run / "best.safetensors")
    assert all(metadata[key] == before[key] for key in ("recipe", "classes", "task", "score", "step"))
    assert metadata["origin"] == "run/best.safetensors"


def test_other_libraries_find_class_names_and_recipe_in_the_files_metadata(run, tmp_path):
    convert(run, tmp_path / "w.safetensors", "timm", check=False)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        header = file.metadata()
    assert json.loads(header["classes"]) == ["blue", "green", "red"]
    assert json.loads(header["run"])["recipe"]["input"]["eval_size_px"] == 64 and header["format"] == "pt"


def test_weights_without_a_run_still_do_not_predict(run, tmp_path):
    convert(run, tmp_path / "w.safetensors", "timm", check=False)
    plain = read_weights(tmp_path / "w.safetensors").state
    save_file(plain, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="holds weights without a run"):
        load(tmp_path / "plain.safetensors")


def test_a_detector_of_ours_gives_its_backbone_without_the_detectors_recipe(tmp_path):
    torch.manual_seed(0)
    backbone = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(4, 8, 12, 16), classes=0)
    model = Detector(backbone, DetectorHeadConfig(classes=2, channels=8, hidden=16))
    record = {"recipe": {"task": "detection"}, "classes": ["a", "b"], "origin": "x.pth", "license": "MIT"}
    checkpoint.save(tmp_path / "best.safetensors", model.state_dict(), record)
    held = read_weights(tmp_path / "best.safetensors")
    assert held.dense and held.notes[0].startswith("Only the backbone is converted; left out: fpn (")
    assert not held.record and held.provenance.licence == "MIT"
    assert torch.equal(held.state["norms.3.weight"], model.state_dict()["backbone.norms.3.weight"])
    done = convert(tmp_path / "best.safetensors", tmp_path / "w.pth", "official", check=False)
    assert not done.to_dict()["predicts"] and read_weights(done.out).dense
