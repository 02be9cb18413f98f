"""The front door: what `import convnext` offers is typed, is what the command line does, and costs nothing until it is used."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convnext
from commands import convnext as command
from commands import tiny, trained
from convnext import api
from convnext.models.network import Network
from images import write_colours
from shape_objects import FIELDS as DETECTOR
from shape_objects import write_objects
from shapes import write_shapes

ROOT = Path(__file__).parents[1]
FIELDS = {
    "precision": "fp32",
    "model.depths": (1, 1),
    "model.widths": (8, 16),
    "model.patch": 2,
    "optim.batch": 6,
    "input.size_px": 16,
}
STRICT = ("disallow_any_generics", "disallow_subclassing_any", "disallow_untyped_calls", "warn_return_any")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> convnext.Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return convnext.train(data, out=out, epochs=2, overrides=FIELDS, workers=0, progress=False)


def test_everything_public_is_listed_and_there():
    verbs = {"create", "load", "train", "evaluate", "predict", "export", "optimize", "recipe"}
    assert verbs < set(dir(convnext)) == set(convnext.__all__)
    assert all(getattr(convnext, name) is not None for name in convnext.__all__)
    assert all(getattr(convnext, name).__doc__ for name in verbs)
    assert {name for names in convnext._HOMES.values() for name in names} | {"__version__"} == set(convnext.__all__)
    assert set(api.__all__) == set(convnext._HOMES["convnext.api"])
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = convnext.laod


def test_types_come_with_the_package():
    assert (Path(convnext.__file__).parent / "py.typed").is_file()


def test_a_run_is_a_value_with_its_place_its_scores_and_its_predictor(run):
    assert run.path.is_dir() and run.report.is_file() and {"top1", "loss"} <= set(run.scores)
    assert run.scores["top1"] == run.to_dict()["top1"] == json.loads((run.path / "evaluation.json").read_text())["top1"]
    recipe = json.loads((run.path / "recipe.json").read_text())
    assert recipe["schedule"]["epochs"] == 2 and recipe["optim"]["batch"] == 6
    for found in (run.load(device="cpu"), convnext.load(run, device="cpu"), convnext.load(run.path, device="cpu")):
        assert found.classes == ("blue", "green", "red") and found.source.parent == run.path


def test_training_by_call_and_by_command_is_the_same_run(data, run, tmp_path):
    trained(data, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    printed = json.loads(command(*tiny(data, tmp_path / "run", "--json")).out)
    own = run.to_dict() | {"run": printed["run"], "report": printed["report"]}
    assert {name: own[name] for name in printed} == printed


def test_a_recipe_may_be_a_value(data, run, tmp_path):
    made = convnext.recipe("small", model="atto", images=36, image_px=24, classes=3, batch=6)
    overrides = FIELDS | {"schedule.epochs": 2, "schedule.warmup_epochs": 0.2}
    found = convnext.train(data, recipe=made, overrides=overrides, out=tmp_path / "run", workers=0, progress=False)
    own, other = (json.loads((each.path / "recipe.json").read_text()) for each in (found, run))
    assert own["model"] == other["model"] and own["schedule"]["epochs"] == 2 and found.scores["top1"] >= 0
    with pytest.raises(convnext.ConvNeXtError, match="the recipe is a value"):
        convnext.train(data, recipe=made, model="tiny", out=tmp_path / "other")
    objects = convnext.recipe("small_detection", classes=3)
    with pytest.raises(convnext.ConvNeXtError, match="is for detection, and the data are for classification"):
        convnext.train(data, recipe=objects, out=tmp_path / "other", progress=False)


def test_epochs_twice_and_a_wrong_field_are_refused(data, tmp_path):
    with pytest.raises(convnext.ConvNeXtError, match="say the same"):
        convnext.train(data, epochs=1, overrides={"schedule.epochs": 2}, out=tmp_path / "run")
    with pytest.raises(convnext.ConvNeXtError, match=r"Did you mean 'optim\.lr'"):
        convnext.train(data, overrides={"optim.lrr": 1}, out=tmp_path / "run", progress=False)
    with pytest.raises(convnext.ConvNeXtError, match="among the images"):
        convnext.train(data, out=data / "run")


def test_images_form_and_colours_are_arguments_as_they_are_options(data, run, tmp_path):
    write_objects(tmp_path / "set", train=8, val=2)
    (tmp_path / "set" / "train").rename(tmp_path / "pictures")
    file = tmp_path / "set" / "annotations" / "instances_train.json"
    file = file.rename(tmp_path / "objects.json")
    short: dict[str, Any] = {"schedule.epochs": 1, "optim.batch": 2, "input.short_px": (32,), "input.eval_short_px": 32}
    how: dict[str, Any] = {"images": tmp_path / "pictures", "form": "coco"}
    made = convnext.train(
        file, out=tmp_path / "run", overrides=DETECTOR | short, workers=0, progress=False, seed=1, **how
    )
    found = convnext.evaluate(made, file, **how)
    assert (found.task, found.n) == ("detection", made.evaluation.n)
    assert found.to_dict()["box_ap"] == made.figures["box_ap"]
    with pytest.raises(convnext.ConvNeXtError, match=r"holds its own images, so .* says nothing"):
        convnext.evaluate(run, data, images=data)
    with pytest.raises(convnext.ConvNeXtError, match=r"colours = 'x\.txt' is for segmentation; .* is for detection"):
        convnext.evaluate(made, file, images=tmp_path / "pictures", colours="x.txt")
    with pytest.raises(convnext.ConvNeXtError, match="colours of masks are for segmentation"):
        convnext.train(file, images=tmp_path / "pictures", colours="x.txt", out=tmp_path / "other")
    with pytest.raises(convnext.ConvNeXtError, match=r"no form of data is called 'coca'\. Did you mean 'coco'"):
        convnext.train(file, form="coca", out=tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(convnext.ConvNeXtError, match="among the images"):
        convnext.train(file, images=tmp_path / "pictures", out=tmp_path / "pictures" / "run")


def test_a_legend_of_colours_is_an_argument(tmp_path):
    write_shapes(tmp_path / "set", train=6, val=2)
    (tmp_path / "set" / "classes.json").unlink()
    shown = np.array([[0, 0, 0], [200, 10, 10], [10, 10, 200]], np.uint8)
    for file in (tmp_path / "set").rglob("labels/*.png"):
        labels = np.asarray(Image.open(file))
        Image.fromarray(shown[np.where(labels == 255, 0, labels)]).save(file)
    legend = tmp_path / "legend.txt"
    legend.write_text("ground:0,0,0\nsquare:200,10,10\ndisc:10,10,200\n")
    short = {"schedule.epochs": 1, "optim.batch": 2, "head.width": 16, "head.aux_width": 8}
    short |= {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24)}
    how: dict[str, Any] = {"colours": legend, "form": "masks"}
    made = convnext.train(tmp_path / "set", out=tmp_path / "run", overrides=short, workers=0, progress=False, **how)
    assert convnext.evaluate(made, tmp_path / "set", **how).to_dict()["miou"] == made.scores["miou"]
    assert made.load().classes == ("ground", "square", "disc")


def test_evaluation_by_call_and_by_command_is_the_same(data, run):
    found = convnext.evaluate(run, data, device="cpu")
    assert found.to_dict() == json.loads(command("evaluate", run.path, data, "--json", "--device", "cpu").out)
    assert found.n == 12 and convnext.evaluate(run, data, part="train").n == 36


def test_prediction_by_call_is_that_of_the_predictor(data, run):
    found = [each.to_dict() for each in convnext.predict(run, data / "val", top=2)]
    assert found == [each.to_dict() for each in run.load().predict(data / "val", top=2)] and len(found) == 12


def test_an_export_is_loaded_like_a_run(data, run, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    done = convnext.export(run, to="onnx", out=tmp_path / "x.onnx")
    assert done.to_dict()["out"] == str(done.out) and done.out.is_file()
    image = next((data / "val" / "red").iterdir())
    ours, theirs = convnext.load(done.out)(image), run.load(device="cpu")(image)
    assert dict(ours.predictions) == pytest.approx(dict(theirs.predictions), abs=1e-4)
    with pytest.raises(convnext.ConvNeXtError, match="logits alone"):
        list(convnext.load(done.out).embed(image))


def test_a_network_starts_from_a_run_its_folder_or_its_file(run, tmp_path):
    told: list[str] = []
    expected = run.load(device="cpu").model.state_dict()
    for weights in (run, str(run.path), run.load(device="cpu").source):
        made = convnext.create("atto", weights=weights, info=told.append)
        assert isinstance(made, Network) and made.config.classes == 3
        assert all(torch.equal(value, expected[name]) for name, value in made.state_dict().items())
    assert len(told) == 3 and all("tensors read" in line for line in told)
    fresh = convnext.create("atto", classes=5, weights=run, info=told.append)
    assert fresh.config.classes == 5 and any("head" in line for line in told[3:])
    assert torch.equal(fresh.state_dict()["stem.layers.0.weight"], expected["stem.layers.0.weight"])
    with pytest.raises(convnext.CheckpointError, match="does not fit"):
        convnext.create("tiny", weights=run)
    with pytest.raises(convnext.CheckpointError):
        convnext.create("atto", weights=tmp_path)


def test_a_network_that_gives_no_maps_says_so():
    network = convnext.create("timm:resnet18", classes=2).eval()
    assert network.embed(torch.zeros(1, 3, 32, 32)).shape == (1, 512)
    with pytest.raises(convnext.ConvNeXtError, match="'resnet18' does not give the maps"):
        network.features(torch.zeros(1, 3, 32, 32))


def test_a_recipe_is_a_value():
    found = convnext.recipe("small", model="tiny", images=500, classes=7)
    assert found.model.classes == 7 and found.model.name == "tiny" and convnext.recipe("small").model.name == "atto"
    with pytest.raises(convnext.ConvNeXtError, match="Did you mean 'small'"):
        convnext.recipe("smal")


def examples() -> list[str]:
    """The Python of the README, each block as a script of its own, and what it leaves to the reader."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    return [f"import torch\n\nimages = torch.zeros(1, 3, 64, 64)\n{block}" for block in blocks]


