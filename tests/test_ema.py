"""The EMA weights: their formula, their warm-up, and that a model gets its own weights back to the bit."""

import pytest
import torch
from torch import nn

from convnext.engine.ema import Ema
from convnext.errors import CheckpointError


class Small(nn.Module):
    """Parameters, float and integer buffers, and a parameter that is shared under two names."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)
        self.again = self.last
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.norm(self.first(x)))


def moved(model: nn.Module, seed: int) -> None:
    """Other weights and statistics, as after an optimizer step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.train()(torch.randn(8, 3, generator=generator).to(model.first.weight.dtype))


def copied(tensors) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("warmup", [False, True])
def test_averages_follow_their_formula_step_by_step(warmup):
    model = Small()
    ema = Ema(model, 0.9, warmup)
    slow = {name: value.detach().double() for name, value in model.named_parameters()}
    for step in range(30):
        moved(model, step)
        ema.update(ema.share_at(step))
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        for name, value in model.named_parameters():
            slow[name] = decay * slow[name] + (1 - decay) * value.detach().double()
    for name, value in slow.items():
        torch.testing.assert_close(ema.tensors()[name].double(), value, rtol=1e-5, atol=1e-5)


def test_the_decay_of_a_warm_up_rises_to_the_one_asked_for():
    ema = Ema(Small(), 0.99, warmup=True)
    decays = [ema.decay_at(step) for step in range(2000)]
    assert decays[0] == 0.1 and decays == sorted(decays)
    assert decays[889] < 0.99 == decays[890] == decays[-1]  # 891 / 900
    assert Ema(Small(), 0.99).decay_at(0) == 0.99


def test_statistics_are_copied_not_averaged():
    model = Small()
    ema = Ema(model, 0.9)
    for step in range(3):
        moved(model, step)
        ema.update(ema.share_at(step))
    assert ema.tensors()["norm.num_batches_tracked"] == 3
    assert torch.equal(ema.tensors()["norm.running_mean"], model.norm.running_mean)


def test_averages_have_the_names_of_the_models_own_state_and_start_as_it():
    model = Small()
    ema = Ema(model, 0.9)
    assert same(ema.tensors(), copied(model.state_dict()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_gives_the_averages_and_returns_the_weights_to_the_bit(dtype):
    model = Small(dtype)
    ema = Ema(model, 0.9)
    moved(model, 0)
    ema.update(ema.share_at(0))
    held = list(model.parameters())
    own = copied(model.state_dict())
    with ema.swapped(model) as averaged:
        assert averaged is model
        for name, value in model.state_dict().items():
            assert torch.equal(value, ema.tensors()[name].to(value.dtype))
    assert same(model.state_dict(), own)
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))  # optimizers hold on to these


def test_swapped_returns_the_weights_when_something_is_raised_inside():
    model = Small()
    ema = Ema(model, 0.9)
    moved(model, 0)
    ema.update(ema.share_at(0))
    own, averages = copied(model.state_dict()), copied(ema.tensors())
    bad = torch.ones(4, 7)
    with pytest.raises(RuntimeError, match="shapes"), ema.swapped(model):
        model(torch.ones(4, 3)), model(bad)  # in training mode: the statistics move too, before the second one breaks
    assert same(model.state_dict(), own)
    assert same(ema.tensors(), averages)


def test_averages_of_half_precision_weights_are_kept_in_full():
    model = Small(torch.bfloat16)
    nn.init.ones_(model.first.weight)
    ema = Ema(model, 0.999)
    nn.init.constant_(model.first.weight, 2.0)
    ema.update(ema.share_at(0))
    average = ema.tensors()["first.weight"]
    torch.testing.assert_close(average, torch.full((4, 3), 1.001))
    assert (average.bfloat16() == 1).all()  # a step that the weights' own precision would lose


def test_loaded_averages_go_on_to_the_bit():
    model = Small()
    ema = Ema(model, 0.9, warmup=True)
    moved(model, 0)
    ema.update(ema.share_at(0))
    other = Ema(model, 0.9, warmup=True)
    saved = copied(ema.tensors())
    other.load(saved)
    moved(model, 1)
    ema.update(ema.share_at(1))
    other.update(other.share_at(1))
    assert same(ema.tensors(), other.tensors())
    assert not torch.equal(saved["first.weight"], other.tensors()["first.weight"])  # what was loaded is not written to


def test_averages_of_another_model_are_refused_with_the_first_name():
    ema = Ema(Small(), 0.9)
    saved = copied(ema.tensors())
    with pytest.raises(CheckpointError, match=r"first at 'again\.weight'\.$"):
        ema.load({name: value for name, value in saved.items() if name != "again.weight"})
    with pytest.raises(CheckpointError, match=r"first at 'first\.bias'\.$"):
        ema.load({**saved, "first.bias": torch.zeros(5)})
