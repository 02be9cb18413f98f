"""The worst images in the report of a detection or segmentation run: ground truth beside prediction."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.masks import encode
from convnext.data.opening import DenseSplits, open_dense_splits, recognise
from convnext.data.store import FolderStore
from convnext.drawing.palette import colour_of
from convnext.tasks.detection import metrics as detection
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.report import _worst
from convnext.tasks.detection.report import report as detection_report
from convnext.tasks.preview import SIDE_PX, labels_of, preview, preview_size
from convnext.tasks.segmentation import metrics as segmentation
from convnext.tasks.segmentation.report import report as segmentation_report
from dense_runs import SEGMENTATION, evaluation_of, images_in, page_of, segmented, write_run
from pages import Page, section


def test_the_worst_images_come_first_with_what_is_missed_and_false(detector: Path, objects: DenseSplits) -> None:
    rows = evaluation_of(detector)["worst"]
    assert [row["f1"] for row in rows] == sorted(row["f1"] for row in rows) and len(rows) > 2
    shown = section(page_of(detector, objects.val), "worst-images")
    names = re.findall('<div class="file">([^<]*)</div>', shown)
    assert names == [row["path"].rsplit("/", 1)[-1] for row in rows]
    cards = shown.split("<figure")[1:]
    for card, row in zip(cards, rows, strict=True):
        ground_truth, said = card.split(">Prediction<")
        assert len(re.findall('<rect[^>]* class="wrong"', ground_truth)) == row["missed"]
        assert len(re.findall('<rect[^>]* class="right"', ground_truth)) == row["right"]
        assert len(re.findall('<rect[^>]* class="wrong"', said)) == row["false"]
        assert f"{row['right']} right, {row['missed']} missed, {row['false']} false" in card


def test_the_worst_maps_come_first(segmenter: Path, maps: DenseSplits) -> None:
    rows = evaluation_of(segmenter)["worst"]
    assert [row["path"] for row in rows] == [
        entry.path for entry in reversed(maps.val.entries)
    ]  # they are moved further
    names = re.findall('<div class="file">([^<]*)</div>', section(page_of(segmenter, maps.val), "worst-images"))
    assert names == [row["path"].rsplit("/", 1)[-1] for row in rows]


def test_an_object_is_found_by_the_detection_that_takes_it_and_crowds_are_neither() -> None:
    rows = [((0, 0, 10, 10), False), ((20, 0, 30, 10), False), ((40, 0, 60, 20), True)]
    ground_truth = objects_of([Row(box, 0, None, crowd, 1.0, i + 1) for i, (box, crowd) in enumerate(rows)])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [41, 1, 50, 10], [70, 0, 80, 10]], np.float32)
    found = Found("x.png", 1, (20, 90), boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.zeros(4, np.int64), None)
    taken = detection.take(found, ground_truth.boxes, ground_truth.labels, ground_truth.crowd)
    assert taken.tolist() == [0, detection.NOBODY, detection.CROWD, detection.NOBODY]


def test_classes_are_painted_in_their_colours_and_what_does_not_count_is_black(
    segmenter: Path, maps: DenseSplits
) -> None:
    row = evaluation_of(segmenter)["details"]["images"][0]
    sample = read_sample(maps.val, row["index"])
    assert sample.semantic is not None
    given = labels_of(row["map"])
    assert (given == np.roll(np.where(sample.semantic == 255, 0, sample.semantic), row["index"], axis=1)).all()
    ground_truth, said = (
        panel.astype(float) for panel in images_in(section(page_of(segmenter, maps.val), "worst-images"))[:2]
    )
    grey = sample.image @ np.array([0.299, 0.587, 0.114])
    for panel, labels in ((ground_truth, sample.semantic), (said, given)):
        for label in (0, 1, 2):
            inside = labels == label
            expected = 0.32 * grey[inside].mean() + 0.68 * np.array(colour_of(label))
            assert panel[inside].mean(0) == pytest.approx(expected, abs=12)  # a JPEG, and edges
    assert ground_truth[sample.semantic == 255].mean() < 40


def test_masks_are_painted_where_they_are(detector: Path, objects: DenseSplits) -> None:
    row = next(row for row in evaluation_of(detector)["details"]["images"] if row["found"])
    sample = read_sample(objects.val, row["index"])
    assert sample.instances is not None and sample.instances.masks is not None
    place = evaluation_of(detector)["details"]["images"].index(row)
    ground_truth = images_in(section(page_of(detector, objects.val), "worst-images"))[2 * place].astype(float)
    changed = np.abs(ground_truth - sample.image).sum(-1)
    inside = sample.instances.masks.any(0)
    assert changed[inside].mean() > 100 > 60 > changed[~inside].mean()


def test_what_is_kept_of_the_worst_images_is_small(tmp_path: Path) -> None:
    size = (1200, 2000)
    mask = np.zeros(size, np.uint8)
    mask[300:900, 500:1500] = 1
    rows = [
        Row((500, 300, 1500, 900), 0, encode(mask), False, 6e5, 1),
        Row((0, 0, 50, 50), 0, encode(mask), False, 1.0, 2),
    ]
    dataset = DenseDataset(
        "detection", ("it",), (AnnotatedImage("a.png", 1, size, objects_of(rows)),), FolderStore("."), (1,)
    )
    boxes = np.array([[500, 300, 1500, 900]], np.float32)
    found = Found("a.png", 1, size, boxes, np.array([0.9], np.float32), np.zeros(1, np.int64), (encode(mask),))
    many = detection.Outcomes((0,) * 30, (found,) * 30, (1.0,) * 30)
    whole = detection_report(detection.Outcomes((0,), (found,), (1.0,)), dataset)
    (kept,) = whole["details"]["images"]
    assert kept["size"] == [1200, 2000] and preview_size(1200, 2000) == (288, SIDE_PX)
    assert len(kept["found"][0]["mask"]) < 1000
    assert len(_worst(many, dataset, [np.ones(1, np.int8)] * 30, 0.5)) == 30
    wide = segmentation.Judged.of(0, np.eye(2, dtype=int), 0.0, mask)
    content = segmentation_report(segmentation.Outcomes(np.eye(2, dtype=int), (wide,) * 20), ("a", "b"), ["x"])
    assert len(content["details"]["images"]) == 12 and len(content["worst"]) == 20
    assert (labels_of(content["details"]["images"][0]["map"]) == preview(mask, (288, 480))).all()


def test_a_preview_shows_what_lies_at_the_middle_of_each_small_pixel() -> None:
    values = np.arange(12).reshape(2, 6)
    assert preview(values, (1, 3)).tolist() == [[7, 9, 11]] and (preview(values, (2, 6)) == values).all()
    assert preview_size(10, 20) == (10, 20) and preview_size(1, 5000) == (1, SIDE_PX)


def test_an_image_that_cannot_be_shown_is_its_name(detector: Path, objects: DenseSplits, tmp_path: Path) -> None:
    count = len(evaluation_of(detector)["worst"])
    for data in (None, replace(objects.val, store=FolderStore(str(tmp_path))), replace(objects.val, entries=())):
        shown = section(page_of(detector, data), "worst-images")
        assert "<img" not in shown and shown.count('class="unseen"') == count


def test_an_image_is_known_by_its_path_where_the_data_were_opened_in_another_order(
    segmenter: Path, maps: DenseSplits
) -> None:
    turned = replace(maps.val, entries=maps.val.entries[::-1])
    one, other = (section(page_of(segmenter, data), "worst-images") for data in (maps.val, turned))
    assert one == other


def test_many_classes_of_maps_have_a_legend_for_each_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {label}" for label in range(150)]
    folder = tmp_path / "data"
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for i in range(2):
            labels = np.repeat(np.repeat(rng.integers(0, 150, (4, 5), np.uint8), 10, 0), 10, 1)
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / part / "images" / f"{i}.png")
            Image.fromarray(labels).save(folder / part / "labels" / f"{i}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": names}))
    splits = open_dense_splits(recognise(folder))
    run = write_run(tmp_path / "run", splits, segmented(splits.val))
    page = page_of(run, splits.val)
    shown = section(page, "worst-images")
    assert Page(page).ids == list(SEGMENTATION) and shown.count('class="legend') == shown.count("<figure") > 0
    assert shown.count("swatch") <= 8 * shown.count("<figure")
