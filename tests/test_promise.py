"""Promises and sets: what they guarantee on simulated scores, what they say where they cannot, and who abstains by them."""

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import convnext as package
from commands import convnext, trained
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.extras import installed
from convnext.tasks.classification.conformal import Sets, covered, fewest, sets_of
from convnext.tasks.classification.promise import least, like, luck, promise_text, refused, threshold_of
from images import write_colours


def images(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores and whether each is right: as often as the score says, above 0.9 a little less."""
    score = rng.beta(4, 1, n)
    return score, rng.random(n) < score - 0.02 * (score > 0.9)


def accuracy_above(threshold: float, *, many: int = 400_000) -> float:
    score, right = images(many, np.random.default_rng(99))
    return float(right[score >= threshold].mean())


def within(rate: float, n: int) -> float:
    """The largest share of n trials that chance makes of `rate` in 999 of 1,000 cases."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(("n", "accuracy"), [(150, 0.8), (600, 0.9), (2000, 0.9)])
def test_the_promised_accuracy_is_missed_in_at_most_5_of_100_cases(n, accuracy):
    rng, missed, trials = np.random.default_rng(n), 0, 300
    for _ in range(trials):
        threshold = threshold_of(*images(n, rng), accuracy)
        missed += threshold is not None and accuracy_above(threshold, many=40_000) < accuracy
    assert missed / trials <= within(0.05, trials)


def test_most_of_what_an_oracle_answers_is_answered():
    def images(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        score = rng.beta(3, 0.4, n)  # as sharp as those of a network that has learnt its classes
        return score, rng.random(n) < score

    score, right = images(400_000, np.random.default_rng(99))
    rates = np.cumsum(right[np.argsort(-score)]) / np.arange(1, len(score) + 1)
    oracle = (np.flatnonzero(rates >= 0.9).max() + 1) / len(score)
    rng, shares = np.random.default_rng(0), []
    for _ in range(40):
        threshold = threshold_of(*images(2000, rng), 0.9)
        shares.append(0 if threshold is None else (score >= threshold).mean())
    assert np.mean(shares) > 0.8 * oracle


def test_where_tests_begin_follows_from_scores_alone_and_misses_stay_within_5_of_100_cases():
    n, accuracy, floor, rest, power = 1962, 0.98, 0.004, 0.177, 4.5
    most = ((1 - accuracy - floor) / rest) ** (1 / (power - 1))  # what can be answered, had one endless images
    rng, shares = np.random.default_rng(3), []
    for _ in range(150):
        place = np.sort(rng.random(n))
        wrong = floor + rest * power * place ** (power - 1)
        threshold = threshold_of(1 - wrong, rng.random(n) >= wrong, accuracy)
        shares.append(0 if threshold is None else place[1 - wrong >= threshold][-1])
    assert np.mean(np.array(shares) > most) <= within(0.05, 150)
    assert 0.5 * most < np.mean(shares) < 0.8 * most  # one who knew the accuracy at every score would come to 0.71


def test_how_likely_so_few_mistakes_are_is_counted_by_the_binomial_distribution():
    for wrong, n, accuracy in ((0, 299, 0.99), (0, 298, 0.99), (7, 90, 0.85), (3, 3, 0.5)):
        counted = sum(math.comb(n, k) * (1 - accuracy) ** k * accuracy ** (n - k) for k in range(wrong + 1))
        assert luck(wrong, n, accuracy) == pytest.approx(counted, rel=1e-9)


def test_299_images_without_a_mistake_promise_99_percent_and_298_do_not():
    assert least(0.99) == 299 and least(0.95) == 59
    score = np.linspace(0.5, 0.99, 299)
    assert threshold_of(score, np.ones(299, bool), 0.99) == 0.0
    assert threshold_of(score[1:], np.ones(298, bool), 0.99) is None
    said = refused(score[1:], np.ones(298, bool), 0.99, "test")
    assert said["least"] == 299 and not said["kept"]


def test_images_of_one_score_are_answered_together_or_not_at_all():
    score = np.array([0.9] * 100 + [0.5] * 100, np.float32)
    right = np.array([True] * 100 + [False] * 60 + [True] * 40)
    assert threshold_of(score, right, 0.9) == pytest.approx(0.7)
    assert threshold_of(np.full(200, 0.9), right, 0.9) is None


def test_a_mistake_among_the_surest_does_not_end_the_search_where_there_are_many_images():
    score = np.linspace(1, 0, 3000)
    right = np.ones(3000, bool)
    right[[0, 1]] = False  # a wrong label, and a copy of it
    assert threshold_of(score, right, 0.99) == 0.0


def test_what_a_promise_would_take_is_what_would_keep_it():
    score, right = np.linspace(1, 0, 500), np.arange(500) % 70 != 35  # 1.4 % are wrong, wherever one looks
    assert threshold_of(score, right, 0.98) is None
    more = refused(score, right, 0.98, "test")["wanted"]
    assert 1000 < more < 3000
    times = math.ceil(2 * more / 500)
    score, right = np.linspace(1, 0, 500 * times), np.tile(right, times)
    assert threshold_of(score, right, 0.98) == 0.0
    assert refused(score, np.arange(len(score)) % 2 == 0, 0.98, "test")["wanted"] is None


def test_a_promise_that_fails_narrowly_wants_more_images_than_there_are_and_gets_them():
    right = np.ones(372, bool)
    right[3::16] = False  # so few could be luck once in 94 times, were all images one test
    score = np.linspace(1, 0, 372)
    about = refused(score, right, 0.9, "test")
    assert 372 < about["wanted"] < 744
    assert f"with mistakes as often as among these, about {about['wanted']} would be needed." in promise_text(about)
    assert threshold_of(score, right, 0.9) is None
    assert threshold_of(*like(score, right, about["wanted"]), 0.9) is not None


def test_more_images_like_these_are_wrong_as_often_and_as_sure():
    score, right = np.array([0.9, 0.5, 0.7, 0.6]), np.array([True, False, False, True])
    same, flags = like(score, right, 4)
    assert same.tolist() == [0.9, 0.7, 0.6, 0.5] and flags.tolist() == [True, False, True, False]
    more, flags = like(score, right, 400)
    assert abs(int((~flags).sum()) - 200) <= 1 and (~flags)[:100].sum() == 0 and (~flags)[100:200].all()
    assert (np.diff(more) <= 0).all() and (more.min(), more.max()) == (0.5, 0.9)


# Sets


def simulated(n: int, rng: np.random.Generator, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) logarithms of scores that are too sure, and labels."""
    logits = rng.normal(0, 2, (n, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) < rng.random((n, 1))).sum(1)
    sure = 1.7 * logits
    return sure - np.log(np.exp(sure).sum(1, keepdims=True)), labels


@pytest.mark.parametrize(("n", "coverage"), [(60, 0.8), (400, 0.9)])
def test_sets_hold_the_right_class_as_often_as_was_asked(n, coverage):
    rng, shares = np.random.default_rng(n), []
    for _ in range(150):
        sets = sets_of(*simulated(n, rng), coverage, "test")
        log_scores, labels = simulated(400, rng)
        shares.append(covered(sets.sizes(log_scores), log_scores, labels).mean())
    assert np.mean(shares) >= coverage - 3.1 * np.std(shares) / len(shares) ** 0.5
    assert np.mean(shares) <= coverage + 0.05


def test_a_set_is_what_the_definition_says_class_by_class():
    log_scores, labels = simulated(40, np.random.default_rng(3))
    sets = Sets(0.9, most=0.7, penalty=0.05, free=2, n=100, part="test")
    for row, label, size in zip(log_scores, labels, sets.sizes(log_scores), strict=True):
        order = np.argsort(-row)
        members = set()
        for place, k in enumerate(order):
            against = np.exp(row[order[:place]]).sum() + 0.05 * max(0, place + 1 - 2)
            members |= {k} if against <= 0.7 else set()
        assert set(order[:size]) == members | {order[0]}
        assert covered(np.array([size]), row[None], np.array([label]))[0] == (label in set(order[:size]))


def test_too_few_images_give_no_sets():
    assert fewest(0.9) == 12
    log_scores, labels = simulated(12, np.random.default_rng(0))
    assert sets_of(log_scores, labels, 0.9, "test") and sets_of(log_scores[1:], labels[1:], 0.9, "test") is None


# A run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Colours, some under a wrong name, in train, val and test."""
    folder = write_colours(tmp_path_factory.mktemp("colours"), val=30)
    shutil.copytree(folder / "val", folder / "test")
    for number in range(4):
        (folder / "test" / "red" / f"{number:03d}.png").rename(folder / "test" / "blue" / f"odd{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(data, out, "--epochs", 3, "--promise", 0.8, "--sets", 0.9)
    return out


def kept_in(run: Path) -> dict:
    return checkpoint.read_metadata(weights_file(run))["decision"]


def test_a_run_measures_its_promise_on_the_test_part_and_keeps_it(run):
    told = json.loads((run / "evaluation.json").read_text())
    assert told["promise"]["part"] == told["sets"]["part"] == "test" and told["promise"]["kept"]
    assert told["promise"]["n"] == 90 and told["promise"]["here"]["right"] >= 0.8
    assert kept_in(run)["promise"]["threshold"] == told["promise"]["threshold"]
    assert told["n"] == 90 and told["decision"] == kept_in(run)


def test_without_a_test_part_it_says_that_the_same_images_chose_the_weights(data, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(data / part, tmp_path / "colours" / part)
    done = trained(tmp_path / "colours", tmp_path / "run", "--epochs", 1, "--promise", 0.99)
    said = json.loads((tmp_path / "run" / "evaluation.json").read_text())["promise"]
    assert said == {"accuracy": 0.99, "confidence": 0.95, "kept": False, "n": 90, "part": "held out"} | {
        "least": 299, "wanted": said["wanted"]
    }  # fmt: skip
    assert "90 held-out images cannot carry it: 299 without a mistake would be needed at least" in done.err
    assert "promise" not in kept_in(tmp_path / "run")


def test_predict_abstains_by_it_in_text_json_and_csv(run, data, monkeypatch):
    decision = kept_in(run)
    answers = [json.loads(line) for line in convnext("predict", run, data / "test", "--json").out.splitlines()]
    for answer in answers:
        score = answer["predictions"][0]["score"]
        assert answer["answered"] == (np.float32(score) >= decision["promise"]["threshold"])
        assert answer["set"][0] == answer["predictions"][0]["label"]
    text = convnext("predict", run, data / "test").out.splitlines()
    assert [": not sure: " in line for line in text] == [not answer["answered"] for answer in answers]
    table = list(csv.DictReader(io.StringIO(convnext("predict", run, data / "test", "--csv").out)))
    assert [row["answered"] for row in table] == ["yes" if answer["answered"] else "no" for answer in answers]
    assert [row["set"].split(";") for row in table] == [answer["set"] for answer in answers]


def test_evaluate_measures_a_promise_and_keeps_it_when_asked(run, data, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    how = {"part": "test", "promise": 0.6, "sets": 0.8}
    before = kept_in(copy)
    found = package.evaluate(copy, data, **how)
    assert found["promise"]["accuracy"] == 0.6 and kept_in(copy) == before
    tensors = checkpoint.read(weights_file(copy))[0]
    found = package.evaluate(copy, data, **how, keep=True)
    assert kept_in(copy) == found["decision"] and found["decision"]["promise"]["accuracy"] == 0.6
    assert all((value == tensors[name]).all() for name, value in checkpoint.read(weights_file(copy))[0].items())
    said = convnext("evaluate", copy, data, "--part", "test", "--promise", 0.999)
    assert said.status == 0 and "Promise of 99.9 %: 90 images of the test part cannot carry it" in said.out


def test_a_promise_is_judged_by_the_test_part_where_none_is_named_and_never_by_what_was_learnt(run, data):
    told = convnext("evaluate", run, data, "--promise", 0.6, "--json")
    assert json.loads(told.out)["promise"]["part"] == "test"
    assert "The test part judges it, 90 images that chose nothing; --part val takes the held-out images" in told.err
    told = convnext("evaluate", run, data, "--promise", 0.6, "--part", "val")
    assert (
        "They also chose the weights: a part 'test' would be a better judge." in told.out
        and "judges it" not in told.err
    )
    refused = convnext("evaluate", run, data, "--sets", 0.8, "--part", "train").line
    assert refused.startswith("The run was trained on these very images") and "they cannot show a promise" in refused


@pytest.mark.skipif(not (installed("onnx") and installed("onnxscript")), reason="the extra 'export' is not installed")
def test_an_exported_file_abstains_as_its_run_does(run, data, tmp_path):
    file = tmp_path / "x.onnx"
    assert convnext("export", run, "--to", "onnx", "--out", file).status == 0
    told = [
        [json.loads(line) for line in convnext("predict", each, data / "test", "--json").out.splitlines()]
        for each in (run, file)
    ]
    for one, other in zip(*told, strict=True):
        assert (one["answered"], one["set"]) == (other["answered"], other["set"])
    told = [json.loads(convnext("evaluate", each, data, "--promise", 0.6, "--json").out) for each in (run, file)]
    assert told[0]["promise"] == told[1]["promise"]
    with pytest.raises(ConvNeXtError, match="is exported and stays as it is"):
        package.evaluate(file, data, promise=0.6, keep=True)


def test_a_server_abstains_as_predict_does(run, data):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from convnext.deploy.serve.models import open_models
    from serving import one

    file = data / "test" / "blue" / "odd0.png"
    found = one(open_models([str(run)], device="cpu"), "POST", "/v1/predict", content=file.read_bytes())
    (served,) = found.json()["results"]
    printed = json.loads(convnext("predict", run, file, "--json", "--device", "cpu").out)
    assert {"answered", "set"} <= set(served) and served | {"path": ""} == printed | {"path": ""}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--promise", "1"), "promise = 1.0 is refused"),
        (("--promise", "0.3"), "from 0.5 to 0.9999"),
        (("--promise", "all"), "not a number from 0 to 1"),
        (("--sets", "0.2"), "sets = 0.2 is refused"),
        (("--keep",), "Add --promise 0.99, or --sets 0.9"),
        (("--promise", "0.9", "--suite", "subset"), "--promise does not go with --suite subset"),
    ],
)
def test_what_cannot_be_promised_is_refused_in_one_line(run, data, words, said):
    assert said in convnext("evaluate", run, data, *words).line


def test_a_promise_is_refused_before_training_begins(data, tmp_path):
    assert "from 0.5 to 0.9999" in convnext("train", data, "--out", tmp_path / "x", "--promise", "1").line
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("promise", "threshold", 1.5), ("promise", "accuracy", None), ("sets", "free", 0), ("sets", "most", "all")],
)
def test_a_wrong_promise_in_a_file_is_one_line(run, tmp_path, part, field, value):
    tensors, metadata = checkpoint.read(weights_file(run))
    decision = metadata["decision"]
    wrong = decision | {part: decision[part] | {field: value}}
    checkpoint.save(tmp_path / "x.safetensors", tensors, metadata | {"decision": wrong})
    with pytest.raises(CheckpointError, match=rf"decision\.{part}\.{field} = "):
        package.load(tmp_path / "x.safetensors")


def test_the_report_says_what_is_promised(run):
    page = (run / "report.html").read_text("utf-8")
    assert "Promise of 80 %" in page and "Sets of 90 %" in page
