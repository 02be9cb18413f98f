"""Uneven classes: losses by hand, what the counts choose, and that training and the probe do it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from commands import convnext, rows, tiny, trained
from convnext.config import AugmentConfig, LossConfig
from convnext.data.labelled import Dataset, Entry
from convnext.data.mix import mix
from convnext.recipes import recipe
from convnext.tasks.balance import Balance, balance_of, effective_number
from convnext.tasks.classification.balance import balance_line, balanced, unevenness
from convnext.tasks.classification.metrics import Outcomes, metrics
from convnext.tasks.classification.probe import fitted
from images import write_colours

COUNTS = torch.tensor([90, 9, 1])


# Losses


def test_the_effective_number_is_a_geometric_sum():  # arXiv 1901.05555, proposition 1
    slow = [sum(0.9**i for i in range(n)) for n in COUNTS.tolist()]
    assert effective_number(COUNTS.double(), 0.9).tolist() == pytest.approx(slow)


def test_weights_are_one_over_the_effective_number_and_one_on_average_over_the_images():
    weights = balance_of(LossConfig(balance="weights", beta=0.9), COUNTS).weights
    assert weights is not None
    slow = [(1 - 0.9) / (1 - 0.9**n) for n in COUNTS.tolist()]
    assert (weights / weights[2]).tolist() == pytest.approx([each / slow[2] for each in slow])
    assert float((weights * COUNTS).sum()) == pytest.approx(100)
    of_the_data = balance_of(LossConfig(balance="weights"), COUNTS).weights
    given = balance_of(LossConfig(balance="weights", beta=1 - 3 / 100), COUNTS).weights
    assert torch.equal(of_the_data, given)  # 100 images in 3 classes


@pytest.mark.parametrize("augment", [{"mixup": 0.8}, {"cutmix": 1.0}, {}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_loss_weights_each_component_of_a_mixed_image_by_its_own_class(augment, smoothing):
    labels = torch.tensor([0, 1, 2, 0, 2, 1])
    config = AugmentConfig(smoothing=smoothing, **augment)
    _, targets = mix(torch.zeros(6, 3, 8, 8), labels, 3, config, (1, 2, 3))
    _, plain = mix(torch.zeros(6, 3, 8, 8), labels, 3, config.model_copy(update={"smoothing": 0.0}), (1, 2, 3))
    balance = balance_of(LossConfig(balance="weights", beta=0.9), COUNTS)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = F.cross_entropy(logits, balance.targets(targets, smoothing))
    weights, losses = balance.weights.float(), []
    for image, shares in zip(logits, plain, strict=True):
        each = [F.cross_entropy(image, torch.tensor(label), label_smoothing=smoothing) for label in range(3)]
        losses.append(sum(share * weights[label] * each[label] for label, share in enumerate(shares)))
    assert float(found) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_logits_are_adjusted_by_the_shares_of_the_classes_in_training(tau):  # arXiv 2007.07314, equation 10
    balance = balance_of(LossConfig(balance="logits", tau=tau), COUNTS)
    logits, labels = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.3, 0.2]]), torch.tensor([2, 0])
    slow = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        powers = [math.exp(value) * (n / 100) ** tau for value, n in zip(row, (90, 9, 1), strict=True)]
        slow.append(-math.log(powers[label] / sum(powers)))
    assert float(balance.cross_entropy(logits.double(), labels)) == pytest.approx(sum(slow) / 2)


def test_a_network_that_fits_smoothed_targets_perfectly_names_the_right_class_whatever_the_balance():
    # Spread alike, the smoothing of 0.1 would give class 2 a third of 0.1 in every image, more than its share of 0.01:
    # what makes the loss least would call images of class 0 class 2.
    for kind in ("none", "weights", "logits"):
        balance = balance_of(LossConfig(balance=kind), COUNTS)
        hard = torch.eye(3)
        targets = balance.targets(hard * 0.9 + 0.1 / 3, 0.1)
        least = targets / targets.sum(1, keepdim=True)  # the softmax that minimises the cross-entropy
        shift = torch.zeros(3) if balance.shift is None else balance.shift.float()
        logits = least.log() - shift
        assert logits.argmax(1).tolist() == [0, 1, 2]
        if kind == "logits":  # the wrong classes are all as unlikely
            assert logits[0, 1] == pytest.approx(float(logits[0, 2]), abs=1e-5)


def test_without_balance_targets_and_logits_are_the_same_tensors():
    balance, x = Balance(), torch.rand(4, 3)
    assert balance.targets(x, 0.1) is x and balance.logits(x) is x


def test_a_class_without_images_is_no_trouble():
    for kind in ("sampler", "weights", "logits"):
        balance = balance_of(LossConfig(balance=kind), torch.tensor([5, 0, 2]))
        for tensor in (balance.weights, balance.shift):
            assert tensor is None or bool(tensor.isfinite().all())


def test_what_knowing_nothing_costs_is_the_least_loss_of_an_answer_that_is_the_same_for_all():
    for kind in ("none", "weights"):
        assert balance_of(LossConfig(balance=kind), COUNTS).of_knowing_nothing(COUNTS) == pytest.approx(math.log(3))
    shares = [0.9, 0.09, 0.01]
    entropy = -sum(share * math.log(share) for share in shares)
    assert balance_of(LossConfig(balance="logits"), COUNTS).of_knowing_nothing(COUNTS) == pytest.approx(entropy)


# Scores


def outcomes(labels: list[int], predicted: list[int]) -> Outcomes:
    n, found = len(labels), np.array(predicted)
    rank = (np.array(labels) != found).astype(np.int64)
    ones = np.full(n, 0.5, np.float32)
    return Outcomes(np.arange(n), np.array(labels), found, rank, ones, ones, ones)


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn(seed):
    scores = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 5, 7], 40, p=[0.6, 0.2, 0.1, 0.05, 0.05])  # of 3, 4 and 6 there are no images
    predicted = np.where(rng.random(40) < 0.5, labels, rng.choice([0, 1, 2, 5], 40))
    found = metrics(outcomes(labels.tolist(), predicted.tolist()))
    assert found["balanced_accuracy"] == pytest.approx(scores.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(scores.f1_score(labels, predicted, average="macro"))


def test_one_answer_for_all_is_the_share_of_its_class_and_no_better_than_chance():
    found = metrics(outcomes([0] * 8 + [1, 2], [0] * 10))
    assert (found["top1"], found["balanced_accuracy"]) == (0.8, pytest.approx(1 / 3))


# What the counts choose


def data(*sizes: int) -> Dataset:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = tuple(f"class{label}" for label in range(len(sizes)))
    return Dataset(names, tuple(Entry(str(i), label) for i, label in enumerate(labels)), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(30, 10), (5, 5, 5), (4,), (12, 4, 0)])
def test_nothing_is_done_about_classes_that_differ_by_three_to_one_or_less(sizes):
    assert unevenness(np.array(sizes)) <= 3
    assert balanced(data(*sizes), "small") == {}


def test_uneven_classes_are_treated_in_recipes_of_ours_and_published_ones_stay_as_they_are_published():
    uneven = data(31, 10)
    for name in ("small", "transfer"):
        found = balanced(uneven, name)
        assert found.pop("loss.balance") in ("sampler", "weights", "logits")
        assert found == {"select.metric": "balanced_accuracy"}
    assert balanced(uneven, "imagenet22k") == {"select.metric": "balanced_accuracy"}


@pytest.mark.parametrize(("metric", "treated"), [("top1", False), ("top5", False), ("macro_f1", True), (None, True)])
def test_classes_stay_as_uneven_as_they_are_for_who_counts_images(metric, treated):
    assert bool(balanced(data(31, 10), "small", metric)) == treated


def test_the_line_names_the_largest_and_the_smallest_class_and_what_is_done():
    chosen = recipe("small", "atto", images=41, image_px=32, classes=2)
    treated = chosen.model_copy(update={"loss": LossConfig(balance="logits")})
    said = balance_line(treated, data(31, 2, 0))
    assert said.startswith("Uneven classes ('class0' 31 and 'class1' 2 images, 16 to 1): ") and "logits" in said
    assert balance_line(chosen, data(5, 5)) == ""
    assert "sampler" in balance_line(chosen.model_copy(update={"loss": LossConfig(balance="sampler")}), data(5, 5))


# Runs


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 blue, 12 green and 3 red images to train on."""
    folder = write_colours(tmp_path_factory.mktemp("uneven"))
    for file in sorted((folder / "train" / "red").iterdir())[3:]:
        file.unlink()
    return folder


