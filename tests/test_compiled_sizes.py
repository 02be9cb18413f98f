"""`--compile` of networks whose batches differ in size: torch makes sizes symbols once they change, and compiles no further."""

import torch
from torch._dynamo.testing import CompileCounter

from convnext.config import RunOptions, override
from convnext.engine.distributed import ALONE, network_of
from convnext.recipes import recipe
from convnext.tasks.table import row_of

NETWORK = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "model.drop_path": 0.1}


def test_a_segmenter_is_compiled_for_its_first_size_and_for_all_others(monkeypatch):
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    model = row_of(chosen.task).build(override(chosen, {**NETWORK, "head.aux_stage": 1})).train()
    counter, compiled = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compiled(network, backend=counter))
    network = network_of(model, ALONE, compiled=RunOptions(out="", compile=True).compile)
    seen = []
    for height, width in ((32, 48), (48, 64), (64, 32), (64, 96), (80, 80), (128, 64)):
        logits = network(torch.randn(2, 3, height, width))
        logits.main.sum().backward()
        seen.append(counter.frame_count)
    assert seen[0] >= 1 and seen[1:] == [seen[1]] * 5 and seen[1] <= 2 * seen[0]
