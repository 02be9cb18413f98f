"""RoIAlign over a pyramid, masks cut out and pasted back, anchors and suppression, against slow versions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from convnext.kernels import cpu
from convnext.kernels.dispatch import without_compiled
from convnext.tasks.detection import rpn
from convnext.tasks.detection.anchors import Anchors
from convnext.tasks.detection.box_head import select
from convnext.tasks.detection.boxes import clip, decode, ious
from convnext.tasks.detection.found import paste
from convnext.tasks.detection.mask_head import mask_loss, mask_targets
from convnext.tasks.detection.roi import level_of, pool
from convnext.tasks.detection.rpn import RPN
from convnext.tasks.detection.types import Images
from detectors import head, random_boxes

STRIDES = (4, 8, 16, 32)


def pyramid(side: int = 64, channels: int = 3, images: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(images, channels, side // 2**i, side // 2**i) for i in range(5)]


def bilinear(grid: Tensor, y: float, x: float) -> float:
    """The value between the four nearest positions; a place outside by more than one has none."""
    rows, columns = grid.shape
    if not (-1 < y < rows and -1 < x < columns):
        return 0.0
    y, x = min(max(y, 0.0), rows - 1), min(max(x, 0.0), columns - 1)
    top, left = min(int(y), rows - 1), min(int(x), columns - 1)
    down, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    upper = grid[top, left] * (1 - dx) + grid[top, right] * dx
    return float(upper * (1 - dy) + (grid[down, left] * (1 - dx) + grid[down, right] * dx) * dy)


def slow_roi_align(grid: Tensor, box: list[float], stride: int, size: int) -> Tensor:
    """(size, size) means of evenly spaced samples, as many in a bin as it has positions, rounded up."""
    x0, y0, x1, y1 = (edge / stride - 0.5 for edge in box)
    bin_y, bin_x = (y1 - y0) / size, (x1 - x0) / size
    in_y, in_x = math.ceil(bin_y), math.ceil(bin_x)
    values = torch.zeros(size, size)
    for row in range(size):
        for column in range(size):
            for i in range(in_y):
                for j in range(in_x):
                    y = y0 + bin_y * (row + (i + 0.5) / in_y)
                    values[row, column] += bilinear(grid, y, x0 + bin_x * (column + (j + 0.5) / in_x)) / (in_y * in_x)
    return values


def slow_suppression(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(groups[i] != groups[k] or ious(boxes[i, None], boxes[k, None]).item() <= iou for k in kept):
            kept.append(i)
    return kept


def test_a_pooled_box_has_the_slow_means_of_its_own_level_and_image():
    levels = pyramid()
    boxes = [torch.tensor([[10.0, 20, 50, 90], [3, 5, 250, 200]]), torch.tensor([[100.0, 30, 230, 160]])]
    pooled = pool(levels, boxes, STRIDES, 2)
    for row, (image, box, level) in enumerate([(0, boxes[0][0], 0), (0, boxes[0][1], 1), (1, boxes[1][0], 1)]):
        slow = slow_roi_align(levels[level][image, 1], box.tolist(), STRIDES[level], 2)
        torch.testing.assert_close(pooled[row, 1], slow, rtol=1e-4, atol=1e-5)


def test_pooling_and_level_choice_are_those_of_torchvision():
    levels = pyramid()
    boxes = [random_boxes(40, seed=1, size=256), random_boxes(30, seed=2, size=256)]
    torch.testing.assert_close(level_of(boxes[0], STRIDES), LevelMapper(2, 5)([boxes[0]]))
    named = {str(i): level for i, level in enumerate(levels[:4])}
    theirs = MultiScaleRoIAlign(list(named), 7, 0)
    theirs.scales, theirs.map_levels = [1 / stride for stride in STRIDES], LevelMapper(2, 5)
    # torchvision pools without the half pixel of 'aligned': shifted maps would be needed, so shift the boxes
    ours = pool(levels, boxes, STRIDES, 7)
    found = level_of(torch.cat(boxes), STRIDES)
    shift = torch.tensor(STRIDES)[found] / 2
    unaligned = torch.cat(boxes) - shift[:, None]
    parts = theirs(named, [unaligned[:40], unaligned[40:]], [(256, 256)] * 2)
    same = level_of(unaligned, STRIDES) == found
    large = (torch.cat(boxes)[:, 2:] - torch.cat(boxes)[:, :2]).amin(1) >= 32  # its smallest bin is one position
    torch.testing.assert_close(ours[same & large], parts[same & large], rtol=1e-4, atol=1e-4)
    assert (same & large).sum() > 20


@pytest.mark.skipif(without_compiled() is not None, reason="NOT tested here: the compiled kernels are not here")
@pytest.mark.parametrize("shape", [(2, 64, 40, 31), (1, 19, 13, 17), (2, 70, 9, 5), (1, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("size", [2, 7])
def test_without_gradients_the_kernel_pools_as_torchvision_does_in_float64(monkeypatch, shape, size):
    """Boxes across the edges, outside, without area, turned around, of many positions and of less than one; odd channels."""
    n, _, rows, columns = shape
    torch.manual_seed(1)
    maps = torch.randn(shape).to(memory_format=torch.channels_last)
    low = torch.rand(60, 2) * torch.tensor([1.3 * columns, 1.3 * rows]) * 4 - 10
    sides = torch.rand(60, 2) ** 2 * torch.tensor([columns, rows]) * 4
    sides[:6] = torch.tensor([[0.0, 0], [9, 0], [0, 9], [-5, -5], [0.1, 0.1], [41.3 * columns, 37.7 * rows]])
    low[6:8] = torch.tensor([[-90.0, -90], [8.0 * columns, 8.0 * rows]])
    boxes = [torch.cat([low, low + sides], 1) for _ in range(n)]
    exact = torch.cat([
        roi_align(one[None].double(), [each.double()], size, 0.25, sampling_ratio=0, aligned=True)
        for one, each in zip(maps, boxes, strict=True)
    ])  # fmt: skip
    called = []
    monkeypatch.setattr(cpu, "roi_align", lambda *given: called.append(cpu.roi.roi_align(*given)))
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        pooled = pool([maps], boxes, (4,), size)
        torch.testing.assert_close(pooled.double(), exact, rtol=1e-4, atol=1e-4)
    torch.set_num_threads(before)
    assert len(called) == 2
    learnt = pool([maps.requires_grad_()], boxes, (4,), size)  # with gradients torchvision's runs
    assert len(called) == 2 and learnt.requires_grad and not learnt.isnan().any()


def test_a_box_moves_one_level_up_with_every_doubling():
    sides = torch.tensor([10.0, 111, 113, 223, 225, 447, 449, 4000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    assert level_of(boxes, STRIDES).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of(boxes / 2, (2, 4, 8, 16)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # a finer backbone


def test_images_without_boxes_are_skipped():
    assert pool(pyramid(), [torch.zeros(0, 4), torch.zeros(0, 4)], STRIDES, 7).shape == (0, 3, 7, 7)
    one = pool(pyramid(), [torch.zeros(0, 4), torch.tensor([[0.0, 0, 64, 64]])], STRIDES, 7)
    torch.testing.assert_close(
        one, pool([level[1:] for level in pyramid()], [torch.tensor([[0.0, 0, 64, 64]])], STRIDES, 7)
    )


# Masks


def slow_paste(mask: Tensor, box: list[float], size: tuple[int, int]) -> Tensor:
    side, padded = len(mask), torch.nn.functional.pad(mask, (1, 1, 1, 1))
    values = torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            if -1 < y < side and -1 < x < side:
                values[row, column] = bilinear(padded, y + 1, x + 1)
    return values


@pytest.mark.parametrize("box", [[2.0, 3, 15, 12], [-4.0, -2.5, 9.25, 7], [7.5, 7.5, 8.5, 8.25], [0.0, 0, 20, 16]])
def test_a_pasted_mask_is_read_bilinearly_at_pixel_centres(box):
    mask = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    pasted = torch.from_numpy(paste(mask.numpy(), np.array([box], np.float32), (16, 20), 0.4))
    slow = slow_paste(mask[0], box, (16, 20))
    sure = (slow - 0.4).abs() > 1e-5
    assert torch.equal(pasted[0][sure], (slow >= 0.4)[sure]) and pasted.dtype == torch.bool


def test_pasting_in_parts_changes_nothing(monkeypatch):
    masks, boxes = torch.rand(5, 28, 28).numpy(), random_boxes(5, seed=3, size=40, least=8).numpy()
    whole = paste(masks, boxes, (40, 40))
    monkeypatch.setattr("convnext.tasks.detection.found._PASTED_AT_ONCE", 2 * 40 * 40)
    assert np.array_equal(whole, paste(masks, boxes, (40, 40)))
    assert paste(masks[:0], boxes[:0], (40, 40)).shape == (0, 40, 40)


def test_what_is_cut_out_of_a_mask_and_pasted_back_is_the_mask():
    yy, xx = torch.meshgrid(torch.arange(80), torch.arange(100), indexing="ij")
    disc = ((yy - 40) ** 2 + (xx - 50) ** 2 < 26**2).to(torch.uint8)[None]
    box = torch.tensor([[24.0, 14, 77, 67]])
    cut = mask_targets([(disc, torch.tensor([0]), box)])[0]
    again = torch.from_numpy(paste(cut.numpy(), box.numpy(), (80, 100))[0])
    shared = (again & disc[0].bool()).sum() / (again | disc[0].bool()).sum()
    assert shared > 0.95


def test_mask_ground_truth_takes_the_box_of_its_own_object():
    masks = torch.zeros(3, 40, 40, dtype=torch.uint8)
    masks[0, 10:20, 10:30], masks[2, :, 20:] = 1, 1
    boxes = torch.tensor([[10.0, 10, 30, 20], [0, 0, 40, 40], [10, 10, 30, 20]])
    ground_truth = mask_targets([(masks, torch.tensor([0, 2, 2]), boxes)], 8)[0]
    assert ground_truth[0].all()
    assert (
        ground_truth[1, :, 4:].all()
        and not ground_truth[1, :, :4].any()
        and torch.equal(ground_truth[1], ground_truth[2])
    )


def test_the_mask_loss_looks_at_the_class_of_the_object_alone():
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.tensor([1, 2]), torch.ones(2, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad is not None and logits.grad[0, 1].all() and logits.grad[1, 2].all()
    assert not logits.grad[0, [0, 2]].any()


# Anchors, proposals, selection


def test_anchors_have_one_area_and_the_ratios_of_height_to_width():
    anchors = Anchors(STRIDES, scale=8, ratios=(0.5, 1, 2)).grid([(2, 3), (1, 1), (1, 1), (1, 1)], "cpu")
    assert [len(level) for level in anchors] == [18, 3, 3, 3]
    first = anchors[0].view(2, 3, 3, 4)
    torch.testing.assert_close(first[0, 0, 1], torch.tensor([-16.0, -16, 16, 16]))
    torch.testing.assert_close(first[1, 2, 1], torch.tensor([8.0 - 16, 4 - 16, 8 + 16, 4 + 16]))
    sides = first[..., 2:] - first[..., :2]
    torch.testing.assert_close(sides.prod(-1), torch.full((2, 3, 3), 1024.0))
    torch.testing.assert_close(sides[0, 0, :, 1] / sides[0, 0, :, 0], torch.tensor([0.5, 1, 2]))


def test_positions_of_the_padding_have_no_anchors():
    inside = Anchors((4, 8), scale=8, ratios=(1,)).inside([(8, 8), (4, 4)], (13, 32), "cpu")
    assert inside[0].view(8, 8)[:4].all() and not inside[0].view(8, 8)[4:].any()
    assert inside[1].view(4, 4)[:2].all() and not inside[1].view(4, 4)[2:].any()


def test_proposals_are_the_best_of_each_level_decoded_clipped_and_suppressed():
    config = head(candidates_test=40, proposals_test=25)
    rpn, shapes = RPN(config, (4, 8)), [(8, 8), (4, 4)]
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(1, rows * columns * 3, generator=generator) for rows, columns in shapes]
    deltas = [torch.randn(1, rows * columns * 3, 4, generator=generator) / 4 for rows, columns in shapes]
    (found,) = rpn.proposals(scores, deltas, shapes, Images(torch.zeros(1, 3, 32, 32), ((30, 28),)), training=False)

    boxes, likely, groups = [], [], []
    for level, anchors in enumerate(rpn.anchors.grid(shapes, "cpu")):
        best = scores[level][0].argsort(descending=True)[:40]
        boxes.append(clip(decode(anchors[best], deltas[level][0, best], (1, 1, 1, 1)), (30, 28)))
        likely.append(scores[level][0, best])
        groups.append(torch.full((len(best),), level))
    every = torch.cat(boxes)
    real = (every[:, 2:] > every[:, :2]).all(1)  # clipping leaves lines and points
    kept = slow_suppression(every[real], torch.cat(likely)[real], torch.cat(groups)[real], 0.7)
    torch.testing.assert_close(found, every[real][kept[:25]])
    assert not real.all()
    assert found[:, 2].max() <= 28 and found[:, 3].max() <= 30


def test_an_image_whose_proposals_all_lie_outside_still_has_one():
    rpn = RPN(head(), (4,))
    far = torch.tensor([1000.0, 1000, 0, 0]).expand(1, 12, 4)
    (found,) = rpn.proposals(
        [torch.zeros(1, 12)], [far], [(2, 2)], Images(torch.zeros(1, 3, 8, 8), ((8, 8),)), training=True
    )
    assert found.tolist() == [[0, 0, 1, 1]]


def test_selection_keeps_the_best_of_each_class_after_suppression():
    config = head(score=0.2, nms_iou=0.5, most=12)
    generator = torch.Generator().manual_seed(0)
    boxes, deltas = random_boxes(60, seed=1, least=20), torch.randn(60, 3, 4, generator=generator) / 5
    logits = torch.randn(60, 4, generator=generator) * 2
    found = select(boxes, logits, deltas, (100, 100), config, config.stages[0])

    each = clip(decode(boxes, deltas, config.stages[0].stds), (100, 100)).flatten(0, 1)
    likely = logits.softmax(1)[:, :3].flatten()
    good = torch.nonzero(likely > 0.2).flatten()
    groups = torch.arange(3).repeat(60)
    kept = good[slow_suppression(each[good], likely[good], groups[good], 0.5)][:12]
    torch.testing.assert_close(found.boxes, each[kept])
    torch.testing.assert_close(found.scores, likely[kept])
    assert found.labels.tolist() == groups[kept].tolist()


def test_images_of_different_sizes_are_padded_right_and_below_to_whole_multiples():
    images = Images.of([torch.ones(3, 40, 70), torch.ones(3, 64, 33)])
    assert images.x.shape == (2, 3, 64, 96) and images.sizes == ((40, 70), (64, 33)) and len(images) == 2
    assert images.x[0].sum() == 3 * 40 * 70 and images.x[0, :, :40, :70].all()


@pytest.mark.parametrize("at_once", [10, 90, 25_000], ids=["one by one", "by two", "together"])
def test_proposals_of_many_images_are_suppressed_as_those_of_each(monkeypatch, at_once):
    monkeypatch.setattr(rpn, "AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 45, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + torch.rand(3, 45, 2, generator=generator) * 30], -1)
    boxes[0, :5, 2], boxes[2] = boxes[0, :5, 0], 7.0  # without an area: some, and all of an image
    scores, levels = torch.randn(3, 45, generator=generator), torch.arange(45) % 4
    found = rpn._suppressed_together(boxes, scores, levels, 0.3, 12)
    for own, *image in zip(found, boxes, scores, strict=True):
        assert torch.equal(own, rpn._suppressed(*image, levels, 0.3, 12))
    assert [len(own) for own in found] == [12, 12, 1]
