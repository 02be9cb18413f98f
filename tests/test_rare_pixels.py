"""Classes with few pixels: what a run measures, what the loss makes up for, and what is said of a class that nobody names."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from commands import convnext
from convnext.config import SegmentationLoss, override
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.opening import open_dense_splits, recognise
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.reports.dense import write_dense_report
from convnext.reports.text import text_of
from convnext.tasks.balance import balance_of_pixels
from convnext.tasks.segmentation.facts import balance_line, fitted
from convnext.tasks.segmentation.metrics import never_predicted
from convnext.tasks.segmentation.task import Labelled
from convnext.tasks.train import Examined, Request, choose_recipe
from runs import task_of
from shapes import CLASSES, write_shapes
from test_segmentation_training import small

SHARES = (0.7, 0.25, 0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_dense_splits(recognise(write_shapes(tmp_path_factory.mktemp("shapes"))))


def losses_by_hand(kind: str, tau: float, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean over all pixels, one after the other, in Python's own numbers."""
    total = 0.0
    mean_weight = sum(share * share**-tau for share in SHARES)
    for place in np.ndindex(*labels.shape):
        label = int(labels[place])
        if label == 255:
            continue
        z = [float(logits[place[0], k, place[1], place[2]]) for k in range(3)]
        if kind == "logits":
            z = [value + tau * float(np.log(share)) for value, share in zip(z, SHARES, strict=True)]
        loss = float(np.log(sum(np.exp(z)))) - z[label]
        total += loss * (SHARES[label] ** -tau / mean_weight if kind == "weights" else 1)
    return total / labels.numel()


@pytest.mark.parametrize(("kind", "tau"), [("none", 0.5), ("logits", 0.5), ("logits", 1.0), ("weights", 0.5)])
def test_the_loss_is_that_of_the_definition(data, tmp_path, kind, tau):
    chosen = small(loss__balance=kind, loss__tau=tau, loss__shares=SHARES)
    task = task_of(data, chosen, tmp_path)
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, 0] = 255

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return type("Logits", (), {"main": logits, "aux": None})()

    found = task.loss(Fixed(), Labelled(torch.zeros(2, 3, 4, 5), labels))
    assert float(found["main"]) == pytest.approx(losses_by_hand(kind, tau, logits, labels), rel=1e-5)


def test_weights_are_one_on_average_and_even_out_at_one():
    for tau in (0.25, 0.5, 1.0):
        weights = balance_of_pixels(SegmentationLoss(balance="weights", tau=tau, shares=SHARES)).weights
        assert float((weights * torch.tensor(SHARES)).sum()) == pytest.approx(1)
    assert (weights * torch.tensor(SHARES)).numpy() == pytest.approx(np.full(3, 1 / 3))


def test_shares_are_those_of_the_labelled_pixels_of_training(data):
    counts = np.zeros(256)
    for entry in data.train.entries:
        counts += np.bincount(decoded(data.train.store.read(entry.semantic)).ravel(), minlength=256)
    found = fitted(data.train, preflight_dense(data), "small_segmentation")
    assert found["loss.shares"] == pytest.approx(counts[:3] / counts[:3].sum(), rel=1e-3)
    assert "loss.balance" not in found  # 7 to 1


def decoded(mask: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(mask)))


def chosen_for(data, counts: tuple[int, ...], **request) -> object:
    """The recipe for `data` of which a look found that many pixels of each class."""
    findings = replace(preflight_dense(data), per_class={"train": dict(zip(CLASSES, counts, strict=True))})
    return choose_recipe(Request(data="shapes", **request), None, Examined("segmentation", data, findings))


def test_a_fitted_recipe_treats_uneven_classes_and_a_published_one_does_not(data):
    uneven = chosen_for(data, (990, 40, 9))
    assert uneven.loss.balance == "weights" and uneven.loss.shares == pytest.approx(
        (0.9528, 0.0385, 0.008662), rel=1e-3
    )
    assert "'ground' 95.28% and 'disc' 0.87% of the pixels, 110 to 1" in balance_line(uneven, data.train)
    assert "--balance weights" in balance_line(uneven, data.train)
    even = chosen_for(data, (900, 500, 100))
    assert even.loss.balance == "none" and balance_line(even, data.train) == ""
    published = chosen_for(data, (990, 40, 9), recipe="ade20k_upernet_160k", model="tiny")
    assert published.loss.balance == "none" and "--balance none" in balance_line(published, data.train)
    asked = chosen_for(data, (990, 40, 9), changes={"loss.balance": "logits", "loss.tau": "1"})
    assert (asked.loss.balance, asked.loss.tau) == ("logits", 1)
    unseen = chosen_for(data, (990, 40, 0))
    assert min(unseen.loss.shares) > 0  # as if it had one pixel


def test_a_share_is_there_for_each_class_and_where_it_is_needed():
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    with pytest.raises(ConvNeXtError, match="names 2 classes, and the head has 3"):
        override(chosen, {"loss.shares": (0.5, 0.5)})
    with pytest.raises(ConvNeXtError, match="needs loss\\.shares"):
        balance_of_pixels(SegmentationLoss(balance="logits"))


def test_a_class_that_no_pixel_is_taken_for_is_named():
    table = np.array([[5, 1, 0, 0], [2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0]])
    assert never_predicted(table, ("a", "b", "c", "d")) == ["c"]  # of 'd' there is nothing


def test_the_command_says_what_it_does_and_which_class_is_missed(tmp_path):
    place = write_shapes(tmp_path / "shapes")
    tiny = ["--epochs", 1, "--model.depths", "1,1,1,1", "--model.widths", "8,12,16,24", "--head.width", 16]
    tiny += ["--head.aux_width", 8, "--workers", 0]
    done = convnext("train", place, "--out", tmp_path / "run", "--balance", "weights", *tiny)
    assert (
        done.status == 0 and "a pixel counts by its class's share to the power of -0.5 (--balance weights)" in done.err
    )
    held = json.loads((tmp_path / "run" / "recipe.json").read_text())["loss"]
    assert held["balance"] == "weights" and sum(held["shares"]) == pytest.approx(1, abs=1e-3)
    file = tmp_path / "run" / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "never_predicted": ["disc"]}))
    said = "1 class of 3 is never predicted: disc."
    assert said in text_of(json.loads(file.read_text()))
    assert said in write_dense_report(tmp_path / "run", None).read_text()
    again = convnext("train", place, "--out", tmp_path / "run", "--balance", "weights", *tiny)
    assert again.status == 0
    refused = convnext("train", place, "--out", tmp_path / "other", "--balance", "sampler", *tiny)
    assert (
        refused.status == 2
        and "loss.balance = 'sampler' is refused: it must be one of none, weights, logits" in refused.line
    )
