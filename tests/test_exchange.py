"""The exchange of gradients between processes, as a network of a run has it."""

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from convnext.engine.distributed import World, exchange_of, network_of


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_exchange_of_gradients_lies_inside_what_is_compiled_and_a_gradient_is_a_view_of_what_is_sent(
    tmp_path, monkeypatch, compiled
):
    monkeypatch.setattr(torch, "compile", lambda network: OptimizedModule(network, lambda called: called))
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rank", rank=0, world_size=1)
    try:
        network = network_of(model, World(size=2), compiled=compiled)
        exchange = exchange_of(network)
        assert isinstance(network, OptimizedModule) == compiled and exchange is not None and exchange.module is model
        for _ in range(2):  # torch lays its bucket anew after the first step
            network(torch.randn(5, 3)).sum().backward()
    finally:
        dist.destroy_process_group()
    gradients = [each.grad for each in model.parameters()]
    assert len({each.untyped_storage().data_ptr() for each in gradients}) == 1
    assert gradients[0].untyped_storage().nbytes() == 4 * sum(each.numel() for each in gradients)
