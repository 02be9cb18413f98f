"""The host never waits for the device within a step, where it need not: counted on a device that is not there."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import rows
from convnext.config import Recipe, RunOptions, override
from convnext.data.batch import Batch
from convnext.data.dataset import read_sample
from convnext.data.opening import DenseSplits, recognise
from convnext.engine.distributed import World
from convnext.engine.fit import fit
from convnext.recipes import recipe
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.scoring import evaluate
from convnext.tasks.detection import scoring as detection
from convnext.tasks.detection.inference import annotated
from convnext.tasks.segmentation import scoring as segmentation
from convnext.tasks.splits import splits_of
from convnext.tasks.table import row_of
from far_device import FAR, Queue, far_device
from images import write_colours
from shape_objects import small

Waits = Counter[tuple[str, str]]
NETWORK = {"model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2, "model.drop_path": 0.1}
MIXED = {"augment.mixup": 0.8, "augment.cutmix": 1.0, "augment.erasing": 0.5, "augment.smoothing": 0.1}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_colours(tmp_path_factory.mktemp("colours"))
    return splits_of(recognise(folder), val=None, val_share=0.2, seed=0)


def classifier(colours: Any, **changes: object) -> Recipe:
    chosen = recipe("small", "atto", images=len(colours.train.entries), image_px=16, classes=3, batch=2)
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return override(chosen, {**NETWORK, **MIXED, "input.size_px": 16, "optim.batch": 2, **fields})


def ran(data: Any, chosen: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, steps: int, **options: Any) -> Queue:
    """What a run of so many steps asks of the device; it evaluates and saves once, at its end."""
    schedule = chosen.schedule.model_copy(update={"steps": steps, "epochs": None})
    chosen = chosen.model_copy(update={"schedule": schedule})
    with far_device(monkeypatch) as queue, monkeypatch.context() as patch:
        torch.manual_seed(0)
        row = row_of(chosen.task)
        given = RunOptions(out=str(out), workers=0, kernels="plain", progress=False, **options)
        task = row.task(row.build(chosen), chosen, given, data)
        patch.setattr(task, "evaluate", lambda model, world: {task.metric: 0.0, "loss": 0.0})
        fit(task, chosen, given, device=FAR, world=World())
    return queue


def of_a_step(data: Any, chosen: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Waits:
    """What the host waits for in a step: in the second of a run of two, for the first keeps constants on the device."""
    few, more = (Counter(ran(data, chosen, out / str(n), monkeypatch, n, **options).waits) for n in (1, 2))
    more.subtract(few)
    return +more


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__clip": 1.0, "optim__ema": 0.9},
        {"optim__name": "muon", "optim__muon_convolutions": True},
        {"optim__name": "sgd", "loss__balance": "logits"},
        {"loss__balance": "weights"},
    ],
    ids=["adamw", "muon", "sgd", "weights"],
)
def test_a_step_of_classification_never_waits_for_the_device(colours, tmp_path, monkeypatch, changes):
    assert of_a_step(colours, classifier(colours, **changes), tmp_path, monkeypatch, micro_batch=1) == Counter()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_in_fp16_waits_once_to_know_whether_its_gradients_are_finite(colours, tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for this device
    chosen = classifier(colours, optim__name=name, optim__clip=1.0, precision="fp16")
    once = Counter({("_local_scalar_dense", "engine/update.py: _apply"): 1})  # torch's scaler, which else takes no step
    assert of_a_step(colours, chosen, tmp_path, monkeypatch, micro_batch=1) == once


def test_a_step_of_segmentation_never_waits_for_the_device(maps: DenseSplits, tmp_path, monkeypatch):
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    chosen = override(chosen, {**NETWORK, "head.aux_stage": 1, "optim.batch": 2, "optim.clip": 1.0})
    assert of_a_step(maps, chosen, tmp_path, monkeypatch) == Counter()


def test_what_waits_is_seen_with_its_place(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(Batch, "pin_memory", lambda self: self)
    monkeypatch.setattr("convnext.tasks.classification.task.sent", lambda tensor, device: tensor.to(device))
    found = of_a_step(colours, classifier(colours), tmp_path, monkeypatch)
    assert sum(found.values()) == 2 and {what for what, _ in found} == {"_to_copy to the device"}


def test_the_loss_of_a_step_is_looked_at_when_the_next_one_is_queued_and_all_of_them_before_the_end(
    colours, tmp_path, monkeypatch
):
    queue = ran(colours, classifier(colours), tmp_path / "run", monkeypatch, 4)
    steps = [("record", 0)]
    for step in (1, 2, 3):
        steps += [("record", step), ("synchronize", step - 1)]
    assert queue.events == [*steps, ("synchronize", 3)]


def test_a_run_on_the_far_device_learns_what_one_on_the_cpu_does(colours, tmp_path, monkeypatch):
    chosen = classifier(colours, optim__clip=1.0)
    ran(colours, chosen, tmp_path / "far", monkeypatch, 4)
    monkeypatch.setattr("test_waits.FAR", torch.device("cpu"))
    ran(colours, chosen, tmp_path / "near", monkeypatch, 4)
    far, near = (rows(tmp_path / each) for each in ("far", "near"))
    assert [row["step"] for row in far] == [row["step"] for row in near] == [1, 2, 3, 4]
    for one, other in zip(far, near, strict=True):
        assert (one["loss"], one["grad_norm"]) == pytest.approx((other["loss"], other["grad_norm"]), rel=1e-5)


DETECTION = {  # where a step of detection waits -> how often with one head, however many images it has, and why
    "assign.py: places": 4,  # how many anchors and proposals match, how many are proposed, how many objects are learnt
    "rpn.py: _suppressed_together": 1,  # torchvision's suppression of boxes that overlap
    "roi.py: pool": 2,  # once for boxes and once for masks: how many boxes each level of the pyramid has
}


@pytest.mark.parametrize("images", [2, 3])
def test_a_step_of_detection_waits_only_for_numbers_that_decide_shapes(
    objects: DenseSplits, tmp_path, monkeypatch, images
):
    found = Counter()
    chosen = small(optim__clip=1.0, optim__batch=images)
    for (_, place), count in of_a_step(objects, chosen, tmp_path, monkeypatch).items():
        found[place.removeprefix("tasks/detection/")] += count
    assert found == DETECTION


def test_a_batch_of_detection_goes_to_the_device_in_one_copy(objects: DenseSplits, monkeypatch):
    chosen = small()
    samples = [read_sample(objects.train, place) for place in (0, 1)]
    with far_device(monkeypatch) as queue:
        images, targets = annotated(samples, chosen, FAR)  # constants are there now
        copies = len(queue.copies)
        images, targets = annotated(samples, chosen, FAR)
        assert len(queue.copies) == copies + 1
        near = annotated(samples, chosen, torch.device("cpu"))
        assert torch.equal(images.x.near, near[0].x) and images.sizes == near[0].sizes
        for far, there in zip(targets, near[1], strict=True):
            assert len(there.single().boxes) and len(far.parts()) == len(there.parts()) == 4
            for one, other in zip(far.parts(), there.parts(), strict=True):
                assert one.dtype == other.dtype and torch.equal(one.near, other)


def test_a_detector_is_scored_with_one_copy_back_an_image_to_what_it_is_on_the_cpu(objects: DenseSplits, monkeypatch):
    chosen = small()
    torch.manual_seed(0)
    model = row_of(chosen.task).build(chosen).eval()
    with torch.no_grad():
        near = detection.evaluate(model, objects.val, chosen)
        with far_device(monkeypatch) as queue, monkeypatch.context() as patch:
            patch.setattr(torch, "Generator", lambda device, made=torch.Generator: made())
            far = detection.evaluate(model.to(FAR), objects.val, chosen)
    assert len(near) == len(far) > 1
    assert sum(kind == "synchronize" for kind, _ in queue.events) == len(far)
    for one, other in zip(far.found, near.found, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-3) and np.allclose(one.scores, other.scores, atol=1e-5)
        assert one.labels.tolist() == other.labels.tolist() and len(one) and one.masks == other.masks
    assert far.losses == pytest.approx(near.losses, rel=1e-5)


def test_an_evaluation_looks_at_a_batch_while_the_next_is_computed_and_waits_for_nothing_else(
    colours, maps: DenseSplits, monkeypatch
):
    chosen = classifier(colours)
    segmenter = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    segmenter = override(segmenter, {**NETWORK, "head.aux_stage": 1})
    for each, ask in (
        (chosen, lambda model: evaluate(model, colours.val, chosen, Pass(batch=4))),
        (segmenter, lambda model: segmentation.evaluate(model, maps.val, segmenter)),
    ):
        with far_device(monkeypatch) as queue:
            model = row_of(each.task).build(each).eval().to(FAR)
            with torch.no_grad():
                ask(model)  # constants are there now
                queue.waits.clear()
                queue.events.clear()
                ask(model)
        batches = len(queue.events) // 2
        looked = [number for kind, number in queue.events if kind == "synchronize"]
        assert queue.waits == [] and batches > 1 and looked == list(range(batches))
        assert [kind for kind, _ in queue.events[:3]] == ["record", "record", "synchronize"]


@pytest.mark.parametrize("fit", [8, 2, 1])
def test_images_of_one_size_are_segmented_together_as_one_by_one_and_by_halves_where_memory_runs_out(
    maps: DenseSplits, monkeypatch, fit
):
    chosen = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    model = row_of(chosen.task).build(chosen).eval()
    alike = replace(maps.val, entries=maps.val.entries[::2])  # the others are wider
    seen, forward = [], model.forward

    def limited(x: torch.Tensor) -> object:
        seen.append(len(x))
        if len(x) > fit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x)

    with torch.inference_mode():
        alone = segmentation.evaluate(model, alike, chosen)
        monkeypatch.setattr(segmentation, "queued", lambda device: True)
        monkeypatch.setattr(segmentation, "TOGETHER", 4)
        monkeypatch.setattr(model, "forward", limited)
        together = segmentation.evaluate(model, alike, chosen)
    assert max(seen) > 1 and (together.table == alone.table).all() and len(alone) == len(together)
    for one, other in zip(alone.images, together.images, strict=True):
        assert (one.index, one.right) == (other.index, other.right)
        assert one.loss == pytest.approx(other.loss, abs=1e-5 * max(1, one.pixels))
