"""`convnext push`: what is written loads here, in transformers and in timm with the same logits, and its card tells no lie."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import convnext as package
from checkpoints import checkpoint_of
from commands import convnext, trained
from convnext.deploy.load import load
from convnext.deploy.push.run_card import write_run_card
from convnext.engine import checkpoint
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.recipes import recipe
from convnext.tasks.table import row_of
from hub import serving
from images import write_colours

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")  # huggingface_hub's own use of httpx
FOUR = (
    "--model.depths",
    "1,1,1,1",
    "--model.widths",
    "8,16,24,32",
    "--model.patch",
    4,
    "--model.stem",
    "patch",
    "--size",
    32,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four stages, which transformers and timm can build, and its files."""
    folder = tmp_path_factory.mktemp("place")
    write_colours(folder / "pets", size=40)
    trained(folder / "pets", folder / "run", *FOUR)
    done = convnext("push", folder / "run", "me/pets", "--license", "MIT")
    assert done.status == 0, done.err
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving(tmp_path / "cache", monkeypatch) as server:
        server.token = "mine"
        monkeypatch.setenv("HF_TOKEN", "mine")
        yield server


@pytest.fixture(scope="module")
def expected(place) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images, and the run's logits."""
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return x, load(place / "run", device="cpu", plain=True).model(x)


