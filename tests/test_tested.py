"""The test part: scored once, at the end, by what is kept; it chooses nothing. Of all three tasks."""

import json
import shutil
from pathlib import Path

import pytest

from commands import convnext, trained
from convnext.data.opening import recognise
from convnext.data.tested import open_tested
from convnext.reports.run import write_report
from images import write_colours
from pages import Page
from runs import bits
from shape_objects import NAMES, write_objects
from shapes import CLASSES, write_shapes
from test_cli_dense import trained as trained_dense


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 + 4 images of each of three colours, and 5 of each in a test part."""
    folder = write_colours(tmp_path_factory.mktemp("colours"))
    other = write_colours(tmp_path_factory.mktemp("other"), train=5, val=5, size=20)
    shutil.copytree(other / "val", folder / "test")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    said = trained(data, out)
    first, second = said.out.splitlines()
    assert first.endswith(f": {out}") and " on 12 held-out images" in first
    assert second.startswith("top-1 ") and second.endswith(" on 15 images of the test part, which chose nothing")
    return out


def test_the_figures_of_the_test_part_are_those_of_evaluate(data, run):
    test = json.loads((run / "evaluation.json").read_text())["test"]
    again = json.loads(convnext("evaluate", run, data, "--part", "test", "--json", "--workers", 0).out)
    assert test["n"] == again["n"] == 15 and test["skipped"] == {}
    for name in ("top1", "balanced_accuracy", "macro_f1", "baseline_top1"):
        assert test[name] == again[name]
    assert test["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert test["per_class"] == again["per_class"]


def test_the_report_shows_them_beside_those_of_the_held_out_images(data, run, tmp_path):
    page = write_report(run).read_text("utf-8")
    assert Page(page).ids[0] == "test-part"
    assert "15 images, scored once, after training" in page
    shutil.copytree(run, tmp_path / "run")
    for strange in (3, "text", {"n": None}, [1]):
        found = json.loads((run / "evaluation.json").read_text()) | {"test": strange}
        (tmp_path / "run" / "evaluation.json").write_text(json.dumps(found))
        Page(write_report(tmp_path / "run").read_text("utf-8"))


def test_a_test_part_changes_nothing_else(data, run, tmp_path):
    without = tmp_path / "without"
    shutil.copytree(data, without / "data")
    shutil.rmtree(without / "data" / "test")
    done = trained(without / "data", without / "run", "--json")
    assert "test" not in json.loads(done.out) and "test" not in json.loads(
        (without / "run/evaluation.json").read_text()
    )
    assert bits(without / "run") == bits(run)
    assert "test-part" not in Page(write_report(without / "run").read_text("utf-8")).ids


def test_a_test_part_that_is_held_out_is_not_scored_a_second_time(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val")
    done = trained(tmp_path / "data", tmp_path / "run", "--json")
    found = json.loads(done.out)
    assert found["n"] == 15 and "test" not in found


def test_a_class_that_the_test_part_alone_has_is_named_and_the_run_is_not_lost(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(data / "test" / "red", tmp_path / "data" / "test" / "violet")
    done = trained(tmp_path / "data", tmp_path / "run", "--json")
    assert "test" not in json.loads(done.out)
    assert "The test part is not scored: " in done.err and "'violet'" in done.err


def test_json_of_train_has_the_test_part(data, tmp_path):
    found = json.loads(trained(data, tmp_path / "run", "--json").out)
    assert found["test"]["n"] == 15 and found["test"]["top1"] >= 0


def test_of_several_labels_it_is_judged_by_the_thresholds_of_the_held_out_images(data, tmp_path):
    lines = ["path,labels,split"]
    for file in sorted(data.rglob("*.png")):
        part, colour = file.relative_to(data).parts[:2]
        more = ";warm" if colour == "red" else ""
        lines.append(f"{file.relative_to(data)},{colour}{more},{part}")
    (data / "labels.csv").write_text("\n".join(lines))
    table = shutil.move(data / "labels.csv", tmp_path / "labels.csv")
    for part in ("train", "val", "test"):
        (tmp_path / part).symlink_to(data / part)
    found = json.loads(trained(table, tmp_path / "run", "--json").out)
    again = json.loads(convnext("evaluate", tmp_path / "run", table, "--part", "test", "--json", "--workers", 0).out)
    assert found["test"]["n"] == again["n"] == 15 and "map" in found["test"]
    for name in ("map", "macro_f1", "micro_f1"):
        assert found["test"][name] == pytest.approx(again[name])
    assert "top1" not in found["test"]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_detectors_and_segmenters_score_it_as_well(task, tmp_path):
    place = tmp_path / "data"
    if task == "detection":
        write_objects(place, train=2, val=3)
        shutil.copytree(place / "val", place / "test")
        notes = place / "annotations"
        shutil.copy(notes / "instances_val.json", notes / "instances_test.json")
    else:
        write_shapes(place, train=2, val=3)
        shutil.copytree(place / "val", place / "test")
    figure = "box_ap" if task == "detection" else "miou"
    done = trained_dense(place, tmp_path / "run", task, "--epochs", 1)
    assert " on 3 images of the test part, which chose nothing" in done.out
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["test"]["n"] == 3 and found["test"][figure] == found[figure]  # the images are the same here
    assert Page((tmp_path / "run" / "report.html").read_text("utf-8")).ids[0] == "test-part"
    again = json.loads(convnext("evaluate", tmp_path / "run", place, "--part", "test", "--json", "--workers", 0).out)
    assert again[figure] == found["test"][figure]


def test_a_dense_test_part_is_found_where_something_else_is_held_out(tmp_path):
    maps = write_shapes(tmp_path / "maps", train=2, val=2)
    assert open_tested(recognise(maps), CLASSES, val_apart=False) is None
    (maps / "val").rename(maps / "test")
    assert open_tested(recognise(maps), CLASSES, val_apart=False) is None  # it is what is held out
    found = open_tested(recognise(maps), CLASSES, val_apart=True)
    assert found is not None and len(found.entries) == 2


def test_a_test_part_without_annotations_is_left_alone(tmp_path):
    coco = write_objects(tmp_path / "coco", train=2, val=2)
    content = json.loads((coco / "annotations" / "instances_val.json").read_text())
    shutil.copytree(coco / "val", coco / "test")
    (coco / "annotations" / "instances_test.json").write_text(json.dumps(content | {"annotations": []}))
    assert open_tested(recognise(coco), NAMES, val_apart=False) is None
