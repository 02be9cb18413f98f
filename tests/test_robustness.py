"""Suites: arithmetic by hand, resuming, subsets of classes and several right answers against slow versions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from convnext.config import parse
from convnext.data.loader import eval_batches
from convnext.data.opening import open_labelled, recognise
from convnext.data.transforms import normalise
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.errors import ConvNeXtError, DataError
from convnext.models.build import build_model
from convnext.recipes import recipe
from convnext.studies.robustness.corruptions import IMAGENET_C, Corruption
from convnext.studies.robustness.scores import ALEXNET, Reference, reference_of, summarise
from convnext.studies.robustness.subsets import imagenet_order, open_real, open_subset, real_accuracy
from convnext.studies.robustness.suite import choose_reference, read_results, run_suite, suite
from convnext.studies.robustness.text import robustness_text
from convnext.tasks.classification.inference import judged, restricted
from images import write_colours

CLASSES = ("blue", "green", "red")


@pytest.fixture
def data(tmp_path) -> Path:
    return write_colours(tmp_path / "data", train=0, val=4) / "val"


@pytest.fixture
def predictor(tmp_path) -> TrainedClassifier:
    return make_predictor(tmp_path, CLASSES)


def make_predictor(folder: Path, classes: tuple[str, ...]) -> TrainedClassifier:
    chosen = recipe("small", model="atto", classes=len(classes), images=12, image_px=24)
    values = chosen.model_dump()
    values["model"] |= {"depths": (1, 1), "widths": (8, 16), "patch": 2, "head_scale": 4.0}
    values["input"] |= {"size_px": 16, "eval_size_px": 16}
    chosen = parse(type(chosen), values, where="test")
    torch.manual_seed(0)
    model = build_model(chosen.model).eval()
    source = folder / "weights"
    source.write_bytes(b"weights")
    return TrainedClassifier(model, chosen, classes, torch.device("cpu"), source, {})


def small_suite():
    return suite("corruptions", names=["contrast", "gaussian_noise"], severities=[1, 5], seed=7)


def test_the_mean_corruption_error_is_the_one_worked_by_hand():
    errors = {"fog": {"1": 0.2, "2": 0.4}, "snow": {"1": 0.5, "2": 0.7}}
    reference = Reference("r", "by hand", 0.1, {"fog": 0.6, "snow": 0.8}, frozenset("12"))
    found = summarise(errors, 0.1, reference)
    assert found["mean_error"] == pytest.approx(0.45)
    assert found["ce"] == pytest.approx({"fog": 0.5, "snow": 0.75}) and found["mce"] == pytest.approx(0.625)
    assert found["relative_mce"] == pytest.approx(((0.3 - 0.1) / (0.6 - 0.1) + (0.6 - 0.1) / (0.8 - 0.1)) / 2)


def test_alexnet_against_itself_is_one_hundred_percent():
    itself = {name: dict.fromkeys("12345", error) for name, error in ALEXNET.means.items()}
    found = summarise(itself, ALEXNET.clean, ALEXNET)
    assert found["mce"] == pytest.approx(1) and found["relative_mce"] == pytest.approx(1)
    assert list(ALEXNET.means) == list(IMAGENET_C)


def test_the_published_relative_mce_of_resnet50_follows_from_its_published_ces():
    ces = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)  # percent, arXiv 1903.12261, Table 1
    errors = {
        name: dict.fromkeys("12345", ce / 100 * mean)
        for ce, (name, mean) in zip(ces, ALEXNET.means.items(), strict=True)
    }
    found = summarise(errors, 0.239, ALEXNET)
    assert found["mce"] == pytest.approx(0.767, abs=0.005)  # whole percents in the table
    assert found["relative_mce"] == pytest.approx(1.05, abs=0.015)


def test_a_corruption_comes_after_the_crop_and_follows_the_index(data, predictor):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    change = Corruption("glass_blur", 2, seed=1)
    (clean,) = eval_batches(dataset, predictor.recipe.input, batch=12)
    expected = np.stack([change(image.numpy(), i) for i, image in enumerate(clean.images)])
    for workers in (0, 2):
        noisy = list(eval_batches(dataset, predictor.recipe.input, batch=5, change=change, workers=workers))
        assert np.array_equal(torch.cat([part.images for part in noisy]).numpy(), expected)


def test_a_cell_is_the_error_of_the_network_on_corrupted_images(data, predictor, tmp_path):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    found = run_suite(predictor, dataset, small_suite(), tmp_path / "out", progress=False)
    change = Corruption("contrast", 5, seed=7)
    (batch,) = eval_batches(dataset, predictor.recipe.input, batch=12, change=change)
    with torch.no_grad():
        said = predictor.model(normalise(batch.images, predictor.recipe.input)).argmax(1)
    assert found["errors"]["contrast"]["5"] == pytest.approx((said != batch.labels).float().mean().item())
    assert found["n"] == 12 and found["images_per_s"] > 0
    text = robustness_text(found)
    assert "mean error" in text and "gaussian_noise" in text and "mCE" not in text


def test_an_interrupted_suite_goes_on_and_ends_with_the_same_file(data, predictor, tmp_path, monkeypatch):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run_suite(predictor, dataset, small_suite(), whole, progress=False)
    outcomes, calls = TrainedClassifier.outcomes, []

    def stops(self, *arguments, **more):
        calls.append(1)
        if len(calls) == 4:  # clean and two cells are done
            raise KeyboardInterrupt
        return outcomes(self, *arguments, **more)

    monkeypatch.setattr(TrainedClassifier, "outcomes", stops)
    with pytest.raises(KeyboardInterrupt):
        run_suite(predictor, dataset, small_suite(), parts, progress=False)
    assert sum(map(len, read_results(parts / "robustness.json")["cells"].values())) == 2
    again = run_suite(predictor, dataset, small_suite(), parts, progress=False)
    assert len(calls) == 6  # two cells were left
    assert (parts / "robustness.json").read_bytes() == (whole / "robustness.json").read_bytes()
    assert again["errors"] == expected["errors"] and again["summary"] == expected["summary"]


def test_results_of_another_network_or_seed_are_not_mixed(data, predictor, tmp_path):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    out = tmp_path / "out"
    run_suite(predictor, dataset, small_suite(), out, progress=False)
    with pytest.raises(ConvNeXtError, match="its seed differ"):
        run_suite(predictor, dataset, suite("c-bar", names=["sparkles"], severities=[1]), out, progress=False)
    predictor.source.write_bytes(b"other")
    with pytest.raises(ConvNeXtError, match="its checkpoint differ"):
        run_suite(predictor, dataset, small_suite(), out, progress=False)
    (out / "robustness.json").write_text("[]")
    with pytest.raises(ConvNeXtError, match=r"it is no robustness\.json"):
        run_suite(predictor, dataset, small_suite(), out, progress=False)


def test_another_runs_file_serves_as_reference(data, predictor, tmp_path):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    run_suite(predictor, dataset, small_suite(), tmp_path / "a", progress=False)
    file = tmp_path / "a" / "robustness.json"
    found = json.loads(file.read_text())
    found["clean"]["error"] = 0.0
    for cells in found["cells"].values():
        for cell in cells.values():
            cell["error"] = 0.5
    file.write_text(json.dumps(found))
    reference = choose_reference(str(file), small_suite())
    result = run_suite(predictor, dataset, small_suite(), tmp_path / "b", reference=reference, progress=False)
    assert result["summary"]["mce"] == pytest.approx(result["summary"]["mean_error"] / 0.5)
    assert "mCE" in robustness_text(result)
    with pytest.raises(ConvNeXtError, match="has no errors for 'fog'"):
        choose_reference(str(file), suite("corruptions", names=["fog"], severities=[1, 5]))
    with pytest.raises(ConvNeXtError, match="severities 1, reference"):
        choose_reference(str(file), suite("corruptions", names=["contrast"], severities=[1]))
    del found["cells"]["contrast"]["5"]
    with pytest.raises(ConvNeXtError, match="is not finished"):
        reference_of(found, "a")


def test_alexnet_is_the_reference_of_the_whole_suite_alone():
    assert choose_reference("auto", suite("corruptions")) is ALEXNET
    assert choose_reference("none", suite("corruptions")) is None
    assert choose_reference("auto", small_suite()) is None and choose_reference("auto", suite("c-bar")) is None
    assert len(suite("corruptions").cells) == 75 and len(suite("c-bar").cells) == 50
    with pytest.raises(ConvNeXtError, match="Did you mean 'corruptions'"):
        suite("corruption")
    with pytest.raises(ConvNeXtError, match="Did you mean 'fog'"):
        suite("corruptions", names=["fogg"])


def test_accuracy_does_not_rise_under_attack(data, predictor, tmp_path):
    dataset = open_labelled(recognise(data, annotated=False), classes=CLASSES)
    found = run_suite(predictor, dataset, suite("attacks", eps=(4, 32), steps=3), tmp_path / "out", progress=False)
    clean = found["clean"]["error"]
    assert all(error >= clean for cells in found["errors"].values() for error in cells.values())
    assert found["errors"]["pgd"]["32"] >= found["errors"]["pgd"]["4"]
    assert "eps / 255" in robustness_text(found)


def test_answers_are_limited_to_the_classes_of_the_subset():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    only = (1, 3, 4)
    labels = torch.tensor(only).repeat(17)[:50]
    found = judged(restricted(logits, only), labels, torch.arange(50))
    slow = [only[int(np.argmax([row[k] for k in only]))] for row in logits.numpy()]
    assert found.predicted.tolist() == slow
    part = torch.tensor(logits.numpy()[:, list(only)]).log_softmax(1)
    assert found.loss.tolist() == pytest.approx([-part[i, only.index(k)].item() for i, k in enumerate(labels.tolist())])
    assert restricted(logits, ()) is logits


def test_a_folder_of_some_classes_is_a_subset_and_its_labels_are_the_models(data, tmp_path):
    found = open_subset(recognise(data, annotated=False), ("amber", "red", "green", "blue", "white"))
    assert found.only == (1, 2, 3)
    assert {(entry.path.split("/")[0], entry.label) for entry in found.dataset.entries} == {
        ("red", 1), ("green", 2), ("blue", 3)
    }  # fmt: skip
    predictor = make_predictor(tmp_path, ("amber", "red", "green", "blue", "white"))
    outcomes = predictor.outcomes(found.dataset, only=found.only)
    assert set(outcomes.predicted.tolist()) <= {1, 2, 3}
    assert open_subset(recognise(data, annotated=False), CLASSES).only == ()
    with pytest.raises(DataError, match="has class 'red', which the model does not know"):
        open_subset(recognise(data, annotated=False), ("amber", "rad", "green", "blue"))


def test_a_class_is_the_models_however_its_accents_are_written(data):
    for name, called in {"red": "rose\u0301", "green": "th\u00e9", "blue": "blue"}.items():
        (data / name).rename(data / called)
    found = open_subset(recognise(data, annotated=False), ("blue", "ros\u00e9", "the\u0301", "white"))
    assert found.only == (0, 1, 2)


def test_numbered_folders_are_places_in_the_order_of_wordnet_ids(data):
    for name, number in {"red": "0", "green": "2", "blue": "1"}.items():
        (data / name).rename(data / number)
    classes = ("n00000009", "n00000001", "n00000005")
    assert imagenet_order(classes) == [1, 2, 0]
    found = open_subset(recognise(data, annotated=False), classes)
    assert {(entry.path.split("/")[0], entry.label) for entry in found.dataset.entries} == {
        ("0", 1), ("1", 2), ("2", 0)
    }  # fmt: skip


def test_real_accuracy_counts_any_accepted_answer_and_leaves_out_images_without_one(tmp_path):
    folder = write_colours(tmp_path / "d", train=0, val=2, classes=2) / "val"
    files = sorted(folder.rglob("*.png"))
    for number, file in enumerate(files, start=1):
        file.rename(file.with_name(f"ILSVRC2012_val_{number:08d}.png"))
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[1, 7], [], [999], [3]]))
    classes = tuple(f"n{9999 - k:08d}" for k in range(1000))  # the model's order is the reverse of ImageNet's
    found = open_real(folder, real, classes)
    assert found.answers == (frozenset({998, 992}), frozenset({0}), frozenset({996})) and found.left_out == 1
    logits = torch.zeros(3, 1000)
    logits[0, 992] = logits[1, 5] = logits[2, 996] = 1
    outcomes = judged(logits, torch.tensor([e.label for e in found.dataset.entries]), torch.arange(3))
    assert real_accuracy(outcomes, found) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="this model knows 3"):
        open_real(folder, real, CLASSES)
    real.write_text("{}")
    with pytest.raises(DataError, match="is no ReaL file"):
        open_real(folder, real, classes)
