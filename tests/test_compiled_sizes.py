"""`--compile` of networks whose batches differ in size: torch makes sizes symbols once they change, and compiles no further."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from convnext.config import RunOptions, override
from convnext.engine.distributed import ALONE, network_of
from convnext.recipes import recipe
from convnext.tasks.detection.types import Images, Targets
from convnext.tasks.table import row_of
from shape_objects import small

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


SIZES = ((64, 96), (96, 64), (128, 96), (64, 96), (96, 128), (96, 96))


@pytest.mark.parametrize("masks", [True, False])
def test_of_a_detector_the_fixed_parts_are_compiled_and_no_image_compiles_anything_again(monkeypatch, masks):
    chosen = small(head__masks=masks, model__drop_path=0.0)
    eager, model = (row_of(chosen.task).build(chosen).train() for _ in range(2))
    model.load_state_dict(eager.state_dict())
    counter, compile_it = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda part: compile_it(part, backend=counter))
    network = network_of(model, ALONE, compiled=True)
    parts = model.compiled_parts()
    assert len(parts) == 4 + masks
    seen = []
    with torch._dynamo.config.patch(error_on_recompile=False, recompile_limit=8):
        for step, size in enumerate(SIZES):
            images, targets = shown(size, 1 + step % 3)
            torch.manual_seed(step)
            wanted = eager(images, targets)
            sum(wanted.values()).backward()
            torch.manual_seed(step)
            found = network(images, targets)
            sum(found.values()).backward()
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
            seen.append(counter.frame_count)
    pairs = zip(model.named_parameters(), eager.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for (_, one), other in pairs)
    assert seen[0] <= 2 * len(parts)
    assert seen[-1] <= 2 * seen[0] and seen[2:] == [seen[2]] * (len(seen) - 2), seen
    before = counter.frame_count
    model.eval()(images)  # as evaluation calls it: with nothing compiled
    assert counter.frame_count == before and not any("forward" in vars(part) for part in parts)


def shown(size: tuple[int, int], objects: int) -> tuple[Images, list[Targets]]:
    """Two images of noise with so many squares in each."""
    images = Images.of(list(torch.randn(2, 3, *size)))
    corners = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 8.0, 60.0, 50.0], [30.0, 30.0, 62.0, 62.0]])[:objects]
    masks = torch.zeros(objects, *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, corners.long().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    each = Targets(corners, torch.arange(objects) % 2, masks)
    return images, [each, each]
