"""A table of classes in one place and its images in another: `--images`, and what is refused in whose words."""

import json
import shutil
from pathlib import Path

import pytest

import convnext as package
from commands import convnext, tiny, trained
from images import write_colours, zipped


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """labels/table.csv, whose images lie in flat/, without folders."""
    folder = write_colours(tmp_path / "colours", train=6, val=0)
    (tmp_path / "flat").mkdir()
    (tmp_path / "labels").mkdir()
    rows = ["path,label"]
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        shutil.copy(file, tmp_path / "flat" / f"im{number}.png")
        rows.append(f"im{number}.png,{file.parent.name}")
    (tmp_path / "labels" / "table.csv").write_text("\n".join(rows))
    return tmp_path


def test_a_classifier_learns_from_a_table_beside_a_folder_and_is_scored_on_it_also_by_call(place):
    table, images = place / "labels/table.csv", place / "flat"
    done = trained(table, place / "run", "--images", images, "--epochs", 1)
    assert "15 images in 3 classes, 3 held out" in done.err
    scored = convnext("evaluate", place / "run", table, "--images", images, "--json")
    assert scored.status == 0 and '"n": 3' in scored.out
    assert package.evaluate(place / "run", table, images=images).n == 3
    run = package.train(
        table,
        images=images,
        recipe="small",
        out=place / "called",
        epochs=1,
        progress=False,
        overrides={"input.size_px": 16, "model.depths": [1, 1], "model.widths": [8, 16], "model.patch": 2},
    )
    assert run.evaluation.n == 3


@pytest.mark.parametrize("written", ["json", "stems", "folders", "zip"])
def test_names_are_found_as_they_are_beside_a_table(place, written):
    table, images = place / "labels/table.csv", place / "flat"
    text = table.read_text()
    if written == "json":
        table = table.with_suffix(".json")
        pairs = (line.split(",") for line in text.splitlines()[1:])
        table.write_text(json.dumps({path: [label] for path, label in pairs}))
    elif written == "stems":
        table.write_text(text.replace(".png", ""))
    elif written == "folders":
        table.write_text(text.replace("im", "/home/me/set/flat/im"))
    else:
        images = zipped(images, place / "flat.zip")
    assert "15 images in 3 classes, 3 held out" in trained(table, place / "run", "--images", images, "--epochs", 1).err


def test_what_says_nothing_for_classes_is_refused_as_that_and_not_as_broken_annotations(place):
    table, images, folders = place / "labels/table.csv", place / "flat", place / "colours"

    def line(*words: object) -> str:
        return convnext(*tiny(*words[:1], place / "run", *words[1:])).line

    of_others = "--val is for detection and segmentation; the data are for classification. Leave it out."
    assert line(table, "--images", images, "--val", table) == of_others
    assert line(folders, "--val", folders) == of_others
    assert line(table, "--val-images", images) == of_others.replace("--val", "--val-images")
    assert "holds its own images, so" in line(folders, "--images", images, "--task", "classification")
    assert "does not exist" in line(table, "--images", place / "nowhere")
    bare = place / "labels/bare.csv"
    bare.write_text("name_of,kind\nim0,red\n")
    said = line(bare, "--images", images)
    assert "COCO" not in said and "bare.csv" in said and "column" in said


def test_a_table_whose_images_are_not_there_names_the_option_for_them(place, tmp_path):
    (place / "empty").mkdir()
    table = place / "labels/table.csv"
    said = convnext(*tiny(table, tmp_path / "run")).line
    assert "none of the 18 images that" in said and "'im0.png'. Where they are elsewhere, add --images DIR." in said
    said = convnext(*tiny(table, tmp_path / "run", "--images", place / "empty")).line
    assert "none of the 18 images that" in said and "Name the folder that they are in." in said


def test_class_folders_with_images_elsewhere_are_not_taken_for_masks(place, tmp_path):
    said = convnext(*tiny(place / "colours/train", tmp_path / "run", "--images", place / "flat")).line
    assert "holds its own images, so" in said and "says nothing. Leave it out." in said


def test_an_audit_takes_a_table_whose_images_are_elsewhere(place, tmp_path):
    how = ["--folds", 2, "--epochs", 1, "--size", 16, "--workers", 0]
    done = convnext("audit", place / "labels/table.csv", "--images", place / "flat", "--out", tmp_path / "audit", *how)
    assert done.status == 0, done.err
    assert (tmp_path / "audit/audit.csv").read_text().startswith("path,given,suggested,score")
    assert "none of the 18 images" in convnext("audit", place / "labels/table.csv", "--out", tmp_path / "b", *how).line
