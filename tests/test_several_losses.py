"""The losses of several labels against their published formulas; unknown entries give nothing, mixing keeps targets right."""

import math

import numpy as np
import pytest
import torch

from convnext.config import AugmentConfig, LossConfig
from convnext.data.labelled import rarest
from convnext.data.mix import mix
from convnext.data.sampler import order_for
from convnext.tasks.classification.probe import fitted, in_turns
from convnext.tasks.classification.several.losses import EachClass, chance_loss, loss_of

BCE = LossConfig(kind="bce")
FOCAL = LossConfig(kind="focal", gamma=2.0)
ASYMMETRIC = LossConfig(kind="asymmetric", gamma=1.0, gamma_no=4.0, margin=0.05)


def published(config: LossConfig, z: float, t: int) -> float:
    """Of one entry, as the papers write it."""
    p = 1 / (1 + math.exp(-z))
    if config.kind == "bce":
        return -math.log(p if t else 1 - p)
    if config.kind == "focal":  # 1708.02002, equation 4
        p_t = p if t else 1 - p
        return -((1 - p_t) ** config.gamma) * math.log(p_t)
    p_m = max(p - config.margin, 0)  # 2009.14119, equations 5 and 7
    return -((1 - p) ** config.gamma) * math.log(p) if t else -(p_m**config.gamma_no) * math.log(1 - p_m)


@pytest.mark.parametrize("config", [BCE, FOCAL, ASYMMETRIC, ASYMMETRIC.model_copy(update={"margin": 0.0})])
def test_the_loss_is_the_published_one(config):
    z = torch.tensor([[-3.0, -0.5, 0.0], [0.7, 2.0, 5.0]], dtype=torch.float64)
    t = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
    right = [published(config, *pair) for pair in zip(z.flatten().tolist(), t.flatten().int().tolist(), strict=True)]
    assert loss_of(config, z, t).item() == pytest.approx(np.mean(right), rel=1e-12)


@pytest.mark.parametrize("config", [BCE, FOCAL, ASYMMETRIC])
def test_unknown_entries_give_no_gradient_and_micro_batches_add_up(config):
    torch.manual_seed(0)
    z, t = torch.randn(4, 3, dtype=torch.float64), torch.randint(0, 2, (4, 3)).double()
    t[0, 1] = t[3] = torch.nan
    z.requires_grad_()
    loss_of(config, z, t).backward()
    assert z.grad is not None and (z.grad[t.isnan()] == 0).all() and (z.grad[~t.isnan()] != 0).all()
    halves = [loss_of(config, z[part], t[part]) for part in (slice(0, 2), slice(2, 4))]
    assert sum(halves).item() / 2 == pytest.approx(loss_of(config, z, t).item())
    extreme = torch.tensor([[-80.0, 80.0]], requires_grad=True)
    loss_of(config, extreme, torch.tensor([[1.0, 0.0]])).backward()
    assert extreme.grad is not None and extreme.grad.isfinite().all()


def test_who_knows_nothing_answers_with_the_share_of_each_class():
    rates = torch.tensor([0.5, 0.1])
    entropy = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in rates.tolist()]
    assert chance_loss(BCE, rates) == pytest.approx(np.mean(entropy), rel=1e-3)


def test_mixing_mixes_targets_and_what_is_unknown_of_either_stays_unknown():
    x, marks = torch.randn(4, 3, 8, 8), torch.tensor([[1, 0], [0, -1], [1, 1], [0, 0]], dtype=torch.int8)
    augment = AugmentConfig(mixup=0.8, smoothing=0.1)
    before = x.clone()
    mixed, targets = mix(x, marks, 2, augment, (0, 1, 2))
    share = ((mixed - before.flip(0)) / (before - before.flip(0)))[0].mean().item()
    soft = np.where(marks.numpy() == 1, 0.95, 0.05)
    right = share * soft + (1 - share) * soft[::-1]
    right[1, 1] = right[2, 1] = np.nan
    assert np.allclose(targets.numpy(), right, atol=1e-5, equal_nan=True)
    _, plain = mix(before, marks, 2, AugmentConfig(), (0, 1, 2))
    assert np.array_equal(plain.numpy(), np.where(marks.numpy() < 0, np.nan, marks.numpy()), equal_nan=True)


