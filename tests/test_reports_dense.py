"""The report of detection and segmentation runs: its figures, its curves, and the ground truth beside the prediction."""

import io
import json
import math
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext.data.dense.dataset import AnnotatedImage, DenseDataset, Row, objects_of, read_sample
from convnext.data.dense.masks import encode
from convnext.data.dense.opening import DenseSplits, open_dense_splits
from convnext.data.store import FolderStore
from convnext.drawing.numbers import percent
from convnext.drawing.palette import colour_of
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.reports.dense import write_dense_report
from convnext.tasks.detection import metrics as detection
from convnext.tasks.detection.inference import Found
from convnext.tasks.detection.report import _worst
from convnext.tasks.detection.report import report as detection_report
from convnext.tasks.preview import SIDE_PX, labels_of, preview, preview_size
from convnext.tasks.segmentation import metrics as segmentation
from pages import Page, change, dump, section
from shape_objects import small, write_objects
from shapes import write_shapes

FILES = ("recipe.json", "environment.json", "data.json", "metrics.jsonl", "timings.jsonl", "evaluation.json")
DETECTION = (
    "average-precision", "curves", "parts-of-the-loss", "precision-and-recall", "classes", "worst-images", "data",
    "recipe", "environment",
)  # fmt: skip
SEGMENTATION = (
    "curves",
    "parts-of-the-loss",
    "classes",
    "confusion",
    "worst-images",
    "data",
    "recipe",
    "environment",
)
BAD_NAMES = ('<b>&"', "'><script>alert(1)</script>")


def write_run(folder: Path, splits: DenseSplits, evaluation: dict[str, Any]) -> Path:
    """A run's folder as training leaves it."""
    folder.mkdir()
    task = splits.train.task
    chosen = small() if task == "detection" else recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    per_class = {name: 40 * (place + 1) for place, name in enumerate(splits.train.classes)}
    counts = {part: {"n": 6, "per_class": per_class, "images": per_class} for part in ("train", "val")}
    data = {
        "task": task,
        "classes": list(splits.train.classes),
        **counts,
        "findings": [],
        "problems": {},
        "skipped": {},
    }
    figures = {name: value for name, value in evaluation.items() if isinstance(value, float)}
    names = ("rpn_score", "rpn_box", "score", "box", "mask") if task == "detection" else ("main", "auxiliary")
    rows: list[dict[str, Any]] = [
        {
            "kind": "train",
            "step": i,
            "epoch": i / 3,
            "lr": 0.1,
            "loss": 1 / i,
            "grad_norm": 1.0,
            "parts": {name: 1 / i / len(names) for name in names},
        }
        for i in range(1, 31)
    ]
    for weights in ("raw", "ema"):
        rows += [{"kind": "eval", "step": i, "epoch": i / 3, "weights": weights, **figures} for i in (15, 30)]
    timings = [{"step": i, "seconds": 1.5, "images_per_s": 2.0 + i} for i in range(1, 31)]
    dump(folder / "recipe.json", chosen.model_dump(mode="json"))
    dump(folder / "environment.json", {"torch": "2.11.0", "device": "cpu"})
    dump(folder / "data.json", data)
    dump(folder / "evaluation.json", evaluation | {"metric": _metric(evaluation), "weights": "ema", "step": 30})
    for name, lines in {"metrics.jsonl": rows, "timings.jsonl": timings}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def _metric(evaluation: dict[str, Any]) -> str:
    return next(name for name in ("mask_ap", "box_ap", "miou") if name in evaluation)


def guessed(dataset: DenseDataset, *, masks: bool = True, seed: int = 0) -> detection.Outcomes:
    """Detections as a mediocre detector has them: objects moved by a few pixels, some lost, some invented."""
    rng = np.random.default_rng(seed)
    found = []
    for index, entry in enumerate(dataset.entries):
        sample = read_sample(dataset, index)
        height, width = sample.size
        ground_truth = sample.instances
        assert ground_truth is not None
        rows = []
        for box, label in zip(ground_truth.boxes, ground_truth.labels, strict=True):
            rows += [(box + rng.integers(-3, 4, 4), label, rng.random())] if rng.random() < 0.8 else []
            rows += [(box + 9, rng.integers(0, len(dataset.classes)), 0.7 * rng.random())]
        rows.sort(key=lambda row: -row[2])
        boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4).clip(0, [width, height] * 2)
        drawn = np.zeros((len(rows), height, width), np.uint8)
        for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int).tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        scores, labels = np.array([row[2] for row in rows], np.float32), np.array([row[1] for row in rows], np.int64)
        shapes = tuple(encode(mask) for mask in drawn) if masks else None
        found.append(Found(sample.path, entry.image_id, sample.size, boxes, scores, labels, shapes))
    return detection.Outcomes(tuple(range(len(found))), tuple(found), tuple(1.0 for _ in found))