EVERYTHING = """
from pathlib import Path

import numpy as np
import torch

import convnext

run = convnext.train("pets", model="atto", recipe="small", out="runs/pets", epochs=3, overrides={"optim.lr": 1e-3})
print(run.path / "report.html", run.scores["top1"] > 0.9, run.load().classes)
print(convnext.evaluate(run, "pets", part="val").to_dict(), convnext.export(run, to="onnx").out)
frame = np.zeros((30, 40, 3), np.uint8)
predictor = convnext.load(run)
for found in predictor.predict(["a.jpg", Path("b.jpg"), b"", frame], channel_order="bgr"):
    found.draw().show()
    print(found.path, found.size[0], found.predictions[0][1] + 1, found.to_dict(), found.save("x.jpg"))
print(np.stack(list(predictor.embed("photos"))).mean())
detector = convnext.load("runs/objects", task="detection")
objects = detector("street.jpg", score=0.3)
print(objects.boxes.shape, objects.scores.max(), objects.labels.tolist(), objects.masks is None)
segmenter = convnext.load("runs/streets", task="segmentation")
print(segmenter(frame, multi_scale=True).mask.shape)
model = convnext.create("tiny", classes=10, weights=run)
features: dict[str, torch.Tensor] = model.features(torch.zeros(1, 3, 64, 64))
fast = convnext.optimize(model, mean=(0.5, 0.5, 0.5))
print(fast(torch.zeros(1, 3, 64, 64)).softmax(1), convnext.recipe("small", model="atto").optim.lr)
try:
    convnext.load("nowhere")
except convnext.ConvNeXtError as error:
    print(error)
"""
WRONG = {
    "convnext.laod('runs/pets')": "has no attribute",
    "convnext.load('x')('a.jpg', tpo=3)": "Unexpected keyword",
    "convnext.train('pets', overrides=3)": "incompatible type",
    "convnext.load('x', task='detection')('a.jpg').mask": "has no attribute",
}


def test_mypy_strict_accepts_what_users_write_and_finds_their_mistakes(tmp_path):
    lines = "\n".join(WRONG)
    scripts = {"user_everything": EVERYTHING, "user_mistakes": f"import convnext\n\n{lines}\n"}
    scripts |= {f"user_readme_{number}": script for number, script in enumerate(examples())}
    for name, script in scripts.items():
        (tmp_path / f"{name}.py").write_text(script)
    strict = "".join(f"{flag} = true\n" for flag in STRICT)  # what the package's own settings leave out of --strict
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    (tmp_path / "pyproject.toml").write_text(f"{settings}\n[[tool.mypy.overrides]]\nmodule = {list(scripts)}\n{strict}")
    files = [str(tmp_path / f"{name}.py") for name in scripts]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", tmp_path / "pyproject.toml", "--no-error-summary", *files],
        env=os.environ | {"MYPYPATH": "src"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if ": note:" not in line]
    assert not done.stderr and [line for line in told if "user_mistakes.py" not in line] == []
    assert len(told) == len(WRONG)
    for number, (line, part) in enumerate(zip(told, WRONG.values(), strict=True), 3):
        assert f"user_mistakes.py:{number}:" in line and part in line