def test_a_linear_head_is_a_logistic_regression_for_each_class_that_leaves_unknown_entries_out():
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4))
    x = (x - x.mean(0)) / x.std(0)
    marks = (x[:, :2] + rng.normal(size=(80, 2)) > 0).astype(np.int8)
    marks[:10, 1] = -1
    penalty = 0.1
    head = fitted(torch.from_numpy(x)[None], torch.from_numpy(marks), 2, penalty)
    for label in range(2):
        known = marks[:, label] >= 0
        one = linear.LogisticRegression(C=1 / (80 * penalty), tol=1e-10, max_iter=1000)
        one.fit(x[known], marks[known, label])  # its sum of losses, and ours over 80 images, weigh the penalty alike
        assert np.allclose(head.weight[label].numpy(), one.coef_[0], atol=1e-4)
        assert head.bias[label].item() == pytest.approx(one.intercept_[0], abs=1e-4)


def test_parts_of_images_with_several_labels_are_alike_in_their_rarest_class():
    marks = torch.zeros(60, 3, dtype=torch.int8)
    marks[:40, 0], marks[20:32, 1], marks[:6, 2] = 1, 1, 1
    found = torch.from_numpy(rarest(marks.numpy()))
    assert found[:6].tolist() == [2] * 6 and found[6:20].tolist() == [0] * 14
    assert found[20:32].tolist() == [1] * 12 and found[40:].tolist() == [3] * 20
    order = in_turns(marks, 0)
    assert sorted(order.tolist()) == list(range(60))
    for part in range(3):
        assert (torch.bincount(found[order[part::3]], minlength=4) > 0).all()


@pytest.mark.parametrize("config", [BCE, FOCAL, ASYMMETRIC], ids=lambda config: config.kind)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weight_is_that_of_a_yes_as_a_whole_also_of_each_component_of_a_mixed_image(config, smoothing):
    marks = torch.tensor([[1, 0, 1], [0, 1, -1], [1, 1, 0], [0, 0, 1]], dtype=torch.int8)
    augment = AugmentConfig(mixup=0.8, smoothing=smoothing)
    _, targets = mix(torch.zeros(4, 3, 8, 8), marks, 3, augment, (1, 2, 3))
    _, shares = mix(torch.zeros(4, 3, 8, 8), marks, 3, augment.model_copy(update={"smoothing": 0.0}), (1, 2, 3))
    yes = torch.tensor([0.5, 2.0, 7.0])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = loss_of(config, logits, targets, yes=yes, smoothing=smoothing)
    total = 0.0
    for image in range(4):
        for label in range(3):
            share, z = float(shares[image, label]), float(logits[image, label])
            if math.isnan(share):
                continue
            soft = [smoothing / 2, 1 - smoothing / 2]
            one = [t * published(config, z, 1) + (1 - t) * published(config, z, 0) for t in soft]
            total += (1 - share) * one[0] + share * float(yes[label]) * one[1]
    assert float(found) == pytest.approx(total / 12, rel=1e-5)
    assert float(loss_of(config, logits, targets, yes=torch.ones(3), smoothing=smoothing)) == pytest.approx(
        float(loss_of(config, logits, targets)), rel=1e-6
    )


def test_a_head_of_weighted_classes_is_that_of_repeated_images():
    x = torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(1))
    marks = (torch.rand(60, 1, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.int8)
    logits = x[0, :, :1]
    twice = torch.cat([torch.arange(60), torch.arange(60)[marks[:, 0] == 1]])
    weighted = EachClass(torch.tensor([2.0])).cross_entropy(logits, marks, total=True)
    assert float(weighted) == pytest.approx(float(EachClass().cross_entropy(logits[twice], marks[twice], total=True)))
    head = fitted(x.double(), marks, 1, 0.1, loss=LossConfig(kind="bce", balance="weights"))
    plain = fitted(x.double(), marks, 1, 0.1)
    assert torch.equal(head.weight, plain.weight)  # one class alone counts one on average


def test_a_balanced_sampler_shows_images_by_the_rarest_class_that_they_have_as_often():
    marks = np.zeros((90, 2), np.int8)
    marks[:60, 0], marks[50:56, 1] = 1, 1  # 54 with the first alone, 6 with the second, 30 with none
    order = order_for(marks, 0, balanced=True)
    counts = np.bincount(rarest(marks)[order(0, 0)], minlength=3)
    assert len(order(0, 0)) == 90 and counts.tolist() == [30, 30, 30]
    assert order_for(marks, 0, balanced=False)(0, 0).tolist() == order_for([0] * 90, 0, balanced=False)(0, 0).tolist()
