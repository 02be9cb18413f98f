"""The probe: its head is that of a logistic regression, its features are kept in files; and mixes of weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from convnext.config import ConvNeXtConfig, override
from convnext.data.evaluation import shown
from convnext.data.opening import open_splits, recognise
from convnext.data.transforms import normalise
from convnext.engine.distributed import World
from convnext.errors import TrainingError
from convnext.models.build import build_model
from convnext.recipes import recipe
from convnext.tasks.classification import features as kept
from convnext.tasks.classification import probe
from convnext.tasks.classification.features import Extraction
from convnext.tasks.classification.mixing import best_share, mixed, name_of
from convnext.tasks.classification.probe import PENALTIES, fit_head, fitted, in_turns
from images import write_colours

N, C, K = 60, 12, 3
NETWORK = ConvNeXtConfig(depths=(1, 1), widths=(8, 12), patch=2, classes=K)


@pytest.fixture(scope="module")
def clouds():
    """Features of three overlapping clouds, far from standardised."""
    generator = np.random.default_rng(0)
    labels = np.arange(N) % K
    centres = generator.normal(size=(K, C))
    values = (centres[labels] + 1.5 * generator.normal(size=(N, C))) * generator.uniform(0.01, 30, C) + 5
    return torch.from_numpy(values).float(), torch.from_numpy(labels)


class _Counted(TorchDispatchMode):
    """Calls of torch's operators."""

    calls = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.calls += 1
        return call(*args, **(kwargs or {}))


