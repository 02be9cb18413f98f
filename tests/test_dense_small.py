"""What training on a few hundred annotated images rests on: norms at any batch, and what is said when memory runs out."""

import numpy as np
import pytest
import torch
from torch import nn

from convnext.config import override
from convnext.engine.optim import Optimizers
from convnext.engine.shortage import explain_memory
from convnext.engine.update import Update
from convnext.recipes import recipe
from convnext.tasks.annotated import smaller_in_training
from convnext.tasks.classification.task import Classification
from convnext.tasks.convolution import GroupNorm


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
    ("name", "smaller"),
    [
        (
            "coco_mask_rcnn_3x",
            "smaller images: `--input.short_px` (now 480 to 800) or `--input.crop_px` (now no crop)",
        ),
        ("ade20k_upernet_160k", "smaller images: `--input.short_px` (now 512) or `--input.crop_px` (now 512)"),
        ("small", "a smaller --size (input.size_px)"),
    ],
)
@pytest.mark.parametrize("most", [0, 2])
def test_out_of_memory_names_the_micro_batch_and_the_fields_of_the_task_that_make_images_smaller(name, smaller, most):
    chosen = override(recipe(name, "atto", images=50, image_px=64, classes=2), {"optim.layer_decay": 1})
    assert smaller == (Classification.smaller if name == "small" else smaller_in_training(chosen.input))
    network = nn.Linear(2, 2)

    def full(model: nn.Module, piece: torch.Tensor) -> torch.Tensor:
        if len(piece) > most:
            raise torch.OutOfMemoryError("no room")
        return model(piece).sum()

    update = Update(network, chosen, Optimizers(network, chosen.optim), None, full, np.arange(4))
    error = torch.OutOfMemoryError("no room")
    of_task = {"smaller": smaller, "exact": name == "small"}
    said = str(explain_memory(update, torch.zeros(4, 2), 4, error, **of_task))
    assert "\n" not in said and f"`--micro-batch {most or 1}`" in said
    assert (smaller in said) == (name != "small" or not most)  # a classifier's micro-batch costs nothing
    assert smaller in str(explain_memory(update, None, 4, error, **of_task))