def head_of(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---")[1]))


def with_metadata(run: Path, out: Path, **changed: Any) -> Path:
    """A copy of a run whose checkpoints say something else."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("hub"))
    for file in out.glob("best*.safetensors"):
        tensors, metadata = checkpoint.read(file)
        checkpoint.save(file, tensors, metadata | changed)
    return out


def test_nothing_is_uploaded_unless_asked_and_all_that_would_be_is_shown(place, hub):
    done = convnext("push", place / "run", "me/pets", "--license", "MIT")
    assert done.status == 0 and not hub.asked
    assert "Nothing was uploaded." in done.out and "'me/pets', private" in done.out
    assert "Names of classes in it: blue, green, red" in done.out
    assert done.out.startswith("---\n") and "# pets" in done.out  # the card
    for name in ("README.md", "model.safetensors", "config.json", "preprocessor_config.json", "timm/model.safetensors"):
        assert (place / "run" / "hub" / name).is_file() and f"  {name} " in done.out
    found = json.loads(convnext("push", place / "run", "me/pets", "--license", "MIT", "--json").out)
    assert (found["uploaded"], found["private"], found["libraries"]) == (None, True, ["transformers", "timm"])


def test_transformers_loads_the_folder_with_the_same_logits_names_and_pixels(place, expected):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForImageClassification.from_pretrained(place / "run" / "hub").eval()
    x, logits = expected
    with torch.inference_mode():
        assert torch.allclose(model(x).logits, logits, atol=1e-5)
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    predictor = load(place / "run", device="cpu", plain=True)
    image = np.random.default_rng(0).integers(0, 256, (48, 60, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    processor = transformers.AutoImageProcessor.from_pretrained(place / "run" / "hub", use_fast=False)
    seen = torch.as_tensor(np.asarray(processor(Image.fromarray(image))["pixel_values"][0]))
    ours = predictor.read(package.deploy.images.one_image(image, predictor.recipe.input)).shown
    mean, std = (
        torch.tensor(value)[:, None, None] for value in (predictor.recipe.input.mean, predictor.recipe.input.std)
    )
    theirs = (seen * std + mean) * 255
    assert (theirs - torch.from_numpy(ours).permute(2, 0, 1)).abs().max() < 2  # grey levels


def test_timm_loads_the_folder_of_its_names_with_the_same_logits(place, expected):
    timm = pytest.importorskip("timm")
    x, logits = expected
    model = timm.create_model(f"local-dir:{place / 'run' / 'hub' / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.allclose(model(x), logits, atol=1e-5)
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 32, 32)


@pytest.mark.parametrize("channels", [3, 1])
def test_a_published_size_of_v2_loads_in_both_libraries_by_its_own_name(tmp_path, channels):
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    made = recipe("finetune", "v2_atto", images=100, image_px=64, classes=5, in_channels=channels)
    torch.manual_seed(0)
    model = row_of("classification").build(made)
    with torch.no_grad():
        for parameter in model.parameters():  # GRN begins as nothing
            parameter.add_(0.02 * torch.randn_like(parameter))
    metadata = {"recipe": made.model_dump(mode="json"), "task": "classification", "classes": list("abcde")}
    checkpoint.save(tmp_path / "best.safetensors", model.state_dict(), metadata)
    folder, x = package.push(tmp_path, "me/x").folder, torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        logits = model.eval()(x)
        theirs = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
        assert theirs.default_cfg["architecture"] == "convnextv2_atto" and torch.allclose(theirs(x), logits, atol=1e-5)
        theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        assert torch.allclose(theirs(x).logits, logits, atol=1e-5)
    assert (folder / "preprocessor_config.json").exists() == (channels == 3)


def test_what_is_uploaded_is_private_and_loads_by_its_name_here_and_in_timm(place, hub, expected, monkeypatch):
    timm = pytest.importorskip("timm")
    done = convnext("push", place / "run", "me/pets", "--license", "MIT", "--yes")
    assert done.status == 0, done.err
    assert hub.private == {"me/pets": True} and f"Uploaded to {hub.address}/me/pets." in done.out
    folder = place / "run" / "hub"
    sent = {name.removeprefix("me/pets/"): content for name, content in hub.files.items()}
    assert sent == {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    image = next((place / "pets" / "val").rglob("*.png"))
    assert package.load("hub:me/pets", device="cpu")(image).scored == load(place / "run", device="cpu")(image).scored
    assert package.create(weights="hub:me/pets", info=lambda _: None).head.out_features == 3
    assert "blue" in convnext("predict", "hub:me/pets", image).out
    assert "Nothing that it promises is broken." in convnext("verify", "hub:me/pets", place / "pets").out
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    model = timm.create_model("hf-hub:me/pets", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.allclose(model(expected[0]), expected[1], atol=1e-5)


def test_a_pushed_run_promises_what_the_run_does(place):
    found = package.verify(place / "run" / "hub", place / "pets")
    by = {each.name: each for each in found.findings}
    assert found.holds and by["top-1"].measured == by["images"].measured == "the same"


def test_the_card_says_what_evaluation_json_says(place):
    card = (place / "run" / "hub" / "README.md").read_text()
    held = json.loads((place / "run" / "evaluation.json").read_text())
    assert head_of(card) == {
        "pipeline_tag": "image-classification",
        "tags": ["convnext", "transformers", "timm"],
        "library_name": "transformers",
        "license": "mit",
        "metrics": ["top1"],
    }
    assert f"| top-1 | {100 * held['top1']:.1f} % |" in card and "| 12 images, held out |" in card
    for row in held["per_class"]:
        assert f"| {row['name']} | {row['n']} | {100 * row['recall']:.1f} % |" in card
    assert "36 images, with 12 others held out, from random weights" in card
    assert "no weights of others are in it" in card and "Few held-out images" in card
    assert str(place) not in card and "000.png" not in card  # no path of anybody's disk


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_dense_runs_have_a_card_with_their_figures(tmp_path, task):
    file = checkpoint_of(task, tmp_path)
    tensors, metadata = checkpoint.read(file)
    checkpoint.save(file, tensors, metadata | {"weights": "raw", "step": 3})
    figure, title = {"detection": ("box_ap", "box AP"), "segmentation": ("miou", "mIoU")}[task]
    rows = [{"name": "a", "objects": 7, figure: 0.25}, {"name": "b", "objects": 0, figure: None}]
    found = {
        "task": task,
        "n": 30,
        figure: 0.25,
        "intervals": {figure: [0.2, 0.3]},
        "classes": ["a", "b"],
        "per_class": rows,
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(found | {"weights": "raw", "step": 3}))
    card = write_run_card(tmp_path).read_text()
    assert f"| {title} | 25.0 % | 20.0 % to 30.0 % | 30 images, held out |" in card
    assert "Nothing is known of b" in card and f'convnext.load("{tmp_path.name}")' in card


def test_a_run_has_its_card_and_says_in_it_what_the_pushed_one_does(place):
    own, pushed = (place / "run" / "model_card.md").read_text(), (place / "run" / "hub" / "README.md").read_text()
    start, end = "## How good it is", "## Licence"
    assert own[own.index(start) : own.index(end)] == pushed[pushed.index(start) : pushed.index(end)]
    assert head_of(own)["tags"] == ["convnext"] and 'convnext.load("run")' in own


def test_names_in_a_card_can_be_no_markup(place, tmp_path):
    names = ["<script>alert(1)</script>", "a | b\n# c", "[x](http://example.com)"]
    run = with_metadata(place / "run", tmp_path / "run", classes=names)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["classes"] = names
    for row, name in zip(evaluation["per_class"], names, strict=True):
        row["name"] = name
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    card = package.push(run, "me/pets").card
    assert "<script>" not in card and "\n# c" not in card and "[x](" not in card
    assert "&lt;script&gt;" in card


def test_an_unknown_licence_is_asked_for_and_a_narrow_one_is_kept(place, tmp_path):
    unknown = package.push(with_metadata(place / "run", tmp_path / "u", origin="w.pth", license="unknown"), "me/u")
    assert "whose licence is **unknown**. Ask" in unknown.card and "license" not in head_of(unknown.card)
    assert any("is unknown: ask before you publish" in note for note in unknown.notes)
    narrow = {
        "origin": "hub:facebook/convnextv2-atto-1k-224",
        "license": "CC-BY-NC-4.0",
        "license_known_by": "its name",
    }
    run = with_metadata(place / "run", tmp_path / "n", **narrow)
    assert head_of(package.push(run, "me/n").card)["license"] == "cc-by-nc-4.0"
    with pytest.raises(ConvNeXtError, match=r"--license MIT is refused: it started from .* not for commercial use"):
        package.push(run, "me/n", license="MIT")


def test_what_neither_library_has_is_pushed_for_this_package_alone(place, tmp_path, hub):
    checkpoint_of("detection", tmp_path)
    done = convnext("push", tmp_path / "best.safetensors", "me/objects", "--yes")
    assert done.status == 0, done.err
    assert "convnext alone: transformers and timm have no such network" in done.out
    assert "no evaluation.json of these weights" in done.out
    assert package.load("hub:me/objects", device="cpu").classes == ("a", "b")
    trained(place / "pets", tmp_path / "overlap")  # the stem of `small`, which neither has
    assert package.push(tmp_path / "overlap", "me/overlap").libraries == ()
    trained(
        place / "pets", tmp_path / "two", "--model.stem", "patch"
    )  # two stages: transformers has them, timm does not
    assert package.push(tmp_path / "two", "me/two").libraries == ("transformers",)


def test_what_cannot_be_pushed_is_one_line(place, tmp_path, hub, monkeypatch):
    run = place / "run"
    assert "is not a repository's name. Write OWNER/NAME" in convnext("push", run, "pets").line
    assert "no run or checkpoint" in convnext("push", tmp_path / "none", "me/pets").line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert (
        "holds 'thesis.txt', which `convnext push` did not write"
        in convnext("push", run, "me/x", "--out", tmp_path / "mine").line
    )
    assert (tmp_path / "mine" / "thesis.txt").exists()
    hub.private["me/open"] = False
    assert "everybody can read it. Add --public" in convnext("push", run, "me/open", "--yes").line
    hub.token = "another"
    assert (
        "takes no token from here. Run `hf auth login`, or set HF_TOKEN"
        in convnext("push", run, "me/pets", "--yes").line
    )
    hub.status = 403
    assert "your token may not write there" in convnext("push", run, "me/pets", "--yes").line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in convnext("push", run, "me/pets", "--yes").line
    assert not hub.files
    with pytest.raises(CheckpointError, match="is exported already"):
        package.push(run / "model.onnx", "me/pets")