def recipe_of(out: Path) -> tuple[str, str]:
    """(loss.balance, select.metric) of a run."""
    found = json.loads((out / "recipe.json").read_text())
    return found["loss"]["balance"], found["select"]["metric"]


def test_a_run_on_uneven_classes_says_once_what_it_does_and_writes_it_down(uneven, tmp_path):
    done = trained(uneven, tmp_path / "run")
    lines = [line for line in done.err.splitlines() if line.startswith("Uneven classes (")]
    assert len(lines) == 1 and "'red' 3" in lines[0] and "balanced accuracy" in lines[0]
    balance, metric = recipe_of(tmp_path / "run")
    assert balance in ("sampler", "weights", "logits") and metric == "balanced_accuracy"
    best = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert best["metric"] == "balanced_accuracy"
    again = trained(uneven, tmp_path / "run")  # goes on, with the same recipe
    assert "Going on" in again.err


@pytest.mark.parametrize("balance", ["none", "sampler", "weights", "logits"])
def test_every_way_is_done_when_it_is_asked_for_and_changes_what_is_learnt(uneven, tmp_path, balance):
    trained(uneven, tmp_path / balance, "--balance", balance, "--metric", "top1")
    assert recipe_of(tmp_path / balance) == (balance, "top1")
    trained(uneven, tmp_path / "none2", "--loss.balance", "none", "--metric", "top1")
    losses, others = ([row["loss"] for row in rows(tmp_path / name)] for name in (balance, "none2"))
    assert (losses == others) == (balance == "none")


