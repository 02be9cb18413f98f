"""Scores that mean what they say: the temperature and the stretch, where they are kept, and who applies them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convnext as package
from commands import convnext, trained
from convnext.deploy.classifier import best_of
from convnext.deploy.load import load
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.errors import CheckpointError
from convnext.extras import installed
from convnext.tasks.classification import conclusion
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.calibration import (
    FEWEST,
    FOLDS,
    SOFTMAX,
    STRETCHED,
    WIDEST,
    Scale,
    fit,
    fitted,
    log_softmax,
)
from convnext.tasks.classification.decision import PLAIN, Decision
from convnext.tasks.classification.metrics import Outcomes, joined, metrics
from convnext.tasks.classification.selective import aurc, risk_coverage
from images import write_colours


def simulated(n: int, *, temperature: float = 1.0, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at `temperature` is the very chance of each class, and labels sampled by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    p = np.exp(logits / temperature)
    p /= p.sum(1, keepdims=True)
    return logits.astype(np.float32), (p.cumsum(1) < rng.random((n, 1))).sum(1)


def smoothed(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A network that label smoothing taught: where it is always right it claims 91 %, where it is unsure the truth."""
    rng = np.random.default_rng(seed)
    margin = np.where(rng.random(n) < 0.6, np.log(91), rng.uniform(0, 2.5, n))
    logits = np.zeros((n, 10))
    logits[np.arange(n), 0] = margin
    p = np.exp(margin) / (np.exp(margin) + 9)
    right = np.where(margin > 4, True, rng.random(n) < p)
    order = rng.permuted(np.tile(np.arange(10), (n, 1)), axis=1)  # the class that is meant is another for each image
    shuffled = np.take_along_axis(logits, order, 1)
    first = order.argmin(1)
    return shuffled.astype(np.float32), np.where(right, first, (first + rng.integers(1, 10, n)) % 10)


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The mean loss with a share of each label spread over all classes, written out."""
    log_p = log_softmax(logits / temperature)
    share = 1 / (len(labels) + 2)
    return float(-((1 - share) * log_p[np.arange(len(labels)), labels] + share * log_p.mean(1)).mean())


def error(log_p: np.ndarray, labels: np.ndarray) -> float:
    """The calibration error."""
    n = len(labels)
    p, log_p = np.exp(log_p).astype(np.float32), log_p.astype(np.float32)
    return metrics(Outcomes.of(p, log_p, labels, np.arange(n)))["ece"]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = simulated(20_000, temperature=temperature)
    assert fitted(logits, labels).temperature == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("n", [2, 9, 60, 500])
def test_no_temperature_of_a_fine_grid_has_a_lower_loss(n):
    logits, labels = simulated(n, temperature=1.7, seed=n)
    found = fitted(logits, labels)
    grid = np.geomspace(1 / WIDEST, WIDEST, 4000)
    assert loss(logits, labels, found.temperature) <= min(loss(logits, labels, each) for each in grid) + 1e-12


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.sampled_from([0.0, 1e-6, 1.0, 30.0, 1e4]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_whatever_the_logits_the_scale_is_within_its_bounds_and_never_changes_the_order(n, k, size, seed, all_right):
    rng = np.random.default_rng(seed)
    logits = (size * rng.normal(size=(n, k))).astype(np.float32)
    labels = logits.argmax(1) if all_right else rng.integers(0, k, n)
    scale, apart = fit(logits, labels)
    assert 1 / WIDEST <= scale.temperature <= WIDEST and 0 <= scale.stretch < np.inf
    scores = scale.log_scores(logits)
    assert np.isfinite(scores).all() and np.isfinite(apart).all()
    for row in (scores, apart):
        assert (np.take_along_axis(row, logits.argmax(1)[:, None], 1)[:, 0] == row.max(1)).all()
        assert np.exp(row).sum(1) == pytest.approx(1)


def test_images_that_are_all_right_do_not_ask_for_scores_of_100_percent():
    logits = np.eye(3, dtype=np.float32)[np.arange(12) % 3] * 20
    scores = np.exp(fitted(logits, np.arange(12) % 3).log_scores(logits)).max(1)
    assert (scores > 12 / 14 - 0.01).all() and (scores < 0.99).all()


def test_the_stretch_is_kept_where_label_smoothing_needs_it_and_nowhere_else():
    logits, labels = smoothed(4000)
    scale, apart = fit(logits, labels)
    alone = fitted(logits, labels).log_scores(logits)
    assert scale.stretch > 0
    assert 1.5 * error(apart, labels) < error(alone, labels)
    kept = [fit(*simulated(400, temperature=1.5, seed=seed))[0].stretch > 0 for seed in range(16)]
    assert sum(kept) <= 8  # a gain beyond one standard error comes by chance in 16 of 100


def test_no_image_is_scored_by_what_its_own_label_decided():
    logits, labels = simulated(60, temperature=2.0)
    scale, apart = fit(logits, labels)
    place = np.empty(60, int)
    place[np.argsort(labels, kind="stable")] = np.arange(60)
    for part in range(FOLDS):
        held = place % FOLDS == part
        own = fitted(logits[~held], labels[~held], stretched=scale.stretch > 0)
        assert np.array_equal(apart[held], own.log_scores(logits[held]))


@pytest.mark.parametrize("seed", range(8))
def test_few_images_fit_no_temperature_and_a_stretch_takes_more(seed):
    logits, labels = simulated(2, temperature=4.0, seed=seed)
    assert fit(logits, labels)[0] == SOFTMAX
    logits, labels = simulated(FEWEST, temperature=4.0, classes=5, seed=seed)
    short, apart = fit(logits[:-1], labels[:-1])
    assert short == SOFTMAX and np.array_equal(apart, log_softmax(logits[:-1]))
    assert 2 < fit(logits, labels)[0].temperature < 10
    assert fit(logits, np.zeros(FEWEST, np.int64))[0] == SOFTMAX  # one class says nothing of the others
    broken = np.where(np.arange(FEWEST)[:, None] == 3, np.nan, logits)
    assert fit(broken, labels)[0] == SOFTMAX  # 29 that give numbers
    assert fit(*smoothed(STRETCHED - 1, seed))[0].stretch == 0


def test_images_that_give_no_number_have_no_say():
    logits, labels = simulated(50, temperature=2.0)
    broken = np.concatenate([logits, np.full((3, 5), np.nan, np.float32)])
    assert fitted(broken, np.append(labels, [0, 1, 2])) == fitted(logits, labels)
    assert fitted(broken[50:], np.array([0, 1, 2])) == SOFTMAX


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_the_area_under_the_risk_coverage_curve_is_the_mean_over_all_orders_of_images_with_one_score(rows):
    score = np.array([each for each, _ in rows], np.float32)
    wrong = np.array([each for _, each in rows])
    found = Outcomes(*(np.arange(len(rows)),) * 3, wrong.astype(np.int64), score, score, score)
    rng, orders = np.random.default_rng(0), []
    for _ in range(400):
        tried = rng.permutation(len(rows))
        tried = tried[np.argsort(-score[tried], kind="stable")]
        orders.append((np.cumsum(wrong[tried]) / np.arange(1, len(rows) + 1)).mean())
    assert aurc(found) == pytest.approx(np.mean(orders), abs=5 * np.std(orders) / 400**0.5 + 1e-9)
    curve = risk_coverage(found)
    assert curve[-1] == [1.0, pytest.approx(wrong.mean())]


# Where it is kept


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"), val=10)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(data, out, "--epochs", 1)
    return out


def by_hand(logits: np.ndarray, kept: dict) -> np.ndarray:
    """softmax(c z), as docs/scores.md writes it."""
    second, first = np.sort(logits.astype(np.float64), 1)[:, -2:].T
    z = logits * (1 / kept["temperature"] + kept["stretch"] * (first - second) ** 2)[:, None]
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def logits_of(source: Path, folder: Path) -> np.ndarray:
    predictor = load(source, task="classification", device="cpu")
    return np.concatenate([predictor._logits(predictor._transform(np.array(image))[None]) for image in opened(folder)])


def opened(folder: Path) -> list:
    from PIL import Image

    return [Image.open(file).convert("RGB") for file in sorted(folder.rglob("*.png"))]


def test_a_run_keeps_what_was_fitted_beside_its_class_names(run):
    kept = checkpoint.read_metadata(weights_file(run))["decision"]
    told = json.loads((run / "evaluation.json").read_text())
    assert told["decision"] == kept and kept["n"] == 30 and kept["temperature"] != 1
    assert {"ece", "ece_before", "loss", "loss_before", "aurc", "calibration_before", "risk_coverage"} <= set(told)
    assert "decision" in checkpoint.read_metadata(weights_file(run))


def test_the_predictor_applies_it_and_the_first_class_stays(run, data):
    kept = checkpoint.read_metadata(weights_file(run))["decision"]
    logits = logits_of(run, data / "val")
    answers = list(package.load(run).predict(data / "val"))
    expected = by_hand(logits, kept)
    assert [dict(answer.predictions) for answer in answers] == [
        pytest.approx(dict(zip(("blue", "green", "red"), row, strict=True)), abs=1e-6) for row in expected
    ]
    assert [answer.predictions[0][0] for answer in answers] == [("blue", "green", "red")[k] for k in logits.argmax(1)]


def test_the_images_that_it_was_fitted_on_are_cross_fitted_whenever_they_are_evaluated(run, data):
    told = json.loads((run / "evaluation.json").read_text())
    again = json.loads(convnext("evaluate", run, data, "--json").out)
    for name in ("top1", "loss", "ece", "loss_before", "ece_before", "aurc"):
        assert again[name] == pytest.approx(told[name], abs=1e-5)
    rows = [label for label, name in enumerate(("blue", "green", "red")) for _ in range(10)]
    _, apart = fit(logits_of(run, data / "val"), np.array(rows))
    assert told["loss"] == pytest.approx(-apart[np.arange(30), rows].mean(), abs=1e-4)


def test_other_images_are_scored_by_what_was_kept(run, data):
    kept = checkpoint.read_metadata(weights_file(run))["decision"]
    found = json.loads(convnext("evaluate", run, data, "--part", "train", "--json").out)
    p = by_hand(logits_of(run, data / "train"), kept)
    rows = np.repeat([0, 1, 2], 12)
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(36), rows]).mean(), abs=1e-4)


def test_the_terminal_and_the_report_say_what_it_did(run, data):
    assert "Scores: temperature " in convnext("evaluate", run, data).out
    page = (run / "report.html").read_text("utf-8")
    assert "The same before it was fitted" in page and "which class is first never changes" in page
    assert "Wrong, where only the surest are answered" in page


def test_too_few_held_out_images_are_said_wherever_scores_are_told(tmp_path):
    few = write_colours(tmp_path / "few", val=3)
    trained(few, tmp_path / "few_run", "--epochs", 1)
    kept = checkpoint.read_metadata(weights_file(tmp_path / "few_run"))["decision"]
    assert (kept["temperature"], kept["stretch"], kept["n"]) == (1, 0, 9)
    said = "9 held-out images are too few to fit a temperature to: 30 would do"
    out = convnext("evaluate", tmp_path / "few_run", few).out
    assert said in out and "Top-1 on so few is anything from " in out
    assert said in (tmp_path / "few_run" / "report.html").read_text("utf-8")


@pytest.mark.skipif(not (installed("onnx") and installed("onnxscript")), reason="the extra 'export' is not installed")
def test_an_exported_file_carries_it_and_answers_the_same(run, data, tmp_path):
    assert convnext("export", run, "--to", "onnx", "--out", tmp_path / "x.onnx").status == 0
    kept = checkpoint.read_metadata(weights_file(run))["decision"]
    assert package.load(tmp_path / "x.onnx").metadata["decision"] == kept
    pairs = zip(*(package.load(each).predict(data / "val") for each in (run, tmp_path / "x.onnx")), strict=True)
    for one, other in pairs:
        assert dict(one.predictions) == pytest.approx(dict(other.predictions), abs=1e-5)
    scores = [json.loads(convnext("evaluate", each, data, "--json").out) for each in (run, tmp_path / "x.onnx")]
    for name in ("top1", "loss", "ece", "loss_before", "ece_before", "aurc"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-5)


def test_weights_without_one_answer_with_the_plain_softmax(run, data):
    file = weights_file(run, "last")
    assert "decision" not in checkpoint.read_metadata(file)
    assert load(run, task="classification", weights="last").decision == PLAIN


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("temperature", 0, "a number above 0"),
        ("temperature", "hot", "a number above 0"),
        ("temperature", True, "a number above 0"),
        ("stretch", -1, "a number, 0 or more"),
        ("stretch", None, "a number, 0 or more"),
        ("images", 3, "text"),
        ("n", 1.5, "a whole number"),
    ],
)
def test_a_wrong_decision_in_a_file_is_one_line(tmp_path, run, field, value, kind):
    tensors, metadata = checkpoint.read(weights_file(run))
    checkpoint.save(tmp_path / "x.safetensors", tensors, metadata | {"decision": metadata["decision"] | {field: value}})
    with pytest.raises(CheckpointError, match=rf"decision\.{field} = .*{kind}"):
        package.load(tmp_path / "x.safetensors")
    checkpoint.save(tmp_path / "y.safetensors", tensors, metadata | {"decision": 3})
    with pytest.raises(CheckpointError, match="decision = 3 in its header"):
        package.load(tmp_path / "y.safetensors")


def test_of_more_logits_than_are_held_an_even_sample_decides_and_all_are_scored(run, data, monkeypatch):
    whole = json.loads((run / "evaluation.json").read_text())
    logits = logits_of(run, data / "val")
    labels = np.repeat([0, 1, 2], 10)
    dataset = package.load(run)
    monkeypatch.setattr(conclusion, "MOST", 45)  # of 30 images with three logits: every second
    from convnext.tasks.opening import part_of, source_of

    images = part_of(source_of(data, "classification"), part="val", classes=dataset.classes)

    def asked(some):
        places = [images.entries.index(entry) for entry in some.entries]
        return [Answers(np.arange(len(places)), labels[places], logits[places])]

    found = conclusion.conclude(images, asked, PLAIN, fit=True)
    expected = fit(logits[::2], labels[::2])[0]
    assert Decision.of(found.about, "x").scale == expected and found.about["decision"]["n"] == 15
    p = np.exp(Scale(expected.temperature, expected.stretch).log_scores(logits))
    assert found.n == 30 and found["loss"] == pytest.approx(-np.log(p[np.arange(30), labels]).mean(), rel=1e-5)
    assert found["top1"] == whole["top1"]


@pytest.mark.parametrize("n", [4, 12, 40])
def test_cross_fitted_scores_are_never_worse_in_the_mean_than_those_of_the_network(n):
    kept = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        logits, labels = 3 * generator.normal(size=(n, 3)), np.arange(n) % 3  # which say nothing about each other
        right = generator.random(n) < 0.6
        logits[right, labels[right]] += 4
        scale, apart = fit(logits, labels)
        rows = np.arange(n)
        assert apart[rows, labels].mean() >= log_softmax(logits)[rows, labels].mean()
        kept.append(scale)
    assert SOFTMAX in kept or n == 40


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(1, 14))
def test_the_best_of_many_classes_are_those_of_a_sort_of_all_equal_ones_in_their_order(values, count):
    row = np.array(values, np.float32)
    assert best_of(row, count).tolist() == np.argsort(-row, kind="stable")[:count].tolist()


def test_outcomes_that_are_joined_on_the_way_are_those_that_are_joined_at_the_end():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(150, 4)).astype(np.float32), random.integers(0, 4, 150)
    parts = [Answers(np.array([i]), labels[i : i + 1], logits[i : i + 1]).outcomes() for i in range(150)]
    few = list(joined(iter(parts), Outcomes.join))
    assert [len(each) for each in few] == [64, 64, 22]
    for name in Outcomes.__dataclass_fields__:
        assert np.array_equal(getattr(Outcomes.join(few), name), getattr(Outcomes.join(parts), name))
