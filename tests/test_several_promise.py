"""Promises where an image may have several labels: a score for each class, its confidence, and what predict makes of it."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from commands import convnext, tiny, trained
from convnext import load
from convnext.data.labelled import UNKNOWN
from convnext.errors import CheckpointError
from convnext.tasks.classification.several.metrics import Outcomes
from convnext.tasks.classification.several.promise import labels_promise_text, promised, told
from convnext.tasks.classification.several.thresholds import Thresholds
from labels_data import NAMES, in_columns, made


def outcomes(scores: np.ndarray, marks: np.ndarray) -> Outcomes:
    n = len(scores)
    return Outcomes(np.arange(n), marks.astype(np.int8), scores.astype(np.float32), np.zeros(n, np.float32))


def simulated(rng: np.random.Generator, n: int) -> Outcomes:
    """Two classes whose scores are the chance of having them, and one whose scores know nothing."""
    scores = rng.random((n, 3))
    chance = np.stack([scores[:, 0], np.sqrt(scores[:, 1]), np.full(n, 0.5)], 1)
    return outcomes(scores, rng.random((n, 3)) < chance)


def test_each_class_is_promised_by_itself_and_its_promise_is_missed_in_one_of_twenty_at_most():
    missed, kept = np.zeros(2), 0
    for seed in range(200):
        found = promised(simulated(np.random.default_rng(seed), 4000), 0.9, "test")
        assert found.values[2] is None
        for label, precision in enumerate((lambda t: (1 + t) / 2, lambda t: (1 - t**1.5) / 1.5 / (1 - t))):
            value = found.values[label]
            kept += value is not None
            missed[label] += value is not None and precision(value) < 0.9  # of endless images with such a score
    assert kept > 250
    assert (missed <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)).all()


def test_what_nobody_knows_of_an_image_has_no_say():
    score = np.linspace(1, 0.5, 60)[:, None]
    marks = np.ones((60, 1))
    marks[40:] = 0
    plain = promised(outcomes(score[:59], marks[:59]), 0.9, "test").values
    more = outcomes(np.concatenate([score[:59], [[0.99]] * 50]), np.concatenate([marks[:59], [[UNKNOWN]] * 50]))
    assert promised(more, 0.9, "test").values == plain and plain[0] is not None
    assert told(more, promised(more, 0.9, "test"), ["cat"])["classes"][0]["known"] == 59


def test_a_promise_is_told_class_by_class_with_what_would_be_needed():
    seen = simulated(np.random.default_rng(3), 4000)
    about = told(seen, promised(seen, 0.9, "held out"), NAMES)
    rows = {row["name"]: row for row in about["classes"]}
    assert about["kept"] and rows["red"]["threshold"] is None and rows["red"]["sure"] == 0
    green = rows["green"]
    given = seen.score[:, 1] >= green["threshold"]
    assert green["sure"] == given.sum() and green["right"] == pytest.approx((seen.marks[given, 1] == 1).mean())
    text = labels_promise_text(about)
    assert text.startswith("Promise of 90 %, for each class: 4,000 held-out images show it of ")
    assert "red (even its surest answers are not right that often)" in text and "They also chose the weights" in text
    none = labels_promise_text(told(seen, promised(seen, 0.999, "test"), NAMES))
    assert none.startswith(
        "Promise of 99.9 %, for each class: 4,000 images of the test part show it of 0 classes of 3. Not of "
    )


def test_thresholds_with_a_promise_are_read_as_they_are_written_and_damage_is_one_line():
    whole = {
        "values": [0.2, 0.3],
        "images": "x",
        "promise": {"accuracy": 0.9, "values": [0.7, None], "n": 9, "part": "test"},
    }
    found = Thresholds.of({"thresholds": whole}, 2, "model.onnx")
    assert found.to_dict() == whole and found.sure().tolist() == [0.7, 2.0]
    assert Thresholds.of({"thresholds": {"values": [0.2, 0.3], "images": ""}}, 2, "m").sure().tolist() == [2.0, 2.0]
    for wrong in (
        [],
        {"accuracy": 2},
        {**whole["promise"], "values": [0.7]},
        {**whole["promise"], "values": [0.7, "x"]},
    ):
        with pytest.raises(CheckpointError, match=r"thresholds\.promise in its header"):
            Thresholds.of({"thresholds": {**whole, "promise": wrong}}, 2, "model.onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return in_columns(tmp_path_factory.mktemp("several") / "data", made(64), unknown={"001.png": "blue"})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("several") / "run"
    trained(data, out, "--epochs", 12, "--batch", 8, "--optim.lr", 3e-3, "--promise", 0.5)
    return out


def test_a_run_keeps_its_promise_and_predict_says_which_classes_are_sure(run, data):
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["promise"]["part"] == "held out" and kept["thresholds"]["promise"]["accuracy"] == 0.5
    predictor = load(run)
    sure = dict(zip(NAMES, predictor.thresholds.sure().tolist(), strict=True))
    assert min(sure.values()) < 1
    for whole, answer in zip(
        predictor.predict(data / "images", threshold=0.0), predictor.predict(data / "images"), strict=True
    ):
        told = {name for name, score in whole.predictions if score >= sure[name]}
        assert set(answer.to_dict()["sure"]) == told <= {name for name, _ in answer.predictions}
        assert ("not sure: " in answer.text()) == (len(told) < len(answer.predictions))
    sheet = list(csv.DictReader(io.StringIO(convnext("predict", run, data / "images", "--csv", "--workers", 0).out)))
    first = list(predictor.predict(data / "images"))
    assert [row["sure"] for row in sheet] == [";".join(answer.to_dict()["sure"]) for answer in first]


def test_evaluate_measures_a_promise_and_keeps_it_for_exports(run, data, tmp_path):
    pytest.importorskip("onnxruntime")
    told = convnext("evaluate", run, data, "--promise", 0.6, "--keep", "--workers", 0)
    assert told.status == 0 and "Promise of 60 %, for each class: " in told.out
    assert load(run).thresholds.promise.accuracy == 0.6
    out = tmp_path / "model.onnx"
    assert convnext("export", run, "--to", "onnx", "--out", out).status == 0
    assert load(out).thresholds == load(run).thresholds
    again = json.loads(convnext("evaluate", out, data, "--promise", 0.6, "--json", "--workers", 0).out)
    assert again["promise"]["accuracy"] == 0.6 and again["promise"]["part"] == "held out"


def test_sets_are_refused_with_what_does_the_same_for_several_labels(run, data, tmp_path):
    line = convnext("evaluate", run, data, "--sets", 0.9).line
    assert line == (
        "--sets 0.9 is refused: a set holds the one right class of an image, and these images may have several labels. "
        "--promise 0.9 says from which score on each class is right that often."
    )
    done = convnext(*tiny(data, tmp_path / "run", "--sets", 0.9))
    assert done.status == 2 and line in done.err
