"""Suites of harder images where an image may have several labels: 1 - mAP in place of top-1, unknown entries left out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from commands import convnext, trained
from convnext import load
from convnext.config import InputConfig
from convnext.data.loader import eval_batches
from convnext.data.opening import open_labelled, recognise
from convnext.studies.robustness.attacks import Attack
from convnext.studies.robustness.corruptions import Corruption
from convnext.tasks.classification.passing import Pass
from labels_data import in_columns, joined, made

SAID = made(24)
INPUT = InputConfig(size_px=8, eval_size_px=8)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several_suites")
    in_columns(folder / "data", SAID, unknown={"001.png": "blue", "007.png": "red"})
    trained(folder / "data", folder / "run", "--epochs", 6, "--batch", 8, "--optim.lr", 3e-3)
    in_columns(folder / "others", made(20, seed=3), unknown={"002.png": "green", "005.png": "red"})
    return folder


def result(*arguments):
    done = convnext(*arguments)
    assert done.status == 0, done.err
    return json.loads(done.out)


def average_precision(scores: np.ndarray, marks: np.ndarray) -> float:
    """The slow way: at each image that has the class, the share of such images among those scored as high."""
    known = marks >= 0
    scores, has = scores[known], marks[known] == 1
    return float(np.mean([has[scores >= score].mean() for score in scores[has]]))


def test_a_cell_is_one_minus_the_map_on_the_changed_images_and_unknown_entries_count_nowhere(place, tmp_path):
    how = ["--suite", "corruptions", "--names", "contrast", "--severities", "1,5", "--seed", 7, "--workers", 0]
    found = result("evaluate", place / "run", place / "others", *how, "--out", tmp_path, "--json")
    predictor = load(place / "run")
    dataset = open_labelled(recognise(place / "others", annotated=False), classes=predictor.classes)
    marks = dataset.labels()
    assert (marks == -1).sum() == 2
    for severity in (1, 5):
        change = Corruption("contrast", severity, seed=7)
        (batch,) = eval_batches(dataset, predictor.recipe.input, batch=20, change=change)
        scores = predictor.probabilities(batch.images.numpy())
        aps = [average_precision(scores[:, k], marks[:, k]) for k in range(3)]
        assert found["errors"]["contrast"][str(severity)] == pytest.approx(1 - np.mean(aps), abs=1e-6)
    assert found["measure"] == "map" and found["n"] == 20
    plain = result("evaluate", place / "run", place / "others", "--json", "--workers", 0)
    assert 1 - found["clean"]["error"] == pytest.approx(plain["map"], abs=1e-6)
    text = convnext("evaluate", place / "run", place / "others", *how, "--out", tmp_path).out
    assert "1 - mAP at severity" in text and "clean mAP" in text and "top-1" not in text


def test_a_run_that_parted_the_data_itself_is_measured_on_what_it_held_out(place, tmp_path):
    how = ["--suite", "c-bar", "--names", "sparkles", "--severities", 1, "--workers", 0, "--out", tmp_path, "--json"]
    found = result("evaluate", place / "run", place / "data", *how)
    assert found["n"] == json.loads((place / "run/evaluation.json").read_text())["n"] < 24


def test_an_attack_follows_the_gradient_of_the_known_entries_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    images = torch.randint(40, 200, (2, 8, 8, 3), dtype=torch.uint8)
    marks = torch.tensor([[1, 0, -1], [-1, -1, 0]], dtype=torch.int8)
    shown = Attack("fgsm", 2).pixels(model, images, marks, torch.arange(2), INPUT)
    clean = (images.permute(0, 3, 1, 2).float() / 255).requires_grad_()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (INPUT.mean, INPUT.std))
    p = model((clean - mean) / std).sigmoid()
    (-(p[0, 0].log() + (1 - p[0, 1]).log() + (1 - p[1, 2]).log())).backward()
    assert torch.allclose(shown, clean.detach() + 2 / 255 * clean.grad.sign(), atol=1e-6)
    nobody = Attack("fgsm", 2).pixels(model, images, torch.full_like(marks, -1), torch.arange(2), INPUT)
    assert torch.equal(nobody, clean.detach())


def test_attacks_raise_the_loss_and_are_told_as_one_minus_map(place, tmp_path):
    how = ["--suite", "attacks", "--eps", 16, "--steps", 3, "--workers", 0, "--out", tmp_path, "--json"]
    found = result("evaluate", place / "run", place / "others", *how)
    predictor = load(place / "run")
    dataset = open_labelled(recognise(place / "others", annotated=False), classes=predictor.classes)
    clean = predictor.label_outcomes(dataset)
    misled = predictor.label_outcomes(dataset, Pass(attack=Attack("pgd", 16, 3, 2.5 * 16 / 3)))
    assert (misled.loss >= clean.loss - 1e-6).all()
    aps = [average_precision(misled.score[:, k], misled.marks[:, k]) for k in range(3)]
    assert found["errors"]["pgd"]["16"] == pytest.approx(1 - np.mean(aps), abs=1e-6)


def test_data_of_some_of_the_classes_leave_the_others_unknown(place, tmp_path):
    two = joined(
        tmp_path / "two", {name: [label for label in labels if label != "blue"] for name, labels in SAID.items()}
    )
    found = result("evaluate", place / "run", two, "--suite", "subset", "--json", "--workers", 0)
    assert [row["known"] for row in found["per_class"]] == [0, 24, 24]
    assert found["map"] == pytest.approx(np.mean([row["ap"] for row in found["per_class"][1:]]))


def test_an_exported_file_is_measured_as_its_run(place, tmp_path):
    pytest.importorskip("onnxruntime")
    assert convnext("export", place / "run", "--to", "onnx", "--out", tmp_path / "model.onnx").status == 0
    how = ["--suite", "corruptions", "--names", "fog", "--severities", 3, "--workers", 0, "--json"]
    ours = result("evaluate", place / "run", place / "others", *how, "--out", tmp_path / "a")
    theirs = result("evaluate", tmp_path / "model.onnx", place / "others", *how, "--out", tmp_path / "b")
    assert theirs["errors"]["fog"]["3"] == pytest.approx(ours["errors"]["fog"]["3"], abs=1e-6)
    refused = convnext(
        "evaluate", tmp_path / "model.onnx", place / "others", "--suite", "attacks", "--out", tmp_path / "c"
    )
    assert refused.status == 2 and "has no gradients to attack it by" in refused.err


def test_what_has_no_meaning_for_several_labels_is_one_line(place, tmp_path):
    def ask(*more):
        return convnext("evaluate", place / "run", place / "others", "--out", tmp_path / "out", *more).line

    assert "'alexnet' measures top-1 error" in ask("--suite", "corruptions", "--reference", "alexnet")
    real = convnext("evaluate", place / "run", place / "others", "--suite", "real", "--real", "x.json").line
    assert "several labels an image, none of which is first" in real
    bare = in_columns(tmp_path / "bare", {name: [] for name in SAID})
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    done = convnext(
        "evaluate", place / "run", bare, "--suite", "corruptions", "--out", tmp_path / "out", "--workers", 0
    )
    assert done.status == 2 and "None of these images has a label" in done.err
