"""Intervals of figures that are no shares of images: how often they hold the right value, and where none is given."""

import math

import numpy as np
import pytest

from convnext.data.opening import open_dense_splits, recognise
from convnext.tasks.classification.several.metrics import Outcomes as Labels
from convnext.tasks.classification.several.metrics import average_precisions, mean_of_known
from convnext.tasks.classification.several.report import report as labels_report
from convnext.tasks.detection.report import report as detection_report
from convnext.tasks.groups import FEWEST, GROUPS, interval
from convnext.tasks.segmentation.metrics import Judged, Outcomes, mean_iou
from convnext.tasks.segmentation.report import report
from dense_runs import guessed
from shape_objects import write_objects


def tables(rng: np.random.Generator, n: int) -> np.ndarray:
    """(N, 3, 3) pixels of images of three classes, the last in a third of them, some images far worse than others."""
    sizes = rng.integers(50, 400, (n, 3)) * np.stack([np.ones(n), np.ones(n), rng.random(n) < 0.33], 1).astype(int)
    right = rng.beta(4, 2, (n, 3))
    hits = np.rint(sizes * right).astype(int)
    found = np.zeros((n, 3, 3), int)
    for k in range(3):
        found[:, k, k] = hits[:, k]
        found[:, k, (k + 1) % 3] = sizes[:, k] - hits[:, k]
    return found


def outcomes(each: np.ndarray) -> Outcomes:
    groups = np.stack([each[place::GROUPS].sum(0) for place in range(GROUPS)])
    return Outcomes(each.sum(0), tuple(Judged.of(i, table, 0.0) for i, table in enumerate(each)), groups)


def test_the_interval_of_miou_holds_the_right_value_in_95_of_100_collections():
    right, rng = mean_iou(tables(np.random.default_rng(9), 50_000).sum(0)), np.random.default_rng(0)
    held = []
    for _ in range(300):
        low, high = report(outcomes(tables(rng, 120)), ("a", "b", "c"), [""] * 120)["intervals"]["miou"]
        held.append(low <= right <= high)
    assert 0.91 <= np.mean(held) <= 0.99


def test_few_images_and_few_groups_that_show_anything_have_no_interval():
    each = tables(np.random.default_rng(0), FEWEST - 1)
    assert "intervals" not in report(outcomes(each), ("a", "b", "c"), [""] * len(each))
    assert interval(0.5, [0.5, 0.6, 0.4, 0.5] + [math.nan] * 6, 100) is None
    low, high = interval(0.5, [0.4, 0.6] * 5, 100) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.5 - 2.262 * 0.105409 / 10**0.5, 0.5 + 2.262 * 0.105409 / 10**0.5), abs=1e-5)
    assert interval(0.99, [0.9, 1.0] * 5, 100) == pytest.approx((0.95229, 1.0), abs=1e-4)


def test_where_all_groups_are_perfect_the_interval_is_that_of_a_share_of_the_images():
    assert interval(1.0, [1.0] * 10, 47) == pytest.approx((0.9244, 1.0), abs=1e-4)  # Wilson's for 47 of 47


def test_the_interval_of_map_holds_the_right_value_in_95_of_100_collections():
    def of(rng: np.random.Generator, n: int) -> Labels:
        marks = (rng.random((n, 3)) < (0.5, 0.3, 0.2)).astype(np.int8)
        return Labels.of(rng.normal(1.5 * marks, 1), marks, np.arange(n))

    right, rng = mean_of_known(average_precisions(of(np.random.default_rng(9), 100_000))), np.random.default_rng(0)
    held = []
    for _ in range(300):
        low, high = labels_report(of(rng, 300), ("a", "b", "c"), [""] * 300)["intervals"]["map"]
        held.append(low <= right <= high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_the_interval_of_average_precision_is_about_its_value_and_narrower_with_more_images(tmp_path):
    write_objects(tmp_path / "few", val=24)
    write_objects(tmp_path / "many", val=96)
    widths = []
    for name in ("few", "many"):
        val = open_dense_splits(recognise(tmp_path / name, annotated=True, task="detection")).val
        found = detection_report(guessed(val), val)
        for kind in ("box_ap", "mask_ap"):
            low, high = found["intervals"][kind]
            assert low < found[kind] < high
        widths.append(found["intervals"]["box_ap"][1] - found["intervals"]["box_ap"][0])
    assert widths[1] < widths[0]
