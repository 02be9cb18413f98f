"""The figures of an evaluation against slow versions of a few lines."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from convnext.reports.baseline import baseline_line, never_line
from convnext.reports.text import evaluation_text
from convnext.tasks.classification.calibration import log_softmax
from convnext.tasks.classification.inference import judged
from convnext.tasks.classification.metrics import BINS, Confusion, Outcomes, calibration, confusion, metrics, per_class
from convnext.tasks.classification.report import report


def outcomes(n: int = 200, classes: int = 7, seed: int = 0) -> tuple[Outcomes, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 2
    labels = torch.randint(0, classes, (n,), generator=generator)
    return judged(logits, labels, torch.arange(n)), logits, labels


def test_top1_and_top5_equal_a_count_by_sorting():
    found, logits, labels = outcomes()
    ranks = [
        np.argsort(-np.array(row)).tolist().index(y) for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert metrics(found)["top1"] == pytest.approx(np.mean([r == 0 for r in ranks]))
    assert metrics(found)["top5"] == pytest.approx(np.mean([r < 5 for r in ranks]))


def test_the_loss_is_the_cross_entropy_of_torch():
    found, logits, labels = outcomes()
    assert metrics(found)["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize("n", [1, 7, 64, 257])
def test_outcomes_are_those_of_torch_to_the_bit(n):
    found, logits, labels = outcomes(n, classes=11, seed=n)
    log_p = logits.log_softmax(1)
    top, predicted = log_p.max(1)
    true = log_p.gather(1, labels[:, None])[:, 0]
    for column, expected in {
        "predicted": predicted, "score": top.exp(), "label_score": true.exp(), "loss": -true
    }.items():  # fmt: skip
        np.testing.assert_array_equal(getattr(found, column), expected.numpy())


def test_outcomes_of_an_exported_file_are_those_of_torch_within_rounding():
    found, logits, labels = outcomes(300, classes=11)
    log_p = log_softmax(logits.numpy())
    numpy = Outcomes.of(np.exp(log_p).astype(np.float32), log_p.astype(np.float32), labels.numpy(), np.arange(300))
    for column, value in vars(found).items():
        np.testing.assert_allclose(getattr(numpy, column), value, rtol=1e-6, atol=1e-7)


def test_the_calibration_error_equals_a_loop_over_images():
    found, logits, labels = outcomes()
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, label in zip(logits.softmax(1), labels, strict=True):
        p, k = row.max(0)
        bins[min(int(p * BINS), BINS - 1)].append((p.item(), bool(k == label)))
    slow = sum(abs(sum(p for p, _ in b) - sum(ok for _, ok in b)) for b in bins) / len(labels)
    assert metrics(found)["ece"] == pytest.approx(slow, abs=1e-6)
    assert sum(row["n"] for row in calibration(found)) == len(found)


def test_a_network_that_always_answers_the_same_scores_no_better_than_its_share():
    labels = torch.arange(10).repeat(3)
    found = judged(torch.zeros(30, 10), labels, torch.arange(30))
    assert metrics(found)["top1"] == pytest.approx(0.1)


def test_the_confusion_matrix_counts_every_image_once_with_ground_truth_in_rows():
    found, logits, labels = outcomes()
    table = np.array(confusion(found, 7).to_dict()["confusion"])
    assert table.sum() == 200
    for ground_truth, predicted_label in zip(labels.tolist(), logits.argmax(1).tolist(), strict=True):
        table[ground_truth, predicted_label] -= 1
    assert not table.any()


def test_precision_recall_and_f1_of_a_matrix_worked_by_hand():
    row, column, count = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([3, 1, 2, 2])
    rows = per_class(Confusion(row, column, count, 3), ("a", "b", "c"))  # [[3, 1, 0], [2, 2, 0], [0, 0, 0]]
    assert figures(rows[0]) == {"name": "a", "n": 4, "precision": 3 / 5, "recall": 3 / 4, "f1": pytest.approx(2 / 3)}
    assert figures(rows[2]) == {"name": "c", "n": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a class without the interval."""
    return {name: value for name, value in row.items() if not name.startswith("recall_")}


def test_the_interval_of_a_recall_solves_the_equation_of_the_score_test():  # Wilson 1927
    rows = per_class(Confusion(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([7, 5, 4]), 3), ("a", "b", "c"))
    for bound in (rows[0]["recall_low"], rows[0]["recall_high"]):
        assert abs(7 / 12 - bound) / np.sqrt(bound * (1 - bound) / 12) == pytest.approx(1.959964)
    assert rows[1]["recall_low"] == 0 < rows[1]["recall_high"] < 1
    assert (rows[2]["recall_low"], rows[2]["recall_high"]) == (0, 1)  # of a class without images nothing is known


