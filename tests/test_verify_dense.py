"""`convnext verify RUN DATA` of detectors and segmenters: the same figures on the same images, intervals on others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnext as package
from commands import convnext
from shape_objects import write_objects
from shapes import write_shapes

WORDS = ["--epochs", 2, "--batch", 2, "--size", 64, "--workers", 0, "--model.depths", "1,1,1,1"]
WORDS += ["--model.widths", "8,12,16,24", "--input.multiple", 16, "--schedule.eval_epochs", 2]
HEADS = {
    "detection": ["--head.channels", 16, "--head.hidden", 32, "--head.box_head", "linear", "--head.most", 10],
    "segmentation": ["--head.width", 16, "--head.aux_width", 8],
}
HEADS["detection"] += [f"--head.{name}_{part}=40" for name in ("candidates", "proposals") for part in ("train", "test")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    write_objects(folder / "coco", val=24)
    write_shapes(folder / "maps", train=6, val=24)
    for data, task in (("coco", "detection"), ("maps", "segmentation")):
        done = convnext("train", folder / data, "--out", folder / task, *WORDS, *HEADS[task])
        assert done.status == 0, done.err
    return folder


@pytest.mark.parametrize(
    ("data", "task", "figure"), [("coco", "detection", "box AP"), ("maps", "segmentation", "mIoU")]
)
def test_the_images_that_were_held_out_give_the_same_figures(place, data, task, figure):
    done = convnext("verify", place / task, place / data, "--json")
    assert done.status == 0, done.out
    found = {row["name"]: row for row in json.loads(done.out)["findings"]}
    assert found["images"]["measured"] == found[figure]["measured"] == "the same"


@pytest.mark.parametrize(
    ("data", "task", "figures"),
    [("coco", "detection", ("box AP", "mask AP")), ("maps", "segmentation", ("mIoU",))],
)
def test_an_exported_file_carries_the_promises_of_its_run(place, tmp_path, data, task, figures):
    for package_ in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package_, reason="the extra 'export' is not installed")
    file = tmp_path / "model.onnx"
    done = convnext("export", place / task, "--to", "onnx", "--out", file)
    assert done.status == 0, done.err
    found = {each.name: each for each in package.verify(file, place / data).findings}
    assert found["images"].measured == "the same" and {found[name].verdict for name in figures} == {"holds"}
    evaluation = json.loads((place / task / "evaluation.json").read_text())
    assert found[figures[0]].values["promised_value"] == evaluation[figures[0].lower().replace(" ", "_")]


def test_other_images_are_compared_by_intervals_and_wrong_masks_break_the_promise(place, tmp_path):
    evaluation = json.loads((place / "segmentation" / "evaluation.json").read_text())
    low, high = evaluation["intervals"]["miou"]
    assert low < evaluation["miou"] < high
    write_shapes(tmp_path / "other", train=1, val=30)
    found = {each.name: each for each in package.verify(place / "segmentation", tmp_path / "other").findings}
    assert found["images"].measured == "30 others" and found["mIoU"].verdict in ("holds", "open")
    assert found["mIoU"].values["promised_interval"] == [low, high]
    for file in (tmp_path / "other" / "val" / "labels").glob("*.png"):
        labels = np.array(Image.open(file))
        Image.fromarray(np.where(labels == 255, 255, (labels + 1) % 3).astype(np.uint8)).save(file)
    done = convnext("verify", place / "segmentation", tmp_path / "other")
    assert done.status == 1 and "Broken: mIoU" in done.out


def test_options_of_annotations_are_those_of_evaluate(place, tmp_path):
    shutil.copytree(place / "coco" / "val", tmp_path / "images")
    shutil.copy(place / "coco" / "annotations" / "instances_val.json", tmp_path / "val.json")
    done = convnext(
        "verify", place / "detection", tmp_path / "val.json", "--images", tmp_path / "images", "--form", "coco"
    )
    assert done.status in (0, 1) and "box AP" in done.out, done.err