def test_the_turns_of_classes_take_as_many_steps_however_many_classes_there_are():
    found = []
    for classes in (3, 300):
        with _Counted() as counted:
            order = in_turns(torch.arange(1200) % classes, 0)
        found.append(counted.calls)
        assert (
            (order.reshape(-1, classes) % classes)
            .sort(1)
            .values.equal(torch.arange(classes).repeat(1200 // classes, 1))
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_the_head_is_that_of_scikit_learn(clouds, penalty):
    linear = pytest.importorskip("sklearn.linear_model")
    values, labels = clouds
    x = values.double()
    x = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    other = linear.LogisticRegression(C=1 / (N * penalty), tol=1e-10, max_iter=10_000).fit(x, labels.numpy())
    ours = fitted(values[None].double(), labels, K, penalty)(values).softmax(1).numpy()
    assert np.abs(ours - other.predict_proba(x)).max() < 1e-4


def test_the_gradient_of_the_objective_is_zero_at_the_head(clouds):
    values, labels = clouds
    head = fitted(values[None].double(), labels, K, 0.1)
    mean, std = values.double().mean(0), values.double().std(0, correction=0)
    weight = (head.weight * std).requires_grad_()  # as the objective sees it, on standardised features
    bias = (head.bias + head.weight @ mean).requires_grad_()
    loss = F.cross_entropy((values.double() - mean) / std @ weight.T + bias, labels) + 0.05 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None and bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-5


def test_the_penalty_is_the_one_with_the_least_loss_on_images_that_were_not_fitted(clouds):
    values, labels = clouds
    head = fit_head(values[None], labels, K, seed=1)
    assert head.penalty in PENALTIES
    noise = torch.randn(1, N, C, generator=torch.Generator().manual_seed(0))
    assert fit_head(noise, labels, K, seed=1).penalty == max(PENALTIES)  # there is nothing to learn


def test_the_same_features_give_the_same_bits_and_two_equal_views_the_head_of_one(clouds):
    values, labels = clouds
    one, again = (fit_head(values[None], labels, K, seed=3) for _ in range(2))
    assert torch.equal(one.weight, again.weight) and torch.equal(one.bias, again.bias)
    twice = fit_head(values.expand(2, N, C), labels, K, seed=3)
    assert torch.allclose(one(values), twice(values), atol=1e-3)


def test_more_images_than_there_is_room_for_give_way_class_by_class(clouds, monkeypatch):
    values, labels = clouds
    monkeypatch.setattr(probe, "MOST_VALUES", 30 * C)
    found, places = fit_head(values[None], labels, K, seed=2), in_turns(labels, 2)[:30]
    expected = fitted(values[None, places].double(), labels[places], K, found.penalty)
    assert torch.equal(found.weight, expected.weight) and labels[places].bincount().tolist() == [10, 10, 10]


def test_a_class_without_images_and_one_image_are_no_obstacle():
    values = torch.randn(1, 3, C)
    head = fit_head(values, torch.tensor([0, 2, 0]), 4)
    assert head.weight.shape == (4, C) and bool(head.weight.isfinite().all())
    assert bool(fit_head(values[:, :1], torch.tensor([1]), 2).bias.isfinite().all())


def test_classes_take_turns_in_a_random_order():
    labels = torch.tensor([0] * 9 + [1] * 3 + [2] * 3)
    order = in_turns(labels, 5)
    assert sorted(order.tolist()) == list(range(15)) and set(labels[order[:3]].tolist()) == {0, 1, 2}
    assert order.tolist() == in_turns(labels, 5).tolist() != in_turns(labels, 6).tolist()


# Features


@pytest.fixture
def extraction(tmp_path):
    torch.manual_seed(0)
    chosen = override(
        recipe("transfer", "atto", images=24, image_px=16, classes=K),
        {"input.size_px": 16, "input.eval_size_px": 16, "model.depths": (1, 1), "model.widths": (8, 12)},
    )
    model = build_model(NETWORK).eval()
    return Extraction(
        model=model, recipe=chosen, folder=tmp_path / "kept", digest="d", workers=0, world=World(), progress=False
    )


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = write_colours(tmp_path_factory.mktemp("colours"), train=8, val=2)
    (folder / "train" / "red" / "broken.png").write_bytes(b"no image")
    return open_splits(recognise(folder)).train


def of(extraction, train, **skipped):
    return extraction.of(train, "train", fingerprint="f", views=2, skipped=skipped)


def test_features_are_what_the_head_sees_of_the_image_and_of_its_mirror(extraction, train, monkeypatch):
    monkeypatch.setattr(kept, "CHUNK", 7)
    skipped: dict[str, str] = {}
    found = extraction.of(train, "train", fingerprint="f", views=2, skipped=skipped)
    assert list(map(str, found.values.shape)) == ["2", "24", "12"] and len(skipped) == 1
    assert [train.entries[i].label for i in found.indices.tolist()] == found.labels.tolist()
    whole = shown(train, extraction.recipe.input, found.indices.tolist()).images
    x = normalise(torch.from_numpy(whole), extraction.recipe.input)
    with torch.no_grad():
        expected = torch.stack([extraction.model.embed(x), extraction.model.embed(x.flip(-1))])
    assert torch.allclose(found.values, expected, atol=1e-5)


def test_features_that_are_there_are_not_made_again_unless_weights_or_data_changed(extraction, train, monkeypatch):
    monkeypatch.setattr(kept, "CHUNK", 7)
    first = of(extraction, train)
    made = []
    monkeypatch.setattr(Extraction, "_rows", lambda *_: made.append(1) or iter(()))
    assert torch.equal(of(extraction, train).values, first.values) and not made
    (extraction.folder / "train-00001.safetensors").write_bytes(b"cut")  # damaged: made again, alone
    of(extraction, train)
    assert len(made) == 1
    of(Extraction(**{**vars(extraction), "digest": "other"}), train)
    assert len(made) == 5


def test_weights_that_answer_with_nan_are_refused_in_one_line(extraction, train):
    with torch.no_grad():
        extraction.model.norm.weight[0] = float("nan")
    with pytest.raises(
        TrainingError, match=r"answers '.*png' with nan or inf, and 23 other images as well\. Give other"
    ):
        of(extraction, train)


# Mixes


def states():
    torch.manual_seed(1)
    return build_model(NETWORK).state_dict(), build_model(NETWORK).state_dict()


def test_the_ends_of_a_mix_are_its_networks_to_the_bit_and_the_middle_is_their_mean():
    frozen, tuned = states()
    assert all(torch.equal(value, frozen[name]) for name, value in mixed(frozen, tuned, 0.0).items())
    assert all(torch.equal(value, tuned[name]) for name, value in mixed(frozen, tuned, 1.0).items())
    half = mixed(frozen, tuned, 0.5)
    assert all(torch.allclose(half[name], (frozen[name] + tuned[name]) / 2) for name in frozen)


def test_the_best_share_has_the_highest_score_then_the_least_loss_then_the_least_change():
    scores = {0.0: {"top1": 0.8, "loss": 0.5}, 0.5: {"top1": 0.9, "loss": 0.4}, 1.0: {"top1": 0.9, "loss": 0.3}}
    assert best_share(scores, "top1") == 1.0
    assert best_share(scores | {0.25: {"top1": 0.9, "loss": 0.3}}, "top1") == 0.25
    assert [name_of(share) for share in (0.0, 0.25, 1.0)] == ["probe", "mixed", "finetuned"]