def test_a_score_stands_beside_the_commonest_class_and_chance_and_unpredicted_classes_are_named():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    predicted = np.array([0] * 6 + [0, 0, 1] + [0])
    flat = np.full(10, 0.5, np.float32)
    found = Outcomes(np.arange(10), labels, predicted, (labels != predicted).astype(np.int64), flat, flat, flat)
    told = report(found, ("a", "b", "c", "d"), [f"{i}.png" for i in range(10)])
    assert (told["baseline_top1"], told["chance"]) == (0.6, 0.25)
    assert told["never_predicted"] == ["c"]  # of d there is no image to find
    assert told["balanced_accuracy"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert told["macro_f1"] == pytest.approx((2 * 6 / 15 + 2 / 4 + 0) / 3)


def test_the_words_say_what_a_score_is_worth():
    base = {"n": 400, "baseline_top1": 0.4, "chance": 0.1, "classes": list("abcd")}
    alone = "Naming the commonest class for every image would be right for 40.0%, guessing for 10.0%"
    assert baseline_line({**base, "top1": 0.6}) == f"{alone}."
    assert baseline_line({**base, "top1": 0.42}) == f"{alone}: this network is not surely better."
    assert baseline_line({**base, "top1": 0.2}) == f"{alone}: this network is worse."
    assert baseline_line({"n": 9, "top1": 0.5}) == "" == never_line({**base, "never_predicted": []})
    assert never_line({**base, "never_predicted": ["b"]}) == "1 class of 4 is never predicted: b."
    many = {"classes": list(range(30)), "never_predicted": [str(i) for i in range(12)]}
    assert never_line(many) == "12 classes of 30 are never predicted: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 others."


def test_the_text_has_the_means_over_classes_and_the_interval_of_each_recall():
    found, _, _ = outcomes()
    told = {**report(found, tuple("abcdefg"), [f"{i}.png" for i in range(200)]), "weights": "raw"}
    text = evaluation_text(told)
    assert f"balanced accuracy {told['balanced_accuracy']:.2%}" in text and f"macro F1 {told['macro_f1']:.2%}" in text
    assert "Naming the commonest class" in text and "95% interval" in text
    row = told["per_class"][0]
    assert f"{100 * row['recall_low']:.0f} to {row['recall_high']:.0%}" in text


def test_joined_parts_are_in_dataset_order_and_an_image_seen_twice_counts_once():
    found, logits, labels = outcomes(20)
    order = torch.randperm(20)
    parts = [judged(logits[i], labels[i], i) for i in (*order.split(6), torch.tensor([3, 4]))]
    joined = Outcomes.join(parts)
    assert joined.index.tolist() == list(range(20))
    assert joined.rank.tolist() == found.rank.tolist()


def test_the_report_lists_the_most_wrong_images_first():
    found, _, _ = outcomes()
    names = tuple("abcdefg")
    worst = report(found, names, [f"{i}.png" for i in range(200)])["worst"]
    assert [row["label_score"] for row in worst] == sorted(row["label_score"] for row in worst)
    assert all(row["label"] != row["predicted"] for row in worst)


def test_of_more_than_a_thousand_classes_the_pairs_that_occur_are_listed_and_the_rest_is_the_same():
    labels = np.array([0, 0, 7, 1000, 1000, 1000])
    predicted = np.array([0, 1000, 7, 3, 3, 1000])
    rank, score = (labels != predicted).astype(np.int64), np.full(6, 0.5, np.float32)
    found = Outcomes(np.arange(6), labels, predicted, rank, score, score, score)
    names = tuple(f"class {i}" for i in range(1001))
    told = report(found, names, [f"{i}.png" for i in range(6)])
    assert "confusion" not in told
    assert told["confusion_triples"] == [[0, 0, 1], [0, 1000, 1], [7, 7, 1], [1000, 3, 2], [1000, 1000, 1]]
    assert figures(told["per_class"][1000]) == {
        "name": "class 1000",
        "n": 3,
        "precision": 1 / 2,
        "recall": 1 / 3,
        "f1": pytest.approx(2 / 5),
    }


def test_21841_classes_are_judged_in_memory_that_follows_the_images():
    classes, images = 21_841, 4_000
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, images)
    predicted = np.where(generator.random(images) < 0.5, labels, generator.integers(0, classes, images))
    flat = np.full(images, 0.5, np.float32)
    found = Outcomes(np.arange(images), labels, predicted, (labels != predicted).astype(np.int64), flat, flat, flat)
    tracemalloc.start()
    told = report(found, tuple(map(str, range(classes))), list(map(str, range(images))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64_000_000  # a table has 477 million cells
    assert sum(count for _, _, count in told["confusion_triples"]) == images
    assert sum(row["n"] for row in told["per_class"]) == images
