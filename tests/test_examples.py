"""Every script in examples/ runs as its first lines say, on small data, and tells what it is for."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints import checkpoint_of
from commands import convnext, trained
from convnext.data.opening import recognise
from images import write_colours
from serving import process

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data, a run on it, and an image of a class."""
    folder = tmp_path_factory.mktemp("examples")
    data = write_colours(folder / "data")
    trained(data, folder / "run", "--epochs", 3)
    (folder / "objects").mkdir()
    checkpoint_of("detection", folder / "objects")
    return folder


@pytest.fixture
def script(place, monkeypatch, capsys):
    """What a script prints, called with words of the folder's names."""

    def run(name: str, *words: str) -> list[str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


IMAGE = "data/val/green/000.png"


def test_train(script):
    first, second = script("train", "data", "trained")
    assert re.fullmatch(r"[\d.]+% of the held-out images are named right; the page is .*report\.html", first)
    assert re.fullmatch(r"data/val/\w+/000\.png: \w+ with \d+%", second)
    assert Path("trained/report.html").is_file()


def test_features(script):
    (line,) = script("features", "run", "data")
    assert re.fullmatch(r"[\d.]+% of the held-out images are named right, from 16 features each", line)


def test_own_loop(script):
    loss, difference = script("own_loop")
    assert float(loss.rpartition(" ")[2]) < 0.5  # two classes at random: 0.69
    assert float(difference.rpartition(" ")[2]) < 1e-4


def test_own_block(script):
    parameters, loss = script("own_block")
    before, after = (int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\d", parameters))
    # in each block of C channels 11 + 11 weights and two biases in place of 49 and one
    assert after - before == (22 + 2 - 49 - 1) * (8 + 16 + 24 + 32)
    assert float(loss.rpartition(" ")[2]) < 0.5


def test_roadmap(script):
    lines = {line[:32].strip(): float(line[32:].split()[0]) for line in script("roadmap")}
    assert lines["ConvNeXt-T"] == 28.59  # table 9 of the paper: 29 M
    assert lines["kernel of 3"] < lines["ConvNeXt-T"] < lines["kernel of 11"]
    assert lines["roadmap, depthwise"] == 15.72


def test_recipe(script):
    published, fitted, refused = script("recipe")
    assert published == "imagenet1k: adamw, rate 0.004 for 4096 images, 300 epochs"  # table 5
    assert fitted.startswith("500 images of 256 px: ")
    assert "imagenet1k" in refused and "\n" not in refused


def test_promise(script):
    (line,) = script("promise", "run", "data")
    assert "0.95" in line


def test_explain(script):
    (line,) = script("explain", "run", IMAGE, "map.png")
    assert Path("map.png").is_file() and "%" in line


def test_onnx_runtime(script, place):
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    assert convnext("export", place / "run", "--to", "onnx").status == 0
    lines = script("onnx_runtime", "run/model.onnx", IMAGE)
    told = convnext("predict", place / "run", place / IMAGE, "--top", 3).out
    assert [line.split(":")[0] for line in lines] == re.findall(r"(\w+) [\d.]+%", told)


def test_ask_server(script, place):
    with process(place / "run", "--device", "cpu") as (_, address):
        (line,) = script("ask_server", address, IMAGE)
    assert "green" in line and "score" in line


def test_detect(script):
    first, *objects = script("detect", "objects", "data/val/green")
    assert re.fullmatch(r"data/val/green/000\.png: \d+ objects", first)
    assert all(line.startswith(("  ", "data/val/green/")) for line in objects)


def test_masks_to_coco(script, place):
    for name in ("a", "b"):
        for kind in ("images", "masks"):
            (place / "stage" / name / kind).mkdir(parents=True)
        Image.new("RGBA", (6, 5), "red").save(place / "stage" / name / "images" / f"{name}.png")
        for count, (top, left) in enumerate([(0, 0), (2, 3)]):
            mask = np.zeros((5, 6), np.uint8)
            mask[top : top + 2, left : left + 3] = 255
            Image.fromarray(mask).save(place / "stage" / name / "masks" / f"{count}.png")
    (line,) = script("masks_to_coco", "stage", "bowl")
    assert line == f"2 images with 4 objects: {Path('bowl', 'annotations.json')}"
    first, second, *_ = json.loads(Path("bowl/annotations.json").read_text("utf-8"))["annotations"]
    assert first["bbox"] == [0, 0, 3, 2] and first["area"] == 6
    assert first["segmentation"] == {"size": [5, 6], "counts": [0, 2, 3, 2, 3, 2, 18]}
    assert second["bbox"] == [3, 2, 3, 2] and second["segmentation"]["counts"] == [17, 2, 3, 2, 3, 2, 1]
    assert recognise("bowl").form == "coco"


def test_sweep(script):
    lines = script("sweep", "data", "sweep")
    assert [line.split(":")[0] for line in lines] == ["lr 0.0003", "lr 0.001", "lr 0.003"]


def test_every_script_has_a_test_and_first_lines_that_say_how_it_is_called():
    for path in EXAMPLES.glob("*.py"):
        assert f"test_{path.stem}" in globals(), path
        assert f"python examples/{path.name}" in path.read_text("utf-8"), path
