"""What detectors learn from: losses worked out by hand, images of every kind, and a network that learns two by heart."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from convnext.config import StageConfig
from convnext.tasks.detection.assign import NEUTRAL, Sampled
from convnext.tasks.detection.box_head import box_losses
from convnext.tasks.detection.boxes import encode, ious
from convnext.tasks.detection.cascade import _next_proposals
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.found import paste
from convnext.tasks.detection.roi import pool
from convnext.tasks.detection.rpn import RPN
from convnext.tasks.detection.types import Detections, Images, Targets
from detectors import BACKBONE, head, rectangles, small_detector

HALF = StageConfig(iou=0.5, stds=(0.1, 0.1, 0.2, 0.2), weight=0.5)
LOSSES = {
    "mask_rcnn": {"rpn_score", "rpn_box", "score", "box", "mask"},
    "cascade": {"rpn_score", "rpn_box"} | {f"stage{i}_{part}" for i in range(3) for part in ("score", "box", "mask")},
}


def images() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(3, 50, 70), torch.randn(3, 64, 40)]


def ground_truth() -> list[Targets]:
    return [
        rectangles((50, 70), [[5, 5, 30, 40], [30, 10, 60, 45]], [0, 2]),
        rectangles((64, 40), [[4, 20, 36, 60]], [1]),
    ]


def sampled_boxes() -> tuple[Sampled, Tensor]:
    """Three proposals, the first two with objects of the classes 1 and 0, and the deltas that would be right."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [10, 10, 30, 50], [60, 60, 70, 70]])
    goals = torch.tensor([[2.0, 0, 22, 20], [10, 10, 30, 60]])
    sampled = Sampled(boxes, torch.tensor([1, 0, 3]), torch.tensor([0, 1]), goals, torch.zeros(3, dtype=torch.bool))
    right = torch.zeros(3, 3, 4)
    right[[0, 1], [1, 0]] = encode(boxes[:2], goals, HALF.stds)
    return sampled, right


def test_a_head_that_knows_nothing_has_the_loss_of_chance_and_background_has_no_box():
    sampled, right = sampled_boxes()
    losses = box_losses(torch.zeros(3, 4), torch.zeros(3, 3, 4), [sampled], head(), HALF)
    assert losses["score"].item() == pytest.approx(0.5 * math.log(4))
    assert losses["box"].item() == pytest.approx(0.5 * right.abs().sum().item() / 3)


@pytest.mark.parametrize("fields", [{}, {"box_loss": "giou", "box_loss_weight": 10.0}])
def test_right_deltas_of_the_right_class_cost_nothing(fields):
    sampled, right = sampled_boxes()
    assert box_losses(torch.zeros(3, 4), right, [sampled], head(**fields), HALF)["box"].item() == pytest.approx(
        0, abs=1e-5
    )
    wrong_class = right.roll(1, 1)
    assert box_losses(torch.zeros(3, 4), wrong_class, [sampled], head(**fields), HALF)["box"].item() > 0.05


def test_the_giou_loss_is_that_of_the_decoded_boxes():
    sampled, _ = sampled_boxes()
    loss = box_losses(
        torch.zeros(3, 4), torch.zeros(3, 3, 4), [sampled], head(box_loss="giou", box_loss_weight=10.0), HALF
    )
    iou = 18 / 22, 40 / 50  # unmoved boxes; the smallest boxes around are filled
    assert loss["box"].item() == pytest.approx(0.5 * 10 * (2 - sum(iou)) / 3, rel=1e-5)


def test_a_neutral_proposal_costs_nothing_and_keeps_the_graph():
    nothing = torch.zeros(0, dtype=torch.int64)
    alone = Sampled(
        torch.rand(1, 4), torch.tensor([NEUTRAL]), nothing, torch.zeros(0, 4), torch.zeros(1, dtype=torch.bool)
    )
    scores, deltas = torch.randn(1, 4, requires_grad=True), torch.randn(1, 3, 4, requires_grad=True)
    losses = box_losses(scores, deltas, [alone], head(), HALF)
    sum(losses.values()).backward()
    assert sum(losses.values()).item() == 0 and scores.grad is not None and deltas.grad is not None


