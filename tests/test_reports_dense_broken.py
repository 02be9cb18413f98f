"""The report of a dense run whose files are missing, damaged or unusual: a note, never an error."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convnext.data.opening import DenseSplits
from convnext.errors import ConvNeXtError
from convnext.reports.dense import write_dense_report
from convnext.tasks.detection import metrics as detection
from convnext.tasks.detection.report import report as detection_report
from convnext.tasks.segmentation import metrics as segmentation
from convnext.tasks.segmentation.report import report as segmentation_report
from dense_runs import (
    DETECTION,
    FILES,
    SEGMENTATION,
    evaluation_of,
    guessed,
    page_of,
    segmented,
    squares,
    text_of,
    write_run,
)
from pages import Page, change, dump, section

BAD_NAMES = ('<b>&"', "'><script>alert(1)</script>")


ODD = (None, "text", 3, {"a": 1}, [], [[1]], [{"path": 3}], float("nan"))


DAMAGED = [
    {"box": {"ap50": ["a"]}},
    [{"path": "val/000.png", "found": 1}],
    [{"path": "val/images/004.png", "map": "!"}],
]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_costs_its_section_and_nothing_else(
    detector: Path, segmenter: Path, objects: DenseSplits, maps: DenseSplits, file: str
) -> None:
    for run, data, anchors in ((detector, objects, DETECTION), (segmenter, maps, SEGMENTATION)):
        (run / file).unlink()
        page = page_of(run, data.val)
        assert Page(page).ids == list(anchors)
        assert (f"This run has no {file}." in page) == (file != "timings.jsonl")  # which only adds to others


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"", b'{"classes": ["a", "b', b"[1, 2]", b"{}", b"\xff\xfe\x00"])
def test_a_damaged_file_is_noted(detector: Path, segmenter: Path, file: str, content: bytes) -> None:
    for run, anchors in ((detector, DETECTION), (segmenter, SEGMENTATION)):
        (run / file).write_bytes(content)
        page = page_of(run)
        assert Page(page).ids == list(anchors)
        if file != "timings.jsonl":
            assert 'class="note"' in page


@pytest.mark.parametrize(
    "field", ["classes", "per_class", "worst", "details", "box_ap", "working_point", "n", "metric"]
)
def test_a_field_of_another_form_is_noted_not_fatal(detector: Path, field: str) -> None:
    for value in ODD:
        change(detector, "evaluation.json", **{field: value})
        assert Page(page_of(detector)).ids == list(DETECTION)


@pytest.mark.parametrize("field", ["classes", "confusion", "per_class", "worst", "details", "miou", "weights"])
def test_a_field_of_another_form_costs_a_segmenter_its_section(segmenter: Path, field: str) -> None:
    for value in ODD:
        change(segmenter, "evaluation.json", **{field: value})
        assert Page(page_of(segmenter)).ids == list(SEGMENTATION)


@pytest.mark.parametrize("field", ["curves", "classes", "images"])
def test_details_of_another_form_are_noted_not_fatal(
    detector: Path, segmenter: Path, objects: DenseSplits, maps: DenseSplits, field: str
) -> None:
    for run, data, anchors in ((detector, objects, DETECTION), (segmenter, maps, SEGMENTATION)):
        details = evaluation_of(run)["details"]
        for value in (*ODD, *DAMAGED):
            change(run, "evaluation.json", details={**details, field: value})
            assert Page(page_of(run, data.val if field == "images" else None)).ids == list(anchors)


def test_an_empty_folder_gives_a_page_of_notes_and_no_folder_a_refusal(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert Page(page).ids == list(DETECTION) and page.count('class="note"') == len(DETECTION) + 1
    with pytest.raises(ConvNeXtError, match="There is no run at"):
        write_dense_report(tmp_path / "nothing", None)


def test_without_the_details_there_are_figures_but_no_images(detector: Path, objects: DenseSplits) -> None:
    content = evaluation_of(detector)
    del content["details"]
    dump(detector / "evaluation.json", content)
    page = page_of(detector, objects.val)
    assert "evaluation.json has no curves" in section(page, "precision-and-recall")
    shown = section(page, "worst-images")
    assert "<img" not in shown and shown.count("<tr>") == 1 + len(content["worst"])


def test_data_of_boxes_alone_have_no_masks(tmp_path: Path, boxes: DenseSplits) -> None:
    run = write_run(tmp_path / "run", boxes, detection_report(guessed(boxes.val, masks=False), boxes.val))
    page = page_of(run, boxes.val)
    assert Page(page).ids == list(DETECTION) and 'class="note"' not in page
    assert "Mask AP" not in text_of(page) and section(page, "precision-and-recall").count("<figure") == 2
    assert section(page, "worst-images").count("<img") > 0


def test_a_run_that_finds_nothing_has_a_report(tmp_path: Path, objects: DenseSplits) -> None:
    full = guessed(objects.val)
    nothing = detection.Outcomes(full.indices, tuple(found.above(2.0) for found in full.found), full.losses)
    run = write_run(tmp_path / "run", objects, detection_report(nothing, objects.val))
    page = page_of(run, objects.val)
    assert Page(page).ids == list(DETECTION) and "No detection is right, whatever its score." in page
    assert "0 right, 2 missed, 0 false" in page


def test_classes_without_anything_to_find_have_dashes_and_come_last(tmp_path: Path, objects: DenseSplits) -> None:
    wider = replace(
        objects.val, classes=(*objects.val.classes, "unicorn"), category_ids=(*objects.val.category_ids, 77)
    )
    run = write_run(tmp_path / "run", objects, detection_report(guessed(objects.val), wider))
    shown = section(page_of(run, objects.val), "classes")
    last = re.findall("<tr>.*?</tr>", shown)[-1]
    assert re.sub("<[^>]*>", "|", last).replace("|", "") == "unicorn0––––––"


def test_data_without_any_object_have_a_report(tmp_path: Path, objects: DenseSplits) -> None:
    bare = replace(objects.val, entries=tuple(replace(each, objects=None) for each in objects.val.entries))
    nothing = tuple(found.above(2.0) for found in guessed(objects.val).found)
    outcomes = detection.Outcomes(tuple(range(len(nothing))), nothing, (1.0,) * len(nothing))
    run = write_run(tmp_path / "run", objects, detection_report(outcomes, bare))
    page = page_of(run, bare)
    assert Page(page).ids == list(DETECTION) and "Not one image has a mistake." in page
    assert "evaluation.json has no curves" in page


def test_no_image_to_evaluate_on_is_said(tmp_path: Path, maps: DenseSplits) -> None:
    empty = segmentation.Outcomes(np.zeros((3, 3), np.int64), ())
    run = write_run(tmp_path / "run", maps, segmentation_report(empty, maps.val.classes, []))
    page = page_of(run, replace(maps.val, entries=()))
    assert Page(page).ids == list(SEGMENTATION) and "No image was evaluated." in page


def test_names_that_look_like_markup_stay_text(tmp_path: Path, objects: DenseSplits, maps: DenseSplits) -> None:
    found = replace(objects.val, classes=BAD_NAMES)
    content = detection_report(guessed(found), found)
    bad = DenseSplits(replace(objects.train, classes=BAD_NAMES), found)
    run = write_run(tmp_path / "<i>run", bad, content)
    shapes = replace(maps.val, classes=(*BAD_NAMES, "</style>"))
    other = write_run(
        tmp_path / "other", DenseSplits(replace(maps.train, classes=shapes.classes), shapes), segmented(shapes)
    )
    for folder, data in ((run, found), (other, shapes)):
        worst = evaluation_of(folder)["worst"]
        worst[0] |= {"path": '<img src=x onerror="1">/\u202e.png'}
        change(folder, "evaluation.json", worst=worst)
        page = page_of(folder, data)
        said = Page(page).text
        assert "<script" not in page and "<b>&amp;" not in page and "<i>run" not in page and "\u202e" not in page
        assert all(name in said for name in BAD_NAMES)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_any_number_of_classes_gives_a_readable_page(tmp_path: Path, objects: DenseSplits, size: int) -> None:
    outcomes, dataset = squares(size, lambda label: label % 11)
    run = write_run(tmp_path / "run", DenseSplits(dataset, dataset), detection_report(outcomes, dataset))
    page = page_of(run, None)
    classes = section(page, "classes")
    assert ("<details" in classes) == (size > 40) and all(f">class {label}<" in classes for label in range(size))
    assert section(page, "precision-and-recall").count("<figure") == (1 if size == 1 else 2)
    assert len(page) < 500_000
