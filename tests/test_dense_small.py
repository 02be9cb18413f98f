"""What training on a few hundred annotated pictures rests on: norms at any batch, and what is said when memory runs out."""

import pytest
import torch
from torch import nn

from convnext.config import override
from convnext.engine.optim import Optimizers
from convnext.engine.update import Update, explain_memory
from convnext.recipes import recipe
from convnext.tasks.detection.convolution import GroupNorm


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_group_norm_of_the_heads_is_torchs_whatever_the_memory_format(memory_format):
    torch.manual_seed(0)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    ours, theirs = GroupNorm(4, 8).double(), nn.GroupNorm(4, 8).double()
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.5)
    mine, other = ours(x), theirs(x.detach().contiguous())
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(mine.square().sum(), x)
    again = x.detach().contiguous().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs(again).square().sum(), again)[0])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("small_detection", "dense.short_px and dense.crop_px"),
        ("ade20k_upernet_160k", "dense.short_px and dense.crop_px"),
        ("small", "input.size_px"),
    ],
)
def test_out_of_memory_names_the_flag_and_the_fields_of_the_task_that_make_pictures_smaller(name, fields):
    chosen = override(recipe(name, "atto", images=50, picture_px=64, classes=2), {"optim.layer_decay": 1})
    network = nn.Linear(2, 2)

    def full(model: nn.Module, piece: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    update = Update(network, chosen, Optimizers(network, chosen.optim), None, full)
    said = str(explain_memory(update, torch.zeros(4, 2), 4, torch.OutOfMemoryError("no room")))
    assert "\n" not in said and "`--micro-batch 1`" in said and f"a smaller --size ({fields})" in said