def test_region_proposals_that_know_nothing_cost_log_two_and_right_ones_nothing():
    rpn, shapes = RPN(head(), (4, 8)), [(16, 16), (8, 8)]
    scores = [torch.zeros(1, 16 * 16 * 3), torch.zeros(1, 8 * 8 * 3)]
    deltas = [torch.zeros(1, 16 * 16 * 3, 4), torch.zeros(1, 8 * 8 * 3, 4)]
    anchors = torch.cat(rpn.anchors.grid(shapes, "cpu"))
    target = Targets(anchors[[400]], torch.tensor([0]))
    losses = rpn.losses(scores, deltas, shapes, [(64, 64)], [target], torch.Generator().manual_seed(0))
    assert losses["rpn_score"].item() == pytest.approx(math.log(2))
    overlaps = ious(anchors, anchors[[400]])[:, 0]
    goals = torch.where((overlaps >= 0.7)[:, None], encode(anchors, anchors[[400]].expand_as(anchors), (1, 1, 1, 1)), 0)
    right = list(goals[None].split([16 * 16 * 3, 8 * 8 * 3], 1))
    sure = list(torch.where(overlaps >= 0.7, 50.0, -50.0)[None].split([16 * 16 * 3, 8 * 8 * 3], 1))
    losses = rpn.losses(sure, right, shapes, [(64, 64)], [target])
    assert losses["rpn_box"].item() == pytest.approx(0, abs=1e-6) == losses["rpn_score"].item()


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_every_parameter_gets_a_finite_gradient_from_images_of_different_sizes(kind):
    model = small_detector(kind)
    losses = model(images(), ground_truth())
    assert set(losses) == LOSSES[kind] and all(loss.isfinite() and loss >= 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_an_image_without_objects_teaches_background_to_the_whole_network(kind):
    model = small_detector(kind)
    losses = model.losses(images()[:1], [rectangles((50, 70), [], [])])
    assert all(losses[name] == 0 for name in losses if "box" in name or "mask" in name)
    sum(losses.values()).backward()  # with DistributedDataParallel each parameter must take part in every step
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
@pytest.mark.parametrize("norm", ["group", "batch", "sync"])
def test_one_image_that_a_crowd_covers_is_learnt_from_without_failing(kind, norm):
    model = small_detector(kind, head_norm=norm, box_head="convolutional")
    target = Targets(torch.tensor([[0.0, 0, 70, 50]]), torch.tensor([0]), crowd=torch.tensor([True]))
    losses = model.losses(images()[:1], [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_boxes_without_masks_train_with_and_without_a_mask_head(kind):
    boxes_only = [rectangles((50, 70), [[5, 5, 30, 40]], [0], masks=False), ground_truth()[1]]
    mixed = small_detector(kind).losses(images(), boxes_only)
    assert sum(loss for name, loss in mixed.items() if "mask" in name) > 0  # of the image that has masks
    model = small_detector(kind, masks=False)
    assert set(model.losses(images(), ground_truth())) == {name for name in LOSSES[kind] if "mask" not in name}
    assert model.eval().detect(images())[0].masks is None


def test_a_generator_decides_all_samples():
    model = small_detector("cascade").eval()
    totals = [
        sum(model.losses(images(), ground_truth(), torch.Generator().manual_seed(seed)).values()).item()
        for seed in (0, 0, 1)
    ]
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_detections_lie_inside_their_own_image_best_first(kind):
    model = small_detector(kind).eval()
    for found, image in zip(model(Images.of(images())), images(), strict=True):
        height, width = image.shape[1:]
        assert 0 < len(found) <= 10 and found.masks is not None and found.masks.shape == (len(found), 28, 28)
        assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= width and found.boxes[:, 3].max() <= height
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.labels.min() >= 0 and found.labels.max() < 3


def test_a_detector_that_is_sure_of_nothing_shows_nothing():
    found = small_detector("mask_rcnn", score=0.99).eval().detect(images())
    assert [len(each) for each in found] == [0, 0] and found[0].masks.shape == (0, 28, 28)


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_mixed_precision_gives_float32_losses_near_the_full_ones(kind):
    model = small_detector(kind).train()
    full = model.losses(images(), ground_truth(), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.losses(images(), ground_truth(), torch.Generator().manual_seed(0))
        found = model.eval().detect(images())
    assert all(loss.dtype == torch.float32 for loss in mixed.values())
    assert mixed["rpn_score"].item() == pytest.approx(full["rpn_score"].item(), rel=0.05)
    assert found[0].boxes.dtype == found[0].scores.dtype == found[0].masks.dtype == torch.float32


def test_resized_detections_lie_in_the_original_image():
    found = Detections(torch.tensor([[10.0, 20, 30, 40]]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert found.resized((100, 50), (200, 25)).boxes.tolist() == [[5.0, 40.0, 15.0, 80.0]]


# Cascade


def test_a_cascade_that_moves_no_box_scores_by_the_mean_of_its_stages():
    model = small_detector("cascade").eval()
    for stage in model.heads.box:
        torch.nn.init.zeros_(stage.delta.weight)
    batch = Images.of(images()[:1])
    with torch.no_grad():
        pyramid, scores, deltas = model.look(batch.x)
        shapes = [level.shape[-2:] for level in pyramid]
        (boxes,) = model.rpn.proposals(scores, deltas, shapes, batch, training=False)
        pooled = pool(pyramid, [boxes], model.heads.strides, 7)
        mean = torch.stack([stage(pooled)[0] for stage in model.heads.box]).mean(0).softmax(1)
    (found,) = model.detect(batch)
    assert found.scores[0].item() == pytest.approx(mean[:, :3].max().item(), abs=1e-6)


def test_the_next_stage_takes_moved_boxes_by_class_without_the_annotated_ones():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 20, 20], [40, 40, 60, 60]])
    given = torch.tensor([True, False, False, False])
    labels = torch.tensor([1, 2, 3, 3])  # two objects, two of background
    sampled = Sampled(boxes, labels, torch.tensor([0, 1]), boxes[:2], given)
    scores = torch.zeros(4, 4)
    scores[2, 0], scores[3, 1], scores[:, 3] = 1, 1, 9  # background moves by its likeliest class
    deltas = torch.zeros(4, 3, 4)
    deltas[1, 2, 0], deltas[2, 0, 1], deltas[3, 1, 0] = 1, 2, 5  # in tenths of a side
    (found,) = _next_proposals(scores, deltas, [sampled], [(100, 65)], HALF)
    torch.testing.assert_close(found, torch.tensor([[21.0, 20, 31, 30], [0, 4, 20, 24], [50, 40, 65, 60]]))


# Learning


def scene(seed: int) -> tuple[Tensor, Targets]:
    """A grey image with a bright square and a dark bar, somewhere."""
    torch.manual_seed(seed)
    x, y = torch.randint(2, 16, (2,)).tolist()
    boxes = [[float(x), float(y), x + 20.0, y + 20.0], [34.0 - x, y + 26.0, 60.0 - x, y + 38.0]]
    target = rectangles((64, 64), boxes, [0, 1])
    assert target.masks is not None
    image = torch.randn(3, 64, 64) * 0.1 + target.masks[0] * 2 - target.masks[1] * 2
    return image, target


def learnt(kind: str, steps: int, **fields: Any) -> tuple[Detector, list[Tensor], list[Targets]]:
    images, targets = map(list, zip(*(scene(seed) for seed in (0, 1)), strict=True))
    torch.manual_seed(0)
    model = Detector(BACKBONE, head(kind, classes=2, anchor_scale=4.0, score=0.3, **fields))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        sum(model.losses(images, targets, torch.Generator().manual_seed(step)).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval(), images, targets


def test_two_images_are_learnt_by_heart_with_their_boxes_classes_and_masks():
    model, images, targets = learnt("mask_rcnn", 140)
    for found, target in zip(model.detect(images), targets, strict=True):
        order = found.labels.argsort()
        assert found.labels[order].tolist() == [0, 1]
        assert ious(found.boxes[order], target.boxes).diagonal().min() > 0.7
        assert found.masks is not None and target.masks is not None
        masks = torch.from_numpy(paste(found.masks[order].numpy(), found.boxes[order].numpy(), (64, 64)))
        shared = (masks & target.masks.bool()).sum((1, 2)) / (masks | target.masks.bool()).sum((1, 2))
        assert shared.min() > 0.6
