"""Figures of several labels an image: average precision, thresholds, F1; each against ten plain lines or scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext.reports.several_text import notes_of
from convnext.tasks.classification.several.metrics import (
    MIDDLE,
    Outcomes,
    average_precisions,
    crossfitted,
    fitted_thresholds,
    metrics,
    probabilities,
)
from convnext.tasks.classification.several.report import report

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def outcomes(seed: int, images: int = 60, classes: int = 5, unknown: float = 0.2) -> Outcomes:
    rng = np.random.default_rng(seed)
    marks = (rng.random((images, classes)) < rng.uniform(0.1, 0.7, classes)).astype(np.int8)
    logits = np.round(rng.normal(size=marks.shape) + 1.5 * marks, 1)  # rounded: some scores are the same
    marks[rng.random(marks.shape) < unknown] = -1
    return Outcomes.of(logits.astype(np.float32), marks, np.arange(images))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_average_precision_is_that_of_scikit_learn_over_the_known_entries(seed):
    found = outcomes(seed)
    for label, ap in enumerate(average_precisions(found)):
        known = found.marks[:, label] >= 0
        has, score = found.marks[known, label], found.score[known, label]
        if not has.any():
            assert np.isnan(ap)
        else:
            assert ap == pytest.approx(sklearn.average_precision_score(has, score), abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_f1_at_given_thresholds_is_that_of_scikit_learn(seed):
    found, thresholds = outcomes(seed, unknown=0), np.linspace(0.3, 0.7, 5)
    has, told = found.marks == 1, found.score >= thresholds
    held = np.flatnonzero(has.any(0))
    scores = metrics(found, thresholds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = sklearn.f1_score(has, told, average=None)
        assert scores["macro_f1"] == pytest.approx(each[held].mean())
        assert scores["micro_f1"] == pytest.approx(sklearn.f1_score(has, told, average="micro"))
    assert scores["exact"] == pytest.approx(sklearn.accuracy_score(has, told))


def test_a_threshold_is_the_best_of_all_that_there_are():
    found = outcomes(3, images=200)
    for label, threshold in enumerate(fitted_thresholds(found)):
        known = found.marks[:, label] >= 0
        has, score = found.marks[known, label] == 1, found.score[known, label]

        def f1(cut, has=has, score=score):
            told = score >= cut
            return 2 * (has & told).sum() / max(1, has.sum() + told.sum())

        assert f1(threshold) == max(f1(cut) for cut in np.unique(score))


def test_a_class_with_few_images_takes_the_threshold_of_all_entries():
    marks = np.zeros((40, 2), np.int8)
    marks[:20, 0], marks[:2, 1] = 1, 1
    logits = np.where(marks == 1, 2.0, -2.0).astype(np.float32)
    logits[:2, 1] = -3.0  # by themselves these two would ask for a threshold that says yes to all
    common, rare = fitted_thresholds(Outcomes.of(logits, marks, np.arange(40)))
    assert (
        common == pytest.approx(rare) and probabilities(np.array([-2.0]))[0] < rare < probabilities(np.array([2.0]))[0]
    )


def test_a_handful_of_entries_choose_no_threshold_and_the_report_names_who_shares_one():
    marks = np.zeros((40, 3), np.int8)
    marks[:3, 0] = marks[3, 1] = 1
    found = Outcomes.of(np.where(marks == 1, -3.0, -4.0).astype(np.float32), marks, np.arange(40))
    assert fitted_thresholds(found).tolist() == [MIDDLE] * 3
    marks[:20, 2] = 1
    said = notes_of(report(Outcomes(found.index, marks, found.score, found.loss), ("a", "b", "c"), ["x"] * 40))
    assert "2 classes have no threshold of their own but that of all together" in said and said.count(": a, b.") == 1
    assert "threshold of" not in notes_of(report(found, ("a", "b", "c"), ["x"] * 40, np.full(3, 0.5)))


def test_no_image_has_a_say_in_the_thresholds_that_judge_it():
    found = outcomes(5, images=50)
    before = crossfitted(found)
    for image in range(0, 50, 7):
        marks = found.marks.copy()
        marks[image] = 1 - marks[image].clip(0)
        changed = Outcomes(found.index, marks, found.score, found.loss)
        assert np.array_equal(crossfitted(changed)[image], before[image])


def test_a_class_that_no_image_has_is_named_and_in_no_mean():
    marks = np.array([[1, 0, -1], [0, 0, -1], [1, 0, 0]], np.int8)
    found = Outcomes.of(np.array([[3, -3, 0], [-3, -3, 0], [3, 3, 0]], np.float32), marks, np.arange(3))
    scores = metrics(found, np.full(3, 0.5))
    assert scores["map"] == scores["macro_f1"] == 1.0 and scores["exact"] == pytest.approx(2 / 3)
    rows = report(found, ("a", "b", "c"), ["x", "y", "z"], np.full(3, 0.5))["per_class"]
    assert [(row["n"], row["known"], row["ap"], row["f1"]) for row in rows] == [
        (2, 3, 1.0, 1.0),
        (0, 3, None, None),
        (0, 1, None, None),
    ]
    assert scores["baseline_map"] == pytest.approx(2 / 3)


def test_the_report_counts_what_goes_together_and_names_the_most_wrong_images():
    marks = np.array([[1, 1], [1, 0], [0, 1]], np.int8)
    logits = np.array([[4, -4], [4, 4], [-4, 4]], np.float32)
    found = report(Outcomes.of(logits, marks, np.arange(3)), ("cat", "dog"), ["x", "y", "z"], np.full(2, 0.5))
    assert found["labelled"] == [[2, 1], [1, 2]] and found["predicted"] == [[2, 1], [1, 2]]
    assert {row["path"] for row in found["worst"]} == {"x", "y"}
    row = next(row for row in found["worst"] if row["path"] == "x")
    assert (row["labels"], row["predicted"], row["missed"], row["wrong"]) == (["cat", "dog"], ["cat"], ["dog"], [])
    assert "top1" not in found and "confusion" not in found and found["labels"] == "multi"


def test_the_loss_of_an_image_is_the_mean_over_what_is_known_of_it():
    found = Outcomes.of(np.array([[0.0, 2.0, 9.0]]), np.array([[0, 1, -1]], np.int8), np.arange(1))
    assert found.loss[0] == pytest.approx((np.log(2) + np.log1p(np.exp(-2.0))) / 2, rel=1e-6)
