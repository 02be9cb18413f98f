"""Average precision and the counts beside it: those of pycocotools to 1e-9, and of images that one can count."""

import contextlib
import copy
import io
import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.dataset import DenseDataset
from convnext.data.formats.export import segmentation
from convnext.data.masks import encode, encode_inside
from convnext.data.store import FolderStore
from convnext.errors import ConvNeXtError
from convnext.tasks.detection import coco_evaluation
from convnext.tasks.detection.coco_evaluation import Precision, average_precision
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.metrics import Outcomes, judge, metrics, working_point
from convnext.tasks.detection.report import report

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself

CATEGORIES = (7, 3, 90)  # in no order
TYPES = {"box": "bbox", "mask": "segm"}


def made_up(seed: int, count: int = 7, most: int = 25) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of all sizes, crowds and images without any among them, and detections that often miss."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], []
    for i in range(count):
        height, width = (int(side) for side in rng.integers(150, 300, 2))
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": height, "width": width})
        for _ in range(0 if i % 4 == 3 else int(rng.integers(1, most))):
            w, h = (int(side) for side in rng.integers(3, 120, 2))
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            part = rng.random((h, w)) < 0.8
            category, crowd = int(rng.choice(CATEGORIES)), int(rng.random() < 0.15)
            outline: Any = [[x, y, x + w, y, x + w, y + 0.7 * h, x, y + h]]
            if crowd or rng.random() < 0.5:
                outline = segmentation(encode_inside(part, y, x, height, width))
            row = {"image_id": 10 + i, "category_id": category, "bbox": [x, y, w, h]}
            known = {"id": len(annotations) + 1, "area": 0.8 * w * h, "iscrowd": crowd, "segmentation": outline}
            annotations.append(row | known)
            for _ in range(int(rng.integers(0, 3))):
                left, top = (int(np.clip(a + rng.normal(0, 3), 0, b)) for a, b in ((x, width - w), (y, height - h)))
                said = {"category_id": category if rng.random() < 0.9 else 3, "bbox": [left, top, w, h]}
                shape = segmentation(encode_inside(part, top, left, height, width))
                found.append(row | said | {"score": round(float(rng.random()), 2), "segmentation": shape})
    categories = [{"id": number, "name": str(number)} for number in CATEGORIES]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def reference(
    ground_truth: dict[str, Any], found: list[dict[str, Any]], kind: str, limits: tuple[int, ...]
) -> COCOeval:
    """pycocotools; a mask's size is its own, so its box is left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(ground_truth)
        known.createIndex()
        rows = [{k: v for k, v in row.items() if kind == "box" or k != "bbox"} for row in copy.deepcopy(found)]
        theirs = COCOeval(known, known.loadRes(rows), TYPES[kind])
        theirs.params.maxDets = list(limits)
        theirs.evaluate()
        theirs.accumulate()
        if limits == (1, 10, 100):
            theirs.summarize()
    return theirs


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("limits", [(1, 10, 100), (1, 3, 8), (1, 10, 260)])
def test_every_precision_and_recall_is_that_of_pycocotools(kind, limits):
    for seed in range(3):
        ground_truth, found = made_up(seed)
        before = json.dumps([ground_truth, found])
        ours = average_precision(ground_truth, found, CATEGORIES, kind, limits)
        theirs = reference(ground_truth, found, kind, limits)
        order = [sorted(CATEGORIES).index(number) for number in CATEGORIES]
        assert np.abs(ours.precision - theirs.eval["precision"][:, :, order]).max() < 1e-9
        assert np.abs(ours.recall - theirs.eval["recall"][:, order]).max() < 1e-9
        assert json.dumps([ground_truth, found]) == before  # neither is written to
        if limits == (1, 10, 100):
            figures = [-1.0 if math.isnan(value) else value for value in ours.figures(limits).values()]
            assert np.abs(np.array(figures) - theirs.stats).max() < 1e-9


def test_images_with_hundreds_of_objects_are_scored_to_the_last_one():
    boxes = [[float(x), float(y), 8.0, 8.0] for x in range(0, 160, 10) for y in range(0, 170, 10)]  # 272 objects
    rows = [{"image_id": 1, "category_id": 3, "bbox": box, "area": 64.0, "iscrowd": 0} for box in boxes]
    image = {"id": 1, "file_name": "x", "height": 200, "width": 200}
    ground_truth = {"images": [image], "annotations": [row | {"id": i + 1} for i, row in enumerate(rows)]}
    ground_truth["categories"] = [{"id": 3, "name": "nucleus"}]
    found = [row | {"score": 1 - i / 1000} for i, row in enumerate(rows)]
    capped = average_precision(ground_truth, found, (3,), "box", (1, 10, 100)).figures((1, 10, 100))
    whole = average_precision(ground_truth, found, (3,), "box", (1, 10, 300)).figures((1, 10, 300))
    assert capped["ar"] == pytest.approx(100 / 272) and capped["ap"] < 0.4
    assert whole["ap"] == whole["ar"] == pytest.approx(1) and whole["ar_10"] == pytest.approx(10 / 272)


def test_nothing_found_is_0_and_nothing_to_find_is_no_figure():
    ground_truth, found = made_up(0)
    nothing = average_precision(ground_truth, [], CATEGORIES, "mask")
    assert nothing.figures((1, 10, 100))["ap"] == 0 and nothing.per_class()["ap50"] == [0, 0, 0]
    empty = ground_truth | {"annotations": []}
    for rows in (found, []):
        nowhere = average_precision(empty, rows, CATEGORIES, "box")
        assert all(math.isnan(value) for value in nowhere.figures((1, 10, 100)).values()) and not nowhere.curves()


def test_an_object_without_an_outline_is_its_box():
    ground_truth, _ = made_up(1)
    for row in ground_truth["annotations"]:
        del row["segmentation"]
    ground_truth["annotations"] = [row for row in ground_truth["annotations"] if not row["iscrowd"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    found = []
    for row in ground_truth["annotations"]:
        x, y, w, h = row["bbox"]
        inside = encode_inside(np.ones((h, w), bool), y, x, *sizes[row["image_id"]])
        found.append({**row, "score": 0.5, "segmentation": segmentation(inside)})
    assert average_precision(ground_truth, found, CATEGORIES, "mask").figures((1, 10, 100))["ap"] == pytest.approx(1)


def test_curves_and_classes_average_to_the_figures():
    ground_truth, found = made_up(2)
    precision: Precision = average_precision(ground_truth, found, CATEGORIES, "box")
    figures, classes, curves = precision.figures((1, 10, 100)), precision.per_class(), precision.curves()
    for name in ("ap", "ap50", "ap75"):
        assert np.mean(classes[name]) == pytest.approx(figures[name]) == pytest.approx(np.mean(curves[name]))
        assert len(curves[name]) == 101 and curves[name] == sorted(curves[name], reverse=True)


def test_the_package_that_scores_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConvNeXtError, match=r"pip install 'convnext\[detect\]'"):
        coco_evaluation.library()


def squares(*corners: tuple[int, int]) -> np.ndarray:
    return np.array([[x, y, x + 10, y + 10] for x, y in corners], np.float32).reshape(-1, 4)


def found_in(image_id: int, boxes: np.ndarray, labels: list[int], scores: list[float], *, masks: bool = True) -> Found:
    drawn = [np.zeros((40, 60), np.uint8) for _ in boxes]
    for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int).tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    shapes = tuple(encode(mask) for mask in drawn) if masks else None
    size, given = (40, 60), (np.array(scores, np.float32), np.array(labels, np.int64))
    return Found(f"{image_id}.png", image_id, size, boxes, *given, shapes)


def dataset_of(*images: list[Row]) -> DenseDataset:
    entries = [AnnotatedImage(f"{i}.png", i, (40, 60), objects_of(rows)) for i, rows in enumerate(images, 1)]
    return DenseDataset("detection", ("cat", "dog"), tuple(entries), FolderStore("."), (5, 2))


def row(x: int, y: int, label: int, *, crowd: bool = False, side: int = 10, number: int = 1) -> Row:
    mask = np.zeros((40, 60), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return Row((x, y, x + side, y + side), label, encode(mask), crowd, float(side * side), number)


@pytest.fixture
def dataset() -> DenseDataset:
    """Two objects, one object and a crowd, nothing."""
    return dataset_of(
        [row(0, 0, 0, number=1), row(20, 0, 1, number=2)],
        [row(0, 20, 1, number=3), row(20, 0, 1, crowd=True, side=30, number=4)],
        [],
    )


def perfect(masks: bool = True) -> Outcomes:
    found = (
        found_in(1, squares((0, 0), (20, 0)), [0, 1], [0.9, 0.8], masks=masks),
        found_in(2, squares((0, 20)), [1], [0.7], masks=masks),
        found_in(3, squares(), [], [], masks=masks),
    )
    return Outcomes((0, 1, 2), found, (1.0, 2.0, 6.0))


def test_perfect_detections_have_an_average_precision_of_1(dataset):
    scores = metrics(perfect(), dataset)
    assert {name: value for name, value in scores.items() if "_ap" in name} == {
        name: pytest.approx(1)
        for name in (f"{kind}_ap{rest}" for kind in ("box", "mask") for rest in ("", "50", "75", "_small"))
    }
    assert scores["loss"] == 3 and "box_ap_large" not in scores  # nothing is large
    assert "mask_ap" not in metrics(perfect(masks=False), dataset)
    whole = report(perfect(), dataset)
    assert whole["worst"] == [] and whole["working_point"] == {
        "score": pytest.approx(0.7),
        "precision": 1,
        "recall": 1,
        "f1": 1,
    }
    assert whole["box_ap_large"] is None and json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_figures_are_numbers_though_there_is_nothing_to_find():
    empty = dataset_of([], [])
    nothing = tuple(found_in(i, squares(), [], []) for i in (1, 2))
    assert metrics(Outcomes((0, 1), nothing, (1.0, 1.0)), empty) == {"box_ap": 0.0, "loss": 1.0}
    assert report(Outcomes((0, 1), nothing, (1.0, 1.0)), empty)["working_point"]["score"] == 1


def test_a_detection_is_right_false_or_in_a_crowd(dataset):
    objects = dataset.entries[1].objects
    boxes = squares((0, 20), (1, 20), (25, 5), (0, 20))
    found = found_in(2, boxes, [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.6])
    verdicts = judge(found, objects.boxes, objects.labels, objects.crowd)
    assert verdicts.tolist() == [1, 0, -1, 0]  # the object, a second time, inside the crowd, of another class


def test_the_working_point_is_where_f1_is_best_by_trying_every_score():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.integers(1, 20, 60) / 20)[::-1].astype(np.float32)
    verdicts = rng.choice([1, 0, -1], 60, p=[0.5, 0.4, 0.1]).astype(np.int8)
    found = found_in(1, np.zeros((60, 4), np.float32), [0] * 60, scores.tolist(), masks=False)
    point = working_point(Outcomes((0,), (found,), (0.0,)), [verdicts], 40)
    best = (0.0, 0.0)
    for score in sorted(set(scores.tolist())):
        right = int(((scores >= score) & (verdicts == 1)).sum())
        shown = int(((scores >= score) & (verdicts >= 0)).sum())
        best = max(best, (2 * right / (shown + 40), score))
    assert (point.f1, point.score) == pytest.approx(best)


def test_the_worst_images_come_first_with_their_objects_and_what_was_shown(dataset):
    wrong = found_in(1, squares((0, 0), (40, 20)), [0, 0], [0.9, 0.85])
    outcomes = Outcomes((0, 1, 2), (wrong, *perfect().found[1:]), (0.0, 0.0, 0.0))
    whole = report(outcomes, dataset)
    (worst,) = whole["worst"]
    assert (worst["path"], worst["right"], worst["false"], worst["missed"]) == ("1.png", 1, 1, 1)
    assert worst["f1"] == pytest.approx(0.5)
    (drawn,) = whole["details"]["images"]
    assert [each["object"] for each in drawn["found"]] == [0, -1] and drawn["size"] == [40, 60]
    cat, dog = whole["per_class"]
    assert (cat["objects"], cat["precision"], cat["recall"]) == (1, 0.5, 1.0)
    assert (dog["objects"], dog["precision"], dog["recall"]) == (2, 1.0, 0.5) and dog["box_ap50"] < 1


def test_an_image_that_was_not_read_is_not_missed(dataset):
    some = Outcomes((1, 2), perfect().found[1:], (1.0, 1.0))
    assert metrics(some, dataset)["mask_ap"] == pytest.approx(1) and report(some, dataset)["n"] == 2