def coloured(dataset: DenseDataset) -> segmentation.Outcomes:
    """Maps as a mediocre segmenter has them: everything moved to the right, further in each image."""
    judged = []
    table = np.zeros((len(dataset.classes),) * 2, np.int64)
    for index in range(len(dataset.entries)):
        ground_truth = read_sample(dataset, index).semantic
        assert ground_truth is not None
        predicted = np.roll(np.where(ground_truth == 255, 0, ground_truth), index, axis=1).astype(np.uint8)
        own = segmentation.confusion(predicted, ground_truth, len(dataset.classes))
        table += own
        judged.append(segmentation.Judged.of(index, own, 1.0, predicted))
    return segmentation.Outcomes(table, tuple(judged))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(write_objects(tmp_path_factory.mktemp("objects"), val=6))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(write_objects(tmp_path_factory.mktemp("boxes"), masks=False))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(write_shapes(tmp_path_factory.mktemp("maps")))


@pytest.fixture(scope="module")
def detected(objects: DenseSplits) -> dict[str, Any]:
    return detection_report(guessed(objects.val), objects.val)


@pytest.fixture
def detector(tmp_path: Path, objects: DenseSplits, detected: dict[str, Any]) -> Path:
    return write_run(tmp_path / "detector", objects, detected)


@pytest.fixture
def segmenter(tmp_path: Path, maps: DenseSplits) -> Path:
    return write_run(tmp_path / "segmenter", maps, segmented(maps.val))


def segmented(dataset: DenseDataset) -> dict[str, Any]:
    return segmentation.report(coloured(dataset), dataset.classes, [entry.path for entry in dataset.entries])


def evaluation_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return content


def page_of(run: Path, data: DenseDataset | None = None) -> str:
    return write_dense_report(run, data).read_text("utf-8")


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", Page(page).text.replace("\u202f", " "))


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


def squares(classes: int, hits: Callable[[int], int]) -> tuple[detection.Outcomes, DenseDataset]:
    """An image for each class with ten squares of it, of which `hits(class)` are found."""
    entries, found = [], []
    for label in range(classes):
        corners = [(20.0 * i, 0.0) for i in range(10)]
        rows = [
            Row((x, y, x + 10, y + 10), label, None, False, 100.0, 10 * label + i + 1)
            for i, (x, y) in enumerate(corners)
        ]
        entries.append(AnnotatedImage(f"{label}.png", label + 1, (20, 200), objects_of(rows)))
        shown = np.array([row.box for row in rows[: hits(label)]], np.float32).reshape(-1, 4)
        given = np.full(len(shown), 0.9, np.float32), np.full(len(shown), label, np.int64)
        found.append(Found(f"{label}.png", label + 1, (20, 200), shown, *given, None))
    names = tuple(f"class {label}" for label in range(classes))
    dataset = DenseDataset("detection", names, tuple(entries), FolderStore("."), tuple(range(1, classes + 1)))
    return detection.Outcomes(tuple(range(classes)), tuple(found), tuple(0.0 for _ in found)), dataset


def test_curves_of_classes_are_kept_for_the_three_best_and_the_three_worst() -> None:
    whole = detection_report(*squares(9, lambda label: label + 1))
    curves = whole["details"]["classes"]["box"]
    assert list(curves) == [f"class {label}" for label in (8, 7, 6, 2, 1, 0)]
    for row in whole["per_class"]:
        if row["name"] in curves:
            assert np.mean(curves[row["name"]]) == pytest.approx(row["box_ap50"], abs=1e-4)
    assert list(detection_report(*squares(2, lambda label: 5))["details"]["classes"]["box"]) == ["class 0", "class 1"]


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


def images_in(page: str) -> list[np.ndarray]:
    data = re.findall('src="data:image/jpeg;base64,([^"]*)"', page)
    return [np.asarray(Image.open(io.BytesIO(b64decode(each)))) for each in data]


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
    content = segmentation.report(segmentation.Outcomes(np.eye(2, dtype=int), (wide,) * 20), ("a", "b"), ["x"])
    assert len(content["details"]["images"]) == 12 and len(content["worst"]) == 20
    assert (labels_of(content["details"]["images"][0]["map"]) == preview(mask, (288, 480))).all()


def test_a_preview_shows_what_lies_at_the_middle_of_each_small_pixel() -> None:
    values = np.arange(12).reshape(2, 6)
    assert preview(values, (1, 3)).tolist() == [[7, 9, 11]] and (preview(values, (2, 6)) == values).all()
    assert preview_size(10, 20) == (10, 20) and preview_size(1, 5000) == (1, SIDE_PX)


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


ODD = (None, "text", 3, {"a": 1}, [], [[1]], [{"path": 3}], float("nan"))


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


DAMAGED = [
    {"box": {"ap50": ["a"]}},
    [{"path": "val/000.png", "found": 1}],
    [{"path": "val/images/004.png", "map": "!"}],
]


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
    run = write_run(tmp_path / "run", maps, segmentation.report(empty, maps.val.classes, []))
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
    splits = open_dense_splits(folder)
    run = write_run(tmp_path / "run", splits, segmented(splits.val))
    page = page_of(run, splits.val)
    shown = section(page, "worst-images")
    assert Page(page).ids == list(SEGMENTATION) and shown.count('class="legend') == shown.count("<figure") > 0
    assert shown.count("swatch") <= 8 * shown.count("<figure")


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


def relogged(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """`run` with every training row of its log changed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [change(row) if row["kind"] == "train" else row for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


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
