"""Box coding, overlaps, matching and sampling, each against a slow version of a few lines."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, generalized_box_iou

from convnext.tasks.detection.assign import BACKGROUND, IGNORED, NEUTRAL, match, sample, sample_proposals
from convnext.tasks.detection.boxes import LARGEST_STRETCH, clip, covers, decode, encode, gious, ious
from convnext.tasks.detection.types import Targets
from detectors import head, random_boxes

STDS = (0.1, 0.1, 0.2, 0.2)
Box = list[float]


def slow_encode(box: Box, goal: Box) -> Box:
    width, height = box[2] - box[0], box[3] - box[1]
    shift_x = (goal[0] + goal[2] - box[0] - box[2]) / 2 / width
    shift_y = (goal[1] + goal[3] - box[1] - box[3]) / 2 / height
    stretch = math.log((goal[2] - goal[0]) / width), math.log((goal[3] - goal[1]) / height)
    return [shift_x / 0.1, shift_y / 0.1, stretch[0] / 0.2, stretch[1] / 0.2]


def slow_overlap(a: Box, b: Box) -> tuple[float, float]:
    """IoU and generalised IoU."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (around - union) / around


def slow_match(candidates: list[Box], objects: list[Box], positive: float, negative: float, least: float) -> list[int]:
    table = [[slow_overlap(c, o)[0] for o in objects] for c in candidates]
    found = []
    for row in table:
        best = max(row)
        found.append(row.index(best) if best >= positive else BACKGROUND if best < negative else IGNORED)
    for m in range(len(objects)):
        most = max(row[m] for row in table)
        for a, row in enumerate(table):
            if most >= least and abs(row[m] - most) < 1e-7:
                found[a] = m
    return found


def test_deltas_are_those_of_the_definition_and_of_torchvision():
    boxes, goals = random_boxes(40, seed=0), random_boxes(40, seed=1)
    deltas = encode(boxes, goals, STDS)
    slow = [slow_encode(*pair) for pair in zip(boxes.tolist(), goals.tolist(), strict=True)]
    torch.testing.assert_close(deltas, torch.tensor(slow), rtol=1e-4, atol=1e-4)
    theirs = BoxCoder(tuple(1 / std for std in STDS)).encode_single(goals, boxes)
    torch.testing.assert_close(deltas, theirs, rtol=1e-4, atol=1e-4)


def test_decoding_is_the_inverse_of_coding():
    boxes, goals = random_boxes(50, seed=2).double(), random_boxes(50, seed=3).double()
    torch.testing.assert_close(decode(boxes, encode(boxes, goals, STDS), STDS), goals)


def test_every_class_decodes_its_own_deltas():
    boxes, deltas = random_boxes(5, seed=4), torch.randn(5, 3, 4)
    together = decode(boxes, deltas, STDS)
    assert together.shape == (5, 3, 4)
    for k in range(3):
        torch.testing.assert_close(together[:, k], decode(boxes, deltas[:, k], STDS))


def test_no_delta_makes_an_infinite_box():
    box = decode(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 1e6, -1e6]]), STDS)[0]
    assert box[2] - box[0] == pytest.approx(10 * math.exp(LARGEST_STRETCH), rel=1e-4)
    assert box[3] - box[1] == pytest.approx(10 / math.exp(LARGEST_STRETCH), rel=1e-2)


def test_clipping_keeps_what_is_inside_the_image():
    boxes = torch.tensor([[-5.0, -5, 5, 5], [90, 40, 130, 70], [10, 10, 20, 20]])
    expected = torch.tensor([[0.0, 0, 5, 5], [90, 40, 100, 50], [10, 10, 20, 20]])
    torch.testing.assert_close(clip(boxes, (50, 100)), expected)


def test_overlaps_are_those_of_the_definition_and_of_torchvision():
    boxes, others = random_boxes(30, seed=5), random_boxes(30, seed=6)
    slow = torch.tensor([[slow_overlap(a, b) for b in others.tolist()] for a in boxes.tolist()])
    torch.testing.assert_close(ious(boxes, others), slow[..., 0])
    torch.testing.assert_close(gious(boxes, others), slow[..., 1].diagonal(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ious(boxes, others), box_iou(boxes, others))
    torch.testing.assert_close(gious(boxes, others), generalized_box_iou(boxes, others).diagonal())


def test_empty_boxes_overlap_nothing_and_make_no_nan():
    empty, box = torch.zeros(1, 4), torch.tensor([[0.0, 0, 2, 2]])
    assert ious(empty, box).item() == ious(empty, empty).item() == covers(empty, box).item() == 0
    assert ious(box, torch.zeros(0, 4)).shape == (1, 0)
    boxes = torch.zeros(1, 4, requires_grad=True)
    gious(boxes, torch.zeros(1, 4)).sum().backward()
    assert boxes.grad is not None and boxes.grad.isfinite().all()


def test_generalised_iou_goes_from_minus_one_to_one():
    box = torch.tensor([[0.0, 0, 1, 1]])
    assert gious(box, box).item() == pytest.approx(1)
    assert gious(box, box + 1000).item() == pytest.approx(-1, abs=1e-3)


def test_a_cover_is_a_share_of_the_candidate():
    inside, crowd = torch.tensor([[0.0, 0, 2, 2], [8, 0, 12, 1]]), torch.tensor([[0.0, 0, 10, 10]])
    assert covers(inside, crowd).flatten().tolist() == [1.0, 0.5]


# Matching


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("positive", "negative", "least"), [(0.7, 0.3, 0.3), (0.5, 0.5, 0.5), (0.6, 0.4, 0.0)])
def test_matches_are_those_of_the_slow_matcher(seed, positive, negative, least):
    candidates, objects = random_boxes(80, seed=seed), random_boxes(6, seed=100 + seed, least=10)
    found = match(candidates, objects, positive=positive, negative=negative, least=least)
    assert found.tolist() == slow_match(candidates.tolist(), objects.tolist(), positive, negative, least)


