"""The commands on boxes, masks and label maps: train, evaluate, predict, and what they refuse."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import Done, convnext, rows, tiny
from convnext.data.annotated_loader import DenseBatch
from convnext.data.decode import decode_indices
from convnext.data.masks import Rle, area
from convnext.data.opening import open_dense, recognise
from convnext.data.sample import IGNORE
from convnext.drawing.palette import colour_of
from convnext.engine.distributed import World
from convnext.tasks.detection.task import Detection
from images import write_colours
from shape_objects import IDS, NAMES, write_objects
from shapes import CLASSES, write_shapes

WORDS = ["--epochs", 2, "--batch", 2, "--size", 64, "--workers", 0, "--model.depths", "1,1,1,1"]
WORDS += ["--model.widths", "8,12,16,24", "--input.multiple", 16, "--schedule.eval_epochs", 1]
HEADS = {
    "detection": ["--head.channels", 16, "--head.hidden", 32, "--head.box_head", "linear", "--head.most", 10],
    "segmentation": ["--head.width", 16, "--head.aux_width", 8],
}
PROPOSALS = [f"--head.{name}_{part}=40" for name in ("candidates", "proposals") for part in ("train", "test")]


def arguments(data: Path, out: Path, task: str, *more: object) -> list[object]:
    """Words that train four small blocks for two epochs at 64 px; `more` comes last and wins."""
    return ["train", data, "--out", out, *WORDS, *HEADS[task], *(PROPOSALS if task == "detection" else []), *more]


def trained(data: Path, out: Path, task: str, *more: object) -> Done:
    done = convnext(*arguments(data, out, task, *more))
    assert done.status == 0, done.err
    return done


def write_yolo(folder: Path, source: Path) -> Path:
    """images/*.png, labels/*.txt and data.yaml of the boxes alone in the train part of `source`, without parts."""
    content = json.loads((source / "annotations" / "instances_train.json").read_text())
    (folder / "labels").mkdir(parents=True)
    shutil.copytree(source / "train", folder / "images")
    for image in content["images"]:
        lines = []
        for row in content["annotations"]:
            if row["image_id"] == image["id"]:
                x, y, width, height = row["bbox"]
                shares = ((x + width / 2) / image["width"], (y + height / 2) / image["height"])
                sides = (width / image["width"], height / image["height"])
                lines.append(" ".join(str(value) for value in (IDS.index(row["category_id"]), *shares, *sides)))
        (folder / "labels" / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    write_objects(folder / "coco")
    write_yolo(folder / "yolo", folder / "coco")
    write_shapes(folder / "maps", train=6, val=3)
    return folder


@pytest.fixture(scope="module")
def masks(place: Path) -> Path:
    """A run of Mask R-CNN."""
    trained(place / "coco", place / "runs" / "masks", "detection")
    return place / "runs" / "masks"


@pytest.fixture(scope="module")
def boxes(place: Path) -> Path:
    """A run of boxes alone, on one folder without parts."""
    trained(place / "yolo", place / "runs" / "boxes", "detection")
    return place / "runs" / "boxes"


@pytest.fixture(scope="module")
def maps(place: Path) -> Path:
    """A run of UperNet."""
    trained(place / "maps", place / "runs" / "maps", "segmentation")
    return place / "runs" / "maps"


# Training


@pytest.mark.parametrize(("run", "task"), [("masks", "detection"), ("boxes", "detection"), ("maps", "segmentation")])
def test_the_task_follows_from_the_data_and_a_run_leaves_all_its_files(run, task, request):
    folder = request.getfixturevalue(run)
    left = {"recipe.json", "environment.json", "data.json", "metrics.jsonl", "timings.jsonl", "best.safetensors"}
    left |= {
        "best_ema.safetensors",
        "last.safetensors",
        "evaluation.json",
        "report.html",
        "model_card.md",
        "images.digests",
        "samples.jpg",
        "predictions.jpg",
    }
    found = json.loads((folder / "evaluation.json").read_text())
    left |= {"adjusted.safetensors"} if found["weights"] == "adjusted" else set()  # test_adjusting.py
    assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == left
    assert found["task"] == task
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["name"] == f"small_{task}" and recipe["input"]["eval_short_px"] == 64 and recipe["task"] == task


def test_training_again_says_that_it_is_done_in_one_line_or_one_object(place, masks, maps):
    again = trained(place / "coco", masks, "detection")
    assert again.out.count("\n") == 1 and "AP50" in again.out and "on 4 held-out images" in again.out
    found = json.loads(trained(place / "maps", maps, "segmentation", "--json").out)
    assert found["run"] == str(maps) and Path(found["report"]).is_file() and found["n"] == 3
    assert {"miou", "mean_accuracy", "pixel_accuracy", "loss", "weights", "step", "task"} <= set(found)


def test_a_run_that_was_killed_goes_on_by_the_same_command_to_the_same_bits(place, masks, tmp_path, monkeypatch):
    whole = Detection.batches

    def killed(self: Detection, steps: range, world: World) -> Iterator[DenseBatch]:
        for step, batch in zip(steps, whole(self, steps, world), strict=True):
            if step == 4:
                raise KeyboardInterrupt
            yield batch

    again = arguments(place / "coco", tmp_path / "run", "detection", "--checkpoint-steps", 3)
    with monkeypatch.context() as patched:
        patched.setattr(Detection, "batches", killed)
        assert convnext(*again).status == 130
    done = convnext(*again)
    assert done.status == 0 and "Going on" in done.err and "after step 3" in done.err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (masks / "metrics.jsonl").read_bytes()
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == json.loads(
        (masks / "evaluation.json").read_text()
    )


def test_annotations_images_and_held_out_ones_can_lie_in_four_places(place, masks, tmp_path):
    apart = place / "coco" / "annotations"
    shutil.copy(apart / "instances_train.json", tmp_path / "a.json")
    shutil.copy(apart / "instances_val.json", tmp_path / "b.json")
    where = ["--images", place / "coco" / "train", "--val", tmp_path / "b.json", "--val-images", place / "coco" / "val"]
    trained(tmp_path / "a.json", tmp_path / "run", "detection", *where)
    assert rows(tmp_path / "run", "eval") == rows(masks, "eval")


# Evaluation


def test_a_detector_is_scored_by_boxes_and_masks_as_after_its_training(place, masks):
    found = json.loads(convnext("evaluate", masks, place / "coco", "--json").out)
    before = json.loads((masks / "evaluation.json").read_text())
    names = {f"{kind}_{figure}" for kind in ("box", "mask") for figure in ("ap", "ap50", "ap75", "ar")}
    assert names <= set(found) and {name: found[name] for name in names} == {name: before[name] for name in names}
    assert found["n"] == 4 and found["skipped"] == {} and found["weights"] == before["weights"]
    text = convnext("evaluate", masks, place / "coco").out
    assert text.startswith("box AP ") and "   mask AP " in text.splitlines()[0]
    assert {"square", "disc"} <= {line.split()[0] for line in text.splitlines() if line}
    assert json.loads(convnext("evaluate", masks, place / "coco", "--part", "train", "--json").out)["n"] == 6


def test_boxes_alone_have_no_figures_of_masks_and_what_was_held_out_is_scored(place, boxes):
    done = convnext("evaluate", boxes, place / "yolo", "--json")
    found, counts = json.loads(done.out), json.loads((boxes / "data.json").read_text())
    assert "box_ap" in found and not [name for name in found if name.startswith("mask_")]
    assert found["n"] == counts["val"]["n"] == 1
    assert "trained on 5 of these images: scoring the 1 that it held out" in done.err
    learnt = convnext("evaluate", boxes, place / "yolo", "--part", "train", "--json")
    assert json.loads(learnt.out)["n"] == 5 and "these very images" in learnt.err
    assert "no part 'test'" in convnext("evaluate", boxes, place / "yolo", "--part", "test").line


def test_other_images_of_a_parted_folder_are_scored_whole(place, boxes, tmp_path):
    shutil.copytree(place / "yolo", tmp_path / "yolo")
    (tmp_path / "yolo" / "images" / "000.png").rename(tmp_path / "yolo" / "images" / "100.png")
    (tmp_path / "yolo" / "labels" / "000.txt").rename(tmp_path / "yolo" / "labels" / "100.txt")
    done = convnext("evaluate", boxes, tmp_path / "yolo", "--json")
    assert json.loads(done.out)["n"] == 6 and "trained on" not in done.err


def test_a_segmenter_is_scored_at_one_scale_and_at_several(place, maps):
    one = json.loads(convnext("evaluate", maps, place / "maps", "--json").out)
    several = json.loads(convnext("evaluate", maps, place / "maps", "--multi-scale", "--json").out)
    before = json.loads((maps / "evaluation.json").read_text())
    names = ("miou", "pixel_accuracy", "mean_accuracy", "confusion")
    assert {name: one[name] for name in names} == {name: before[name] for name in names}
    assert several["multi_scale"] and several["loss"] != one["loss"] and several["n"] == one["n"] == 3
    text = convnext("evaluate", maps, place / "maps").out
    assert text.startswith("mIoU ") and set(CLASSES) <= {line.split()[0] for line in text.splitlines() if line}


def test_a_broken_image_is_named_and_not_scored(place, masks, tmp_path):
    shutil.copytree(place / "coco", tmp_path / "coco")
    (tmp_path / "coco" / "val" / "000.png").write_text("no image")
    done = convnext("evaluate", masks, tmp_path / "coco", "--json")
    found = json.loads(done.out)
    assert found["n"] == 3 and len(found["skipped"]) == 1 and "1 image cannot be read" in done.err
    assert "1 image could not be read and is not counted." in convnext("evaluate", masks, tmp_path / "coco").out


# Prediction


def test_predictions_of_a_detector_are_a_list_in_cocos_form(place, masks):
    done = convnext("predict", masks, place / "coco" / "val", "--score", 0.05, "--top", 3, "--json")
    found = json.loads(done.out)
    assert done.err == "" and found and {row["image_id"] for row in found} <= {1, 2, 3, 4}
    assert max(sum(row["image_id"] == n for row in found) for n in range(1, 5)) <= 3
    for row in found:
        assert set(row) == {"image_id", "category_id", "bbox", "score", "segmentation", "file_name", "category"}
        assert NAMES[IDS.index(row["category_id"])] == row["category"] and Path(row["file_name"]).is_file()
        with Image.open(row["file_name"]) as image:
            assert row["segmentation"]["size"] == [image.height, image.width]
        area(Rle(*row["segmentation"]["size"], row["segmentation"]["counts"].encode()))
    assert json.loads(convnext("predict", masks, place / "coco" / "val", "--score", 1, "--json").out) == []
    assert convnext("predict", masks, place / "coco" / "val", "--score", 1).out.count(": nothing\n") == 4


def test_drawn_images_have_the_size_of_the_originals_and_show_what_was_found(place, masks, tmp_path):
    done = convnext("predict", masks, place / "coco" / "val", "--score", 0.05, "--out", tmp_path / "drawn")
    assert done.status == 0 and done.out.count("\n") == 4
    for line in done.out.splitlines():
        path, _, said = line.partition(": ")
        with Image.open(path) as before, Image.open(tmp_path / "drawn" / f"{Path(path).stem}.jpg") as after:
            assert after.size == before.size
            apart = np.abs(np.asarray(before.convert("RGB"), np.float64) - np.asarray(after)).max()
        assert said == "nothing" or apart > 60


def test_masks_are_numbers_at_the_size_of_the_image_and_can_be_trained_on(place, maps, tmp_path):
    out = tmp_path / "out"
    done = convnext("predict", maps, place / "maps" / "val" / "images", "--out", out, "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert len(found) == 3 and done.err == ""
    for row in found:
        assert sum(item["share"] for item in row["shares"]) == pytest.approx(1)
        labels = decode_indices(Path(row["mask"]).read_bytes())
        with Image.open(row["path"]) as image, Image.open(row["mask"]) as mask:
            assert mask.size == image.size and mask.convert("RGB").getpixel((0, 0)) == colour_of(int(labels[0, 0]))
        assert (labels == CLASSES.index(row["shares"][0]["label"])).mean() == row["shares"][0]["share"]
        with Image.open(out / f"{Path(row['path']).stem}_overlay.jpg") as overlay:
            assert overlay.size == mask.size
    assert json.loads((out / "classes.json").read_text()) == {"classes": list(CLASSES), "ignore_index": IGNORE}
    assert len(open_dense(recognise(out, place / "maps" / "val" / "images")).entries) == 3


def test_shares_of_pixels_are_a_line_an_image(place, maps):
    out = convnext("predict", maps, place / "maps" / "val" / "images", "--top", 1, "--multi-scale").out
    assert out.count("\n") == 3 and all(line.count("%") == 1 for line in out.splitlines())


def test_objects_as_csv_are_a_row_each_with_the_box_and_the_pixels_of_the_mask(place, masks, boxes, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    images = [place / "coco" / "val", tmp_path / "broken.png"]
    listed = json.loads(convnext("predict", masks, *images, "--score", 0.05, "--json").out)
    done = convnext("predict", masks, *images, "--score", 0.05, "--csv")
    *found, broken = csv.DictReader(io.StringIO(done.out))
    assert list(broken) == ["path", "label", "score", "x0", "y0", "x1", "y1", "mask_px", "error"]
    assert Path(broken["path"]).name == "broken.png" and broken["label"] == "" and "not an image" in broken["error"]
    objects = [row for row in found if row["label"]]
    assert len(objects) == len(listed) > 0 and {row["path"] for row in found} == set(map(str, images[0].glob("*.png")))
    for row, told in zip(objects, listed, strict=True):
        left, top, width, height = told["bbox"]
        edges = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
        assert edges == pytest.approx([left, top, left + width, top + height], abs=0.01)
        shape = told["segmentation"]
        assert int(row["mask_px"]) == area(Rle(*shape["size"], shape["counts"].encode()))
        assert row["path"] == told["file_name"] and row["label"] == told["category"] and row["error"] == ""
        assert float(row["score"]) == pytest.approx(told["score"], abs=1e-6)
    rows = list(csv.DictReader(io.StringIO(convnext("predict", boxes, images[0], "--score", 1, "--csv").out)))
    assert [list(row.values())[1:] for row in rows] == [[""] * 7] * 4 and "mask_px" not in rows[0]


def test_shares_as_csv_are_a_row_for_each_class_also_of_those_that_are_not_there(place, maps):
    images = place / "maps" / "val" / "images"
    told = {
        row["path"]: row["shares"]
        for row in map(json.loads, convnext("predict", maps, images, "--json").out.splitlines())
    }
    found = list(csv.DictReader(io.StringIO(convnext("predict", maps, images, "--csv").out)))
    assert list(found[0]) == ["path", "label", "share", "error"] and len(found) == 3 * len(CLASSES)
    for path, shares in told.items():
        own = {row["label"]: float(row["share"]) for row in found if row["path"] == path}
        assert set(own) == set(CLASSES) and sum(own.values()) == pytest.approx(1, abs=1e-5)
        assert own == pytest.approx(
            dict.fromkeys(CLASSES, 0.0) | {one["label"]: one["share"] for one in shares}, abs=1e-6
        )
    assert len(list(csv.DictReader(io.StringIO(convnext("predict", maps, images, "--csv", "--top", 1).out)))) == 3


def test_a_broken_image_is_named_and_the_rest_is_answered(place, masks, maps, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    whole = place / "coco" / "val" / "000.png"
    listed = convnext("predict", masks, tmp_path / "broken.png", whole, "--score", 0.05, "--json")
    assert {row["image_id"] for row in json.loads(listed.out)} == {2} and "Skipped" in listed.err
    answer, error = convnext("predict", maps, tmp_path / "broken.png", whole, "--json").out.splitlines()
    assert json.loads(answer)["path"] == str(whole) and "not an image" in json.loads(error)["error"]
    assert "not readable" in convnext("predict", maps, tmp_path / "broken.png", whole).out
    done = convnext("predict", masks, tmp_path / "broken.png", "--json")
    assert (done.status, done.out) == (2, "") and "None of the 1 images could be read" in done.err


def test_images_of_one_name_become_files_of_their_own(place, boxes, tmp_path):
    source = place / "coco" / "val" / "000.png"
    for name in ("a/x.png", "b/x.png", "b/y.png", "b/y.bmp"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as image:
            image.save(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert convnext("predict", boxes, tmp_path / "in", "--out", out).status == 0
    written = {str(file.relative_to(out)) for file in out.rglob("*.jpg")}
    assert written == {"a/x.jpg", "b/x.jpg", "b/y.bmp.jpg", "b/y.png.jpg"}


def test_nothing_is_overwritten_and_nothing_is_written_among_the_images(place, boxes, maps, tmp_path):
    images = tmp_path / "in"
    shutil.copytree(place / "coco" / "val", images)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "001.jpg").write_text("mine")
    refused = convnext("predict", boxes, images, "--out", tmp_path / "out").line
    assert "already has '001.jpg'," in refused and (tmp_path / "out" / "001.jpg").read_text() == "mine"
    assert len(list((tmp_path / "out").iterdir())) == 1
    for out in (images, images / "drawn"):
        assert "among the images" in convnext("predict", boxes, images, "--out", out).line
    assert "among the images" in convnext("predict", maps, images / "000.png", "--out", images).line
    assert len(list(images.iterdir())) == 4


# Mistakes: one line, exit status 2


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("train COCO --recipe ade20k_upernet_160k", ["is for segmentation", "coco_mask_rcnn_3x"]),
        ("train COCO --recipe small", ["is for classification", "small_detection"]),
        ("train MAPS --recipe coco_cascade_3x", ["is for detection", "small_segmentation"]),
        ("train COLOURS --recipe small_detection", ["is for detection", "finetune"]),
        ("train MAPS --task detection", ["--task detection does not fit", "for segmentation"]),
        (
            "train COLOURS --task detection",
            ["class folders", "for classification", "--task is detection. Leave it out"],
        ),
        ("train COLOURS --val COCO", ["--val is for detection and segmentation", "Leave it out"]),
        ("train COLOURS --form coc", ["'coc'", "Did you mean 'coco'?"]),
        ("train COCO --cache on", ["--cache is for classification"]),
        ("train COCO --model mask_rcnn_tiny", ["--model tiny --recipe coco_mask_rcnn_3x"]),
        ("train COCO --model iso_small --size 64", ["nothing to build a pyramid from"]),
        ("train COCO --recipe coco_mask_rcnn_3x --size 400", ["--size 400", "--input.short_px"]),
        ("train COCO --size 32", ["--size 32", "64 px"]),
        ("train MAPS --recipe ade20k_upernet_160k --epochs 3", ["--schedule.steps"]),
        ("train COCO --head.mots 7", ["'--head.mots'", "Did you mean '--head.most'?"]),
        ("train COCO --head.most 0", ["head.most"]),
        ("train MAPS --head.most 7", ["'head.most' is for detection", "Did you mean"]),
        ("train COCO --out COCO/run", ["among the images"]),
        ("train COCO/annotations/instances_train.json --images COCO/train --out COCO/train/run", ["among the imag"]),
        ("evaluate MASKS MAPS", ["annotated for segmentation", "for detection"]),
        ("evaluate MASKS COCO --suite corruptions", ["--suite is for classification", "for detection"]),
        ("evaluate MASKS COCO --multi-scale", ["--multi-scale is for segmentation"]),
        ("evaluate MASKS COCO --batch 4", ["--batch is for classification"]),
        ("evaluate MASKS COCO --part vla", ["'vla'", "Did you mean 'val'?"]),
        (
            "evaluate MASKS COLOURS",
            ["class folders", "the run is for detection. Score a classifier on it: `convnext train"],
        ),
        ("evaluate COLOURS_RUN COCO", ["boxes or outlines", "the run is for classification. Score a detector on it"]),
        ("evaluate COLOURS_RUN MAPS", ["masks of classes", "the run is for classification. Score a segmenter on it"]),
        ("predict MASKS COCO/val --csv --json", ["--json and --csv", "Give one of them"]),
        ("predict MASKS COCO/val --score 2", ["--score", "0 to 1"]),
        ("predict MAPS_RUN COCO/val --score 0.5", ["--score is for detection", "for segmentation"]),
        ("predict COLOURS_RUN COLOURS/val/red --out COLOURS/val/red/out", ["--out", "is among the images"]),
        ("evaluate COLOURS_RUN COLOURS --multi-scale", ["--multi-scale is for segmentation"]),
        ("evaluate COLOURS_RUN COLOURS --form coco", ["--form is for detection and segmentation"]),
        ("evaluate COLOURS_RUN COLOURS --part test", ["no images in its test part, only in train and val"]),
    ],
)
def test_a_mistake_is_one_line_with_the_value_and_the_fix(place, masks, maps, colours, tmp_path, line, parts):
    named = {"COCO": place / "coco", "MAPS": place / "maps", "MASKS": masks, "MAPS_RUN": maps, "OUT": tmp_path / "out"}
    named |= {"COLOURS": colours / "data", "COLOURS_RUN": colours / "run"}
    given = []
    for argument in line.split():
        first, slash, rest = argument.partition("/")
        given.append(f"{named.get(first, first)}{slash}{rest}")
    if given[0] == "train" and "--out" not in given:
        given += ["--out", str(tmp_path / "run")]
    done = convnext(*given)
    assert (done.status, done.out) == (2, ""), done.err
    said = done.err.splitlines()[-1]
    assert said.startswith("convnext: ") and [part for part in parts if part not in said] == [], said
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def colours(place: Path) -> Path:
    """Class folders, and a classifier of them."""
    write_colours(place / "colours" / "data")
    done = convnext(*tiny(place / "colours" / "data", place / "colours" / "run"))
    assert done.status == 0, done.err
    return place / "colours"


def test_class_folders_are_classes_whatever_task_is_named_for_them(colours, tmp_path):
    done = convnext(*tiny(colours / "data", tmp_path / "run", "--task", "classification", "--epochs", 1))
    assert done.status == 0 and "top-1" in done.out


@pytest.mark.parametrize("more", ["a.txt", "data.yaml", "a.png"])
def test_class_folders_with_texts_names_or_an_image_twice_stay_class_folders(tmp_path, more):
    data = write_colours(tmp_path / "data", train=4, val=2, suffix=".jpg")
    for folder in (data / "train").iterdir():
        if more == "a.txt":
            for image in list(folder.iterdir()):
                image.with_suffix(".txt").write_text("a plain colour")
        elif more == "a.png":
            Image.new("RGB", (24, 24)).save(folder / "000.png")
        else:
            (data / more).write_text("names: [red, green]\n")
    assert recognise(data).task == "classification"
