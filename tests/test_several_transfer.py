"""Several labels an image from weights: a probe, fine-tuning from its head, a mix, crosswise where images are few."""

import json
from pathlib import Path

import pytest

from commands import convnext, trained
from convnext import load
from convnext.reports.run import write_report
from images import write_colours
from labels_data import NAMES, in_columns, made


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    trained(write_colours(folder / "data", size=16, train=6, val=2), folder / "run", "--epochs", 1)
    return folder / "run"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    unknown = {"001.png": "blue", "007.png": "red"}
    return in_columns(tmp_path_factory.mktemp("several") / "data", made(32), unknown=unknown)


def tuned(data: Path, weights: Path, out: Path, *more: object) -> dict:
    words = ["train", data, "--weights", weights, "--out", out, "--batch", 8, "--epochs", 1, "--workers", 0, *more]
    done = convnext(*words)
    assert done.status == 0, done.err
    return json.loads((out / "evaluation.json").read_text()) | {"said": done.err}


def test_the_best_of_probe_fine_tuned_and_mixed_weights_is_kept_with_its_thresholds(data, weights, tmp_path):
    found = tuned(data, weights, tmp_path / "run", "--start.folds", 0, "--start.mix", "[0.5]")
    assert {"probe_map", "finetuned_map", "mixed_map"} <= set(found) and found["metric"] == "map"
    best = max(found[f"{name}_map"] for name in ("probe", "finetuned", "mixed"))
    assert found["map"] == pytest.approx(best, abs=1e-6) == pytest.approx(found[f"{found['chosen']}_map"], abs=1e-6)
    assert "Frozen features: mAP" in found["said"] and "Kept:" in found["said"]
    predictor = load(tmp_path / "run")
    assert predictor.thresholds.to_dict() == found["thresholds"] and predictor.several
    page = write_report(tmp_path / "run").read_text()
    assert 'id="start"' in page and "mAP" in page and "95% interval" not in page


def test_a_probe_alone_learns_what_is_there(data, weights, tmp_path):
    found = tuned(data, weights, tmp_path / "run", "--freeze")
    assert found["weights"] == "probe" and found["map"] > found["baseline_map"]


def test_of_few_images_each_is_judged_once_by_a_network_that_has_not_seen_it(data, weights, tmp_path):
    found = tuned(data, weights, tmp_path / "run", "--start.folds", 2, "--start.mix", "[]")
    assert found["n"] == 32 and found["crosswise"] == 2
    assert {row["name"]: row["n"] for row in found["per_class"]} == {
        name: sum(name in labels for file, labels in made(32).items() if (file, name) != ("007.png", "red"))
        for name in NAMES
    }
    assert "mAP by cross-validation" in found["said"]
    again = convnext("evaluate", tmp_path / "run", data, "--json", "--workers", 0)
    assert "its mAP by cross-validation" in again.err