def test_who_asks_for_top1_gets_a_network_that_knows_the_shares(uneven, tmp_path):
    said = trained(uneven, tmp_path / "run", "--metric", "top1").err
    assert recipe_of(tmp_path / "run") == ("none", "top1")
    assert "they count by their images (--balance none), and top-1 chooses the best weights" in said


def test_even_classes_are_trained_as_they_were(tmp_path):
    data = write_colours(tmp_path / "even")
    done = trained(data, tmp_path / "run")
    assert recipe_of(tmp_path / "run") == ("none", "top1") and "neven" not in done.err


def test_a_run_from_weights_treats_probe_and_fine_tuning_and_its_choice_alike(uneven, tmp_path):
    start = tmp_path / "start"
    trained(write_colours(tmp_path / "even", classes=4), start)
    done = convnext("train", uneven, "--weights", start, "--out", tmp_path / "run", "--epochs", 1, "--workers", 0)
    assert done.status == 0, done.err
    balance, metric = recipe_of(tmp_path / "run")
    assert balance != "none" and metric == "balanced_accuracy"
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    summary = json.loads((tmp_path / "run" / "transfer.json").read_text())
    best = max(each["balanced_accuracy"] for each in summary["candidates"])
    assert found["metric"] == "balanced_accuracy"
    assert {each["share"]: each[metric] for each in summary["candidates"]}[summary["share"]] == best


def test_the_head_of_a_probe_is_balanced():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 90 + [1] * 10)
    features = (torch.randn(100, 4, generator=generator) + labels[:, None])[None].double()
    recalls = {}
    for kind in ("none", "sampler", "weights", "logits"):
        head = fitted(features, labels, 2, 1e-3, loss=LossConfig(balance=kind, beta=0.999))
        right = head(features[0]).argmax(1) == labels
        recalls[kind] = float(right[labels == 1].double().mean())
    assert min(recalls[kind] for kind in ("sampler", "weights", "logits")) > recalls["none"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--balance", "weigths"], "Did you mean 'weights'?"),
        (["--balance", "none", "--loss.balance", "none"], "--balance is short for --loss.balance, and both are given."),
        (["--metric", "f1"], "select.metric = 'f1' is refused: it must be one of"),
        (["--metric", "miou", "--task", "classification"], "select.metric = 'miou' is refused: it must be one of top1"),
        (["--loss.tau", "0"], "loss.tau = 0 is refused: it must be greater than 0."),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(uneven, tmp_path, arguments, said):
    assert said in convnext(*tiny(uneven, tmp_path / "run", *arguments)).line


def test_balance_is_refused_for_other_tasks(tmp_path):
    masks = tmp_path / "masks"
    shutil.rmtree(masks, ignore_errors=True)
    assert "for classification" in convnext("train", tmp_path, "--task", "detection", "--balance", "none").line
