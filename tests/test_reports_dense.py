"""The report of detection and segmentation runs: its sections, its figures and its curves."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from convnext.data.dataset import DenseDataset
from convnext.data.opening import DenseSplits
from convnext.drawing.numbers import percent
from convnext.tasks.detection import metrics as detection
from convnext.tasks.detection.report import report as detection_report
from dense_runs import DETECTION, SEGMENTATION, evaluation_of, guessed, page_of, relogged, squares, text_of
from pages import Page, change, dump, section


def test_the_report_of_a_detector_is_balanced_markup_with_every_section(detector: Path, objects: DenseSplits) -> None:
    page = page_of(detector, objects.val)
    assert Page(page).ids == list(DETECTION)
    assert 'class="note"' not in page and "not hold what this version" not in page
    assert section(page, "curves").count("<figure") == 6  # losses, box AP, mask AP, learning rate, speed
    assert section(page, "parts-of-the-loss").count("<figure") == 1
    assert section(page, "precision-and-recall").count("<figure") == 4
    assert section(page, "worst-images").count("<img") == 2 * len(evaluation_of(detector)["worst"]) > 0


def test_the_report_of_a_segmenter_is_balanced_markup_with_every_section(segmenter: Path, maps: DenseSplits) -> None:
    page = page_of(segmenter, maps.val)
    assert Page(page).ids == list(SEGMENTATION)
    assert 'class="note"' not in page and "not hold what this version" not in page
    assert section(page, "curves").count("<figure") == 6
    assert section(page, "worst-images").count("<img") == 2 * len(evaluation_of(segmenter)["worst"]) > 0


def test_a_report_loads_nothing_and_runs_nothing(
    detector: Path, segmenter: Path, objects: DenseSplits, maps: DenseSplits
) -> None:
    for page in (page_of(detector, objects.val), page_of(segmenter, maps.val)):
        parsed = Page(page)
        assert "http" not in page.replace("http-equiv", "") and "url(" not in page
        assert not {"script", "link", "iframe", "object", "embed"} & set(parsed.names)
        assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in parsed.links)


def test_every_figure_of_the_evaluation_is_on_the_page(detector: Path, segmenter: Path) -> None:
    found, said = evaluation_of(detector), text_of(page_of(detector))
    kinds = [
        f"{kind}_{name}" for kind in ("box", "mask") for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ar")
    ]
    for figure in kinds:
        assert percent(found[figure]).replace("\u202f", " ") in said
    assert "Mask R-CNN, ConvNeXt atto on 2 classes" in said and "Mask AP , EMA weights" in said
    found, said = evaluation_of(segmenter), text_of(page_of(segmenter))
    for figure in ("miou", "pixel_accuracy", "mean_accuracy"):
        assert percent(found[figure]).replace("\u202f", " ") in said
    assert "UperNet, ConvNeXt atto on 3 classes" in said


def test_curves_are_those_of_ten_slow_lines(objects: DenseSplits) -> None:
    outcomes = guessed(objects.val, seed=3)
    curves = detection_report(outcomes, objects.val)["details"]["curves"]["box"]
    for name, overlap in (("ap50", 0.5), ("ap75", 0.75)):
        slow = np.mean([curve_of(outcomes, objects.val, label, overlap) for label in (0, 1)], axis=0)
        assert curves[name] == pytest.approx(slow, abs=6e-5) and max(curves[name]) > 0.1


def curve_of(outcomes: detection.Outcomes, dataset: DenseDataset, label: int, overlap: float) -> list[float]:
    """Precision at 101 recalls: at each, the best that this or a higher one has."""
    said, total = [], 0
    for found, entry in zip(outcomes.found, dataset.entries, strict=True):
        free = [] if entry.objects is None else entry.objects.boxes[entry.objects.labels == label].tolist()
        total += len(free)
        for box, score in zip(
            found.boxes[found.labels == label].tolist(), found.scores[found.labels == label], strict=True
        ):
            near = max(free, key=lambda other: iou(box, other), default=None)
            right = near is not None and iou(box, near) >= overlap
            if right:
                free.remove(near)
            said.append((-score, right))
    right = np.cumsum([right for _, right in sorted(said, key=lambda row: row[0])])
    points = [(hits / total, hits / (place + 1)) for place, hits in enumerate(right)]
    return [max((p for r, p in points if r >= recall - 1e-12), default=0.0) for recall in np.linspace(0, 1, 101)]


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return math.prod(sides) / (sum(areas) - math.prod(sides))


def test_curves_are_drawn_where_they_are(detector: Path) -> None:
    curve = evaluation_of(detector)["details"]["curves"]["box"]["ap50"]
    found = re.search(
        r'<polyline points="([^"]*)" class="curve blue"', section(page_of(detector), "precision-and-recall")
    )
    assert found
    points = [tuple(map(float, point.split(","))) for point in found[1].split()]
    assert points == [(pytest.approx(10 * i), pytest.approx(1000 * (1 - p), abs=0.1)) for i, p in enumerate(curve)]


def test_curves_of_classes_are_kept_for_the_three_best_and_the_three_worst() -> None:
    whole = detection_report(*squares(9, lambda label: label + 1))
    curves = whole["details"]["classes"]["box"]
    assert list(curves) == [f"class {label}" for label in (8, 7, 6, 2, 1, 0)]
    for row in whole["per_class"]:
        if row["name"] in curves:
            assert np.mean(curves[row["name"]]) == pytest.approx(row["box_ap50"], abs=1e-4)
    assert list(detection_report(*squares(2, lambda label: 5))["details"]["classes"]["box"]) == ["class 0", "class 1"]


def test_the_confused_pairs_are_pixels_most_frequent_first(segmenter: Path) -> None:
    table = np.diag([1000, 1000, 1000])
    table[0, 2], table[2, 1] = 70, 3000
    change(segmenter, "evaluation.json", classes=["ant", "bee", "cat"], confusion=table.tolist())
    text = re.sub("<[^>]*>", "", section(page_of(segmenter), "confusion")).replace("\u202f", " ")
    assert text.index("cat → bee3.0 k75.0 %") < text.index("ant → cat706.5 %")
    assert "75" in text and "Pixels" in text


def test_the_whole_evaluation_is_json_and_its_arrays_are_short(detector: Path, segmenter: Path) -> None:
    for run in (detector, segmenter):
        content = evaluation_of(run)
        assert json.loads(json.dumps(content, allow_nan=False)) == content
    details = evaluation_of(detector)["details"]
    for curve in [*details["curves"]["box"].values(), *details["classes"]["mask"].values()]:
        assert len(curve) == 101 and all(value == round(value, 4) for value in curve)


def test_the_same_run_gives_the_same_page(detector: Path, objects: DenseSplits) -> None:
    assert page_of(detector, objects.val) == page_of(detector, objects.val)


def test_a_cascade_has_a_chart_of_its_proposals_and_one_for_each_stage(detector: Path) -> None:
    names = ("rpn_score", "rpn_box", *(f"stage{i}_{part}" for i in range(3) for part in ("score", "box", "mask")))
    relogged(detector, lambda row: row | {"parts": dict.fromkeys(names, 0.1)})
    drawn = section(page_of(detector), "parts-of-the-loss")
    assert drawn.count("<figure") == 4 and all(f"Stage {i}" in drawn for i in (1, 2, 3)) and "Stage 4" not in drawn
    assert drawn.count("proposals: box</li>") == 1 and drawn.count("mask</li>") == 3


def test_a_log_without_parts_of_its_loss_says_so(segmenter: Path) -> None:
    relogged(segmenter, lambda row: {key: value for key, value in row.items() if key != "parts"})
    assert "The log of this run has no parts of its loss." in section(page_of(segmenter), "parts-of-the-loss")


def test_a_run_that_counts_steps_is_drawn_over_its_steps(segmenter: Path) -> None:
    chosen = json.loads((segmenter / "recipe.json").read_text())
    dump(segmenter / "recipe.json", chosen | {"schedule": chosen["schedule"] | {"steps": 30}})
    page = page_of(segmenter)
    assert "epoch" not in section(page, "curves") + section(page, "parts-of-the-loss")
    assert "step 30" in text_of(page) and "epoch 10" not in text_of(page)


def test_the_recipe_has_what_these_tasks_use_and_no_more(detector: Path, segmenter: Path) -> None:
    for run in (detector, segmenter):
        fields = re.findall(r'<th scope="row">([^<]*)', section(page_of(run), "recipe"))
        assert {"mean", "std", "crop_px", "photometric"} <= set(fields)
        assert not {"mixup", "size_px", "progressive"} & set(fields)
    said = text_of(page_of(detector))
    assert "(iou 0.5, stds (0.1, 0.1, 0.2, 0.2), weight 1" in said and "{'iou" not in said


def test_a_figure_stands_with_its_interval_where_one_is_known(detector: Path, segmenter: Path) -> None:
    for run, figure in ((detector, "mask_ap"), (segmenter, "miou")):
        value = evaluation_of(run)[figure]
        assert "95 % interval" not in text_of(page_of(run))  # of six images
        low, high = value / 2, (1 + value) / 2
        of_many = {"intervals": {figure: [low, high]}}
        test = {"n": 60, "loss": 0.5, figure: value, **of_many}
        change(run, "evaluation.json", **of_many, test=test)
        shown = f"{100 * low:.1f} to {percent(high)}".replace("\u202f", " ")
        assert f"95 % interval {shown}" in text_of(page_of(run))
        assert shown in text_of(section(page_of(run), "test-part"))
