"""Several labels an image from data to answers: train, evaluate, predict and export say the same, with their own figures."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from commands import convnext, rows, tiny, trained
from convnext import load
from convnext.config import ClassificationRecipe, RunOptions, override
from convnext.data.opening import open_splits, recognise
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.tasks.classification.several.losses import entries
from convnext.tasks.classification.several.task import SeveralLabels
from labels_data import NAMES, in_columns, joined, made
from runs import bits

SAID = made(40)
SMALL = ("--epochs", 12, "--batch", 8, "--optim.lr", 3e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return in_columns(tmp_path_factory.mktemp("several") / "data", SAID, unknown={"001.png": "blue", "007.png": "red"})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("several") / "run"
    trained(data, out, *SMALL)
    return out


def result(*arguments):
    done = convnext(*arguments)
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_a_run_has_its_own_figures_and_neither_top1_nor_confusion(run, data):
    found = json.loads((run / "evaluation.json").read_text())
    assert {"map", "macro_f1", "micro_f1", "exact", "baseline_map", "loss"} <= set(found)
    assert not {"top1", "top5", "confusion", "ece"} & set(found)
    assert found["labels"] == "multi" and found["metric"] == "map" and found["classes"] == list(NAMES)
    assert found["map"] > found["baseline_map"]
    log = rows(run, "eval")
    assert found["map"] == pytest.approx(max(row["map"] for row in log), abs=1e-6)
    assert json.loads((run / "recipe.json").read_text())["labels"] == "multi"
    counts = json.loads((run / "data.json").read_text())
    assert counts["train"]["per_class"]["red"] + counts["val"]["per_class"]["red"] == (
        sum("red" in labels for name, labels in SAID.items() if name != "007.png")
    )


def test_evaluate_gives_the_figures_of_the_run_and_thresholds_of_the_run_judge_other_images(run, data, tmp_path):
    own = json.loads((run / "evaluation.json").read_text())
    again = result("evaluate", run, data, "--json", "--workers", 0)
    assert {name: again[name] for name in ("n", "map", "macro_f1", "exact")} == {
        name: own[name] for name in ("n", "map", "macro_f1", "exact")
    }
    assert again["thresholds_of"] == "these images, cross-fitted"
    other = result("evaluate", run, joined(tmp_path, made(10, seed=5)), "--json", "--workers", 0)
    assert other["n"] == 10 and other["thresholds_of"] == "the run"
    assert [row["threshold"] for row in other["per_class"]] == own["thresholds"]["values"]
    text = convnext("evaluate", run, data, "--workers", 0).out
    assert "mAP" in text and "Thresholds chosen by these images" in text and "top-1" not in text


def test_predict_names_every_class_above_its_threshold(run, data):
    images = data / "images"
    predictor = load(run)
    least = dict(zip(NAMES, predictor.thresholds.values, strict=True))
    found = list(predictor.predict(images, threshold=0.0))
    assert all(len(answer.predictions) == 3 for answer in found)
    for whole, answer in zip(found, predictor.predict(images), strict=True):
        assert answer.predictions == tuple((name, score) for name, score in whole.predictions if score >= least[name])
    listed = [json.loads(line) for line in convnext("predict", run, images, "--json", "--workers", 0).out.splitlines()]
    assert [row["label"] for row in listed[3]["predictions"]] == [
        name for name, _ in list(predictor.predict(images))[3].predictions
    ]
    text = convnext("predict", run, images, "--threshold", 1, "--workers", 0).out.splitlines()
    assert all(line.endswith(": nothing above its threshold") for line in text)
    sheet = list(csv.reader(io.StringIO(convnext("predict", run, images, "--csv", "--workers", 0).out)))
    assert len(sheet) == 41 and {len(row) for row in sheet} == {8}
    assert convnext("predict", run, images, "--threshold", 2).line


def test_the_same_command_gives_the_same_bits(data, run, tmp_path):
    trained(data, tmp_path / "a", *SMALL)
    assert bits(tmp_path / "a") == bits(run)


def test_the_report_shows_pairs_in_place_of_a_confusion(run):
    page = (run / "report.html").read_text()
    assert 'id="together"' in page and 'id="confusion"' not in page and "Mean average precision" in page
    assert 'id="calibration"' not in page and "Validation mAP" in page and "Threshold" in page
    (run / "evaluation.json").rename(run / "away.json")
    from convnext.reports.run import write_report

    write_report(run)
    assert "has no evaluation.json" in (run / "report.html").read_text()
    (run / "away.json").write_text((run / "away.json").read_text())
    (run / "away.json").rename(run / "evaluation.json")
    (run / "evaluation.json").write_text(json.dumps({"labels": "multi", "per_class": 3}))
    write_report(run)
    assert "does not hold what this version writes" in (run / "report.html").read_text()


def test_a_loss_is_refused_where_the_labels_are_of_another_kind(data, tmp_path):
    one = recipe("small", "atto", images=100, image_px=32, classes=2)
    assert isinstance(one, ClassificationRecipe) and one.labels == "single"
    with pytest.raises(ConvNeXtError, match=r"loss\.kind = 'bce' is not for labels = 'single': take ce"):
        override(one, {"loss.kind": "bce"})
    refused = convnext(*tiny(data, tmp_path / "run", "--loss.kind", "ce"))
    assert refused.status == 2 and "take bce, focal, asymmetric" in refused.err


@pytest.mark.parametrize("kind", ["focal", "asymmetric"])
def test_other_losses_train_too_with_mixing(data, tmp_path, kind):
    trained(data, tmp_path / "run", "--loss.kind", kind, "--augment.mixup", 0.5, "--augment.cutmix", 0.5, "--epochs", 1)
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path / "run"))


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_exported_file_answers_as_its_run_does(run, data, tmp_path, form):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    ending = {"onnx": ".onnx", "openvino": ".xml"}[form]
    out = tmp_path / f"model{ending}"
    assert convnext("export", run, "--to", form, "--out", out).status == 0
    images = data / "images"
    ours, theirs = load(run), load(out)
    assert theirs.thresholds == ours.thresholds and theirs.several
    for one, two in zip(ours.predict(images, threshold=0.0), theirs.predict(images, threshold=0.0), strict=True):
        assert dict(one.predictions) == pytest.approx(dict(two.predictions), abs=1e-4)
    scores = result("evaluate", out, data, "--json", "--workers", 0)
    assert scores["map"] == pytest.approx(
        json.loads(convnext("evaluate", run, data, "--json", "--workers", 0).out)["map"]
    )


@pytest.mark.parametrize("way", ["sampler", "weights"])
def test_uneven_classes_are_balanced_where_a_person_asks_for_it(data, tmp_path, way):
    done = trained(data, tmp_path / "run", "--balance", way, "--epochs", 1)
    assert f"(--balance {way})" in done.err
    recipe_of = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe_of["loss"]["balance"] == way and recipe_of["select"]["metric"] == "map"
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path / "run"))


def test_shares_of_classes_are_not_added_to_logits_that_have_thresholds_of_their_own(data, tmp_path):
    done = convnext(*tiny(data, tmp_path / "run", "--balance", "logits"))
    assert (
        done.status == 2
        and "each class has its own threshold" in done.err
        and "take none, sampler, weights" in done.err
    )


def test_the_loss_of_knowing_nothing_is_that_of_the_targets_as_they_are_smoothed(data, tmp_path):
    splits = open_splits(recognise(data))
    fields = {"labels": "multi", "loss.kind": "asymmetric", "select.metric": "map", "augment.smoothing": 0.1}
    chosen = override(recipe("small", "atto", images=32, image_px=32, classes=3), fields)
    task = SeveralLabels(nn.Identity(), chosen, RunOptions(out=str(tmp_path)), splits)
    marks = splits.train.labels()
    soft = np.where(marks == 1, 0.95, 0.05)
    logits = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    means = []
    for label in range(3):
        targets = torch.from_numpy(soft[marks[:, label] >= 0, label])
        shown = logits[:, None].expand(-1, len(targets))
        means.append(entries(chosen.loss, shown, targets.expand_as(shown)).mean(1).min().item())
    assert task.chance_loss == pytest.approx(np.mean(means), rel=1e-3)
