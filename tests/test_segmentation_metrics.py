"""Figures of segmentation against counts by hand."""

import math

import numpy as np
import pytest

from convnext.tasks.segmentation.metrics import (
    Judged,
    Outcomes,
    accuracy,
    confusion,
    iou,
    mean_iou,
    metrics,
    per_class,
)
from convnext.tasks.segmentation.report import report, worst

TRUTH = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 0, 2, 2]], np.uint8)
TABLE = np.array([[2, 1, 0], [0, 2, 1], [0, 0, 1]])  # by hand; the pixel labelled 255 is nowhere


def outcomes(*tables: np.ndarray, loss: float = 0.0) -> Outcomes:
    images = tuple(Judged.of(i, table, loss) for i, table in enumerate(tables))
    return Outcomes(np.sum(tables, axis=0), images)


def test_the_confusion_table_counts_pixels_by_ground_truth_and_answer_and_leaves_ignored_ones_out():
    assert (confusion(PREDICTED, TRUTH, 3) == TABLE).all()
    assert confusion(PREDICTED, np.full_like(TRUTH, 255), 3).sum() == 0


def test_confusion_is_what_a_loop_over_pixels_gives():
    rng = np.random.default_rng(0)
    ground_truth, predicted = rng.choice([0, 1, 2, 3, 255], (9, 11)), rng.integers(0, 4, (9, 11))
    table = np.zeros((4, 4), int)
    for t, p in zip(ground_truth.flat, predicted.flat, strict=True):
        if t != 255:
            table[t, p] += 1
    assert (confusion(predicted, ground_truth.astype(np.uint8), 4) == table).all()


def test_iou_accuracy_and_their_means_are_those_by_hand():
    assert iou(TABLE) == pytest.approx([2 / 3, 2 / 4, 1 / 2])
    assert accuracy(TABLE) == pytest.approx([2 / 3, 2 / 3, 1])
    found = metrics(outcomes(TABLE, loss=3.5))
    assert found["miou"] == pytest.approx((2 / 3 + 0.5 + 0.5) / 3)
    assert found["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["pixel_accuracy"] == pytest.approx(5 / 7) and found["loss"] == pytest.approx(0.5)


def test_a_class_that_is_neither_there_nor_said_does_not_count_but_one_that_is_only_said_does():
    table = np.zeros((4, 4), int)
    table[0, 0], table[1, 1], table[0, 2] = 6, 2, 2
    assert iou(table)[:3] == pytest.approx([6 / 8, 1, 0]) and math.isnan(iou(table)[3])
    assert mean_iou(table) == pytest.approx((6 / 8 + 1 + 0) / 3)
    assert mean_iou(np.zeros((2, 2), int)) == 0


def test_miou_is_of_all_pixels_together_not_a_mean_over_images():
    one, other = np.array([[8, 0], [0, 0]]), np.array([[0, 0], [1, 1]])
    assert metrics(outcomes(one, other))["miou"] == pytest.approx((8 / 9 + 1 / 2) / 2)


def test_the_rows_of_classes_say_none_where_there_is_nothing_to_divide_by():
    table = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    first, second, third = per_class(table, ("road", "car", "sky"))
    assert first == {"name": "road", "pixels": 4, "iou": 0.75, "accuracy": 0.75, "precision": 1.0}
    assert second["iou"] == 0 and second["accuracy"] is None and second["precision"] == 0
    assert third["iou"] is third["accuracy"] is third["precision"] is None


def test_the_worst_images_come_first_with_what_was_taken_for_what():
    tables = [np.diag([5, 5]), np.array([[1, 4], [0, 5]]), np.zeros((2, 2), int), np.array([[4, 1], [0, 5]])]
    rows = worst(outcomes(*tables), ("road", "car"), ["a", "b", "c", "d"], most=2)
    assert [row["path"] for row in rows] == ["b", "d"]  # 'c' has no pixel that counts
    assert (rows[0]["label"], rows[0]["predicted"], rows[0]["pixels"]) == ("road", "car", 4)
    assert rows[0]["pixel_accuracy"] == pytest.approx(0.6)


def test_parts_of_a_dataset_join_to_the_whole_in_its_order():
    tables = [np.array([[i, 1], [0, 2]]) for i in range(4)]
    whole = outcomes(*tables)
    parts = [Outcomes(tables[i] + tables[i + 1], whole.images[i : i + 2]) for i in (2, 0)]
    joined = Outcomes.join(parts)
    assert joined.images == whole.images and (joined.table == whole.table).all()


def test_the_report_holds_every_figure_and_plain_numbers_only():
    import json

    content = report(outcomes(TABLE, TABLE), ("a", "b", "c"), ["x.png", "y.png"])
    assert json.loads(json.dumps(content)) == content
    assert content["n"] == 2 and content["confusion"] == (2 * TABLE).tolist() and len(content["worst"]) == 2