def test_without_the_last_rule_an_object_may_stay_alone():
    candidates, objects = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 4]])
    assert match(candidates, objects, positive=0.7, negative=0.3).tolist() == [IGNORED]
    assert match(candidates, objects, positive=0.7, negative=0.3, least=0.3).tolist() == [0]


def test_all_candidates_that_overlap_an_object_alike_are_its_own():
    twins = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    found = match(twins, torch.tensor([[0.0, 0, 10, 5]]), positive=0.7, negative=0.3, least=0.3)
    assert found.tolist() == [0, 0, BACKGROUND]


def test_an_image_without_objects_is_background():
    found = match(random_boxes(4, seed=0), torch.zeros(0, 4), positive=0.7, negative=0.3, least=0.3)
    assert found.tolist() == [BACKGROUND] * 4
    assert match(torch.zeros(0, 4), random_boxes(2, seed=0), positive=0.7, negative=0.3, least=0.3).shape == (0,)


def test_background_inside_a_crowd_is_ignored_and_an_object_there_is_not():
    candidates = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [70, 70, 80, 80]])
    crowds = torch.tensor([[0.0, 0, 50, 50]])
    rule = {"positive": 0.5, "negative": 0.5, "crowds": crowds}
    assert match(candidates, candidates[:1], **rule).tolist() == [0, IGNORED, BACKGROUND]
    assert match(candidates, candidates[:1], crowd_cover=None, **rule).tolist() == [0, BACKGROUND, BACKGROUND]


@pytest.mark.parametrize("objects", [5, 0])
def test_candidates_that_are_none_change_nothing_for_the_others(objects):
    candidates, among = random_boxes(60, seed=1), torch.arange(60) % 3 > 0
    rule = {"positive": 0.6, "negative": 0.4, "least": 0.1, "crowds": torch.tensor([[0.0, 0, 30, 30]])}
    boxes = random_boxes(objects, seed=2, least=10)
    found = match(candidates, boxes, among=among, **rule)
    assert found[among].tolist() == match(candidates[among], boxes, **rule).tolist()
    assert set(found[~among].tolist()) == {IGNORED}


# Sampling


def matches_of(objects: int, background: int, ignored: int) -> Tensor:
    values = [3] * objects + [BACKGROUND] * background + [IGNORED] * ignored
    return torch.tensor(values)[torch.randperm(len(values), generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize(
    ("objects", "background", "expected"),
    [(100, 1000, (16, 48)), (5, 1000, (5, 59)), (100, 10, (16, 10)), (0, 1000, (0, 64)), (0, 0, (0, 0))],
)
def test_a_sample_has_its_share_of_objects_and_fills_up_with_background(objects, background, expected):
    matches = matches_of(objects, background, 50)
    ((chosen, rest),) = sample([matches], 64, 0.25)
    assert (len(chosen), len(rest)) == expected
    assert (matches[chosen] == 3).all() and (matches[rest] == BACKGROUND).all()
    assert len(set(chosen.tolist())) == len(chosen) and len(set(rest.tolist())) == len(rest)


def test_a_generator_decides_the_sample_and_every_object_can_be_in_it():
    matches = matches_of(20, 20, 0)
    draws = [sample([matches], 8, 0.5, torch.Generator().manual_seed(seed))[0][0].tolist() for seed in range(60)]
    assert draws[0] == sample([matches], 8, 0.5, torch.Generator().manual_seed(0))[0][0].tolist() != draws[1]
    assert {place for draw in draws for place in draw} == set(torch.nonzero(matches == 3).flatten().tolist())


def test_annotated_boxes_are_proposals_too_and_objects_come_first():
    target = Targets(torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.tensor([2, 0]))
    config = head()
    (found,) = sample_proposals(
        [torch.tensor([[21.0, 20, 40, 40], [60, 60, 70, 70]])], [target], config, config.stages[0]
    )
    assert sorted(found.labels.tolist()) == [0, 0, 2, 3] and found.labels[-1] == config.classes
    assert found.given.tolist() == [True, True, False, False] and len(found.objects) == len(found.goals) == 3
    for box, label, which, goal in zip(found.boxes, found.labels, found.objects, found.goals, strict=False):
        assert label == target.labels[which] and ious(box[None], goal[None]) > 0.5
        assert torch.equal(goal, target.boxes[which])


def test_neither_crowds_nor_boxes_without_area_are_learnt():
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 60, 60, 70], [70, 70, 90, 90]])
    target = Targets(boxes, torch.tensor([0, 1, 2]), crowd=torch.tensor([True, False, False]))
    config = head()
    (found,) = sample_proposals([torch.tensor([[5.0, 5, 25, 25]])], [target], config, config.stages[0])
    assert found.labels.tolist() == [2] and torch.equal(found.boxes[0], boxes[2])


def test_where_a_crowd_hides_everything_one_proposal_stays_that_no_loss_sees():
    target = Targets(torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([0]), crowd=torch.tensor([True]))
    config = head()
    (found,) = sample_proposals([torch.tensor([[5.0, 5, 25, 25]])], [target], config, config.stages[0])
    assert found.labels.tolist() == [NEUTRAL] and not len(found.objects)
