"""After a training in which rare classes counted more: how much of that a segmenter's answers take back."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from commands import convnext
from convnext.config import SegmentationLoss, override
from convnext.deploy.load import load
from convnext.drawing.numbers import percent
from convnext.engine.checkpoint import read_metadata
from convnext.engine.run import weights_file
from convnext.recipes import recipe
from convnext.reports.dense import write_dense_report
from convnext.tasks.balance import balance_of_pixels, given_to_rare
from convnext.tasks.segmentation import adjusting
from convnext.tasks.segmentation.adjusting import adjusted
from convnext.tasks.work import work_of
from shapes import CLASSES, shape_image, write_shapes
from test_forecast import Held
from test_segmentation_training import small

SHARES = (0.7, 0.25, 0.05)
COUNTS = torch.tensor([70, 25, 5])
TINY = ["--model.depths", "1,1,1,1", "--model.widths", "8,12,16,24", "--head.width", 16, "--head.aux_width", 8]
TINY += ["--epochs", 2, "--workers", 0]


@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize("kind", ["weights", "logits"])
def test_all_taken_back_is_the_posterior_of_classes_as_they_are(kind, tau):
    """The least loss over pixels that all look the same: their answer must be each class's share of them."""
    loss = SegmentationLoss(balance=kind, tau=tau, shares=SHARES)
    balance, z = balance_of_pixels(loss), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    labels = torch.repeat_interleave(torch.arange(3), COUNTS)
    solver = torch.optim.LBFGS(
        [z], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(balance.logits(z.expand(100, 3)), labels, weight=balance.weights)
        value.backward()
        return value

    solver.step(closure)
    assert z.softmax(0)[2] > 1.1 * SHARES[2]  # as the network would answer: the rare one is less rare
    assert (z - given_to_rare(loss)).softmax(0).tolist() == pytest.approx(SHARES, rel=1e-6)


def test_it_is_the_bias_of_the_last_layer_and_nothing_else():
    chosen = small(loss__balance="weights", loss__shares=SHARES)
    state = {"decoder.classify.conv.bias": torch.randn(3), "auxiliary.classify.conv.bias": torch.randn(3)}
    for share in (0.0, 0.5, 1.0):
        found = adjusted(state, chosen, share)
        changed = found["decoder.classify.conv.bias"] - state["decoder.classify.conv.bias"]
        assert changed.numpy() == pytest.approx(share * 0.5 * np.log(SHARES), abs=1e-6)
        assert found["auxiliary.classify.conv.bias"] is state["auxiliary.classify.conv.bias"]
    assert torch.equal(adjusted(state, chosen, 0.0)["decoder.classify.conv.bias"], state["decoder.classify.conv.bias"])


def test_only_what_was_given_can_be_taken_back():
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    assert chosen.adjustments == ()
    given = override(chosen, {"loss.balance": "logits", "loss.shares": SHARES})
    assert given.adjustments == (0.25, 0.5, 0.75, 1.0)
    assert work_of(given, Held(12, 4)).evaluations == work_of(chosen, Held(12, 4)).evaluations + 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which the rare count as much as they can, judged by what that costs most."""
    place = tmp_path_factory.mktemp("adjusting")
    write_shapes(place / "shapes")
    asked = ["train", place / "shapes", "--out", place / "run", "--balance", "weights", "--loss.tau", 1.5]
    asked += ["--metric", "pixel_accuracy", *TINY]
    done = convnext(*asked)
    assert done.status == 0, done.err
    return place / "run", asked, done


def test_the_held_out_images_choose_and_the_run_says_so(run):
    out, _, done = run
    found = json.loads((out / "evaluation.json").read_text())
    chosen = found["adjusted"]
    figures = {row["share"]: row["pixel_accuracy"] for row in chosen["candidates"]}
    assert sorted(figures) == [0, 0.25, 0.5, 0.75, 1] and figures[chosen["share"]] == max(figures.values())
    assert chosen["share"] > 0, "too much was given to the rare"
    assert (found["weights"], found["chosen"]) == ("adjusted", "adjusted")
    assert found["pixel_accuracy"] == figures[chosen["share"]]  # what was chosen is what is scored, to the bit
    told = ", ".join(f"{100 * figures[share]:.1f}" for share in sorted(figures))
    assert "With 0, 25, 50, 75, 100% of that taken back in the answers, pixel accuracy" in done.err
    assert f"is {told}%. Kept: {chosen['share']:.0%} (adjusted.safetensors)." in done.err
    page = write_dense_report(out, None).read_text()
    assert (
        f"the answers take back {percent(chosen['share'], 0)} of that" in page and "adjusted for rare classes" in page
    )


def test_the_kept_weights_are_the_best_ones_for_whoever_uses_the_run(run):
    out, _, _ = run
    file = weights_file(out)
    assert file.name == "adjusted.safetensors" and read_metadata(file)["share"] > 0
    of = json.loads((out / "evaluation.json").read_text())["adjusted"]["of"]
    trained, kept = (load_file(weights_file(out, name)) for name in (of, "adjusted"))
    assert [name for name in kept if not torch.equal(kept[name], trained[name])] == ["decoder.classify.conv.bias"]
    images = [shape_image(seed)[0] for seed in range(1000, 1005)]
    before, after = (list(load(out, weights=name, device="cpu").predict(images)) for name in (of, "best"))
    rare = [sum(int((each.mask > 0).sum()) for each in found) for found in (before, after)]
    assert rare[1] < rare[0], f"{CLASSES[1:]} are named less often"


def test_another_training_starts_from_what_was_trained(run, tmp_path):
    out, _, _ = run
    done = convnext("train", out.parent / "shapes", "--weights", out, "--out", tmp_path / "next", *TINY)
    of = json.loads((out / "evaluation.json").read_text())["adjusted"]["of"]
    assert done.status == 0 and f"{weights_file(out, of)}: " in done.err


def test_a_run_that_was_killed_while_it_chose_goes_on_to_the_same(run, tmp_path, monkeypatch):
    out, asked, _ = run
    asked = [tmp_path / "run" if each == out else each for each in asked]
    scored, calls = adjusting.evaluate, []

    def killed(*args, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scored(*args, **named)

    monkeypatch.setattr(adjusting, "evaluate", killed)
    assert convnext(*asked).status == 130
    assert not (tmp_path / "run" / "evaluation.json").exists()
    monkeypatch.setattr(adjusting, "evaluate", scored)
    (tmp_path / "run" / "adjusted.safetensors").write_bytes(b"half a file")
    assert convnext(*asked).status == 0
    one, other = (json.loads((each / "evaluation.json").read_text()) for each in (out, tmp_path / "run"))
    assert one == other
    tensors = [load_file(each / "adjusted.safetensors") for each in (out, tmp_path / "run")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_nothing_is_taken_back_where_nobody_asks_for_it(tmp_path):
    place = write_shapes(tmp_path / "shapes")
    done = convnext("train", place, "--out", tmp_path / "run", "--balance", "weights", "--select.adjust", "[]", *TINY)
    assert done.status == 0 and "taken back" not in done.err
    assert not (tmp_path / "run" / "adjusted.safetensors").exists()
    assert "adjusted" not in json.loads((tmp_path / "run" / "evaluation.json").read_text())
