"""Predictions of detectors: in original pixels, the same in every way that one asks, as COCO's rows and as drawings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as theirs

import convnext
from checkpoints import checkpoint_of
from convnext.config import RunOptions
from convnext.data.annotated import AnnotatedImage, Row, objects_of
from convnext.data.annotated_policy import eval_dense
from convnext.data.masks import decode_mask, encode, encode_inside
from convnext.data.opening import open_dense, recognise
from convnext.data.sample import Sample
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.load import load
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.deploy.trained.detector import TrainedDetector
from convnext.deploy.trained.segmenter import TrainedSegmenter
from convnext.drawing.overlay import colours_of, draw_map, draw_objects, names_of
from convnext.drawing.palette import colour_of
from convnext.errors import CheckpointError, DataError
from convnext.recipes import recipe
from convnext.tasks.detection.found import outline, paste
from convnext.tasks.detection.inference import find, in_original, targets_of
from convnext.tasks.detection.metrics import Outcomes
from convnext.tasks.detection.report import report
from convnext.tasks.detection.scoring import evaluation
from convnext.tasks.detection.types import Detections
from convnext.tasks.result import Evaluation
from convnext.tasks.train import Request, train
from shape_objects import FIELDS, IDS, NAMES, write_objects

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch, which shows everything that it thinks of."""
    out = tmp_path_factory.mktemp("run") / "run"
    changes = FIELDS | {"optim.batch": 2, "schedule.epochs": 1, "schedule.warmup_epochs": 0, "head.score": 0.0}
    train(Request(data=recognise(folder), changes=changes), RunOptions(out=str(out), workers=0))
    return out


@pytest.fixture(scope="module")
def predictor(run: Path) -> DetectionPredictor:
    return load(run, task="detection", device="cpu")


def test_a_part_of_a_mask_is_encoded_as_the_whole_and_as_pycocotools_has_it():
    rng = np.random.default_rng(0)
    for share in (0, 0.3, 0.8, 1) * 50:
        height, width = (int(side) for side in rng.integers(1, 9, 2))
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        part = rng.random((rng.integers(0, height - top + 1), rng.integers(0, width - left + 1))) < share
        whole = np.zeros((height, width), np.uint8)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        found = encode_inside(part, top, left, height, width)
        assert found == encode(whole) and found.counts == theirs.encode(np.asfortranarray(whole))["counts"]


def test_an_outline_is_the_mask_that_is_pasted_into_the_whole_image():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 6, 6, generator=generator, dtype=torch.float64)
    corner = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 30
    boxes = torch.cat([corner, corner + torch.rand(40, 2, generator=generator, dtype=torch.float64) * 15], 1)
    boxes[0] = boxes[0, 0]  # without an area
    boxes[1, 2:] = boxes[1, :2] + 0.2  # narrower than a pixel
    whole = paste(masks.numpy(), boxes.numpy(), (36, 40))
    for mask, box, pasted in zip(masks.numpy(), boxes.numpy(), whole, strict=True):
        assert (decode_mask(outline(mask, box, (36, 40))) == pasted).all()


def test_boxes_and_masks_go_back_to_the_original_image_as_the_frame_says():
    image = np.zeros((50, 90, 3), np.uint8)
    config = recipe("small_detection", "atto", images=9, image_px=64, classes=2).input
    shown = eval_dense(
        Sample(image, None, None, "x.png", 8, (50, 90)),
        config.model_copy(update={"eval_short_px": 100, "eval_long_px": 130}),
    )
    assert shown.image.shape[:2] == (72, 130)
    boxes = torch.tensor([[10.0, 20.0, 40.0, 60.0], [0.0, 0.0, 130.0, 72.0]])
    found = in_original(Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0]), torch.ones(2, 28, 28)), shown)
    assert found.boxes == pytest.approx(shown.frame.back(boxes.numpy()), abs=1e-4)
    assert (found.path, found.image_id, found.size) == ("x.png", 8, (50, 90))
    inside = decode_mask(found.masks[0])
    rows, columns = np.nonzero(inside)
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert inside.shape == (50, 90) and np.abs(found.boxes[0] - tight).max() <= 1
    assert decode_mask(found.masks[1]).all()


def test_a_run_answers_the_same_for_a_path_bytes_an_image_and_an_array(folder, predictor):
    file = folder / "val" / "001.png"
    with Image.open(file) as image:
        forms = [str(file), file, file.read_bytes(), image.convert("RGB"), np.asarray(image)]
        answers = [predictor(form, score=0) for form in forms]
    first = answers[0]
    assert len(first) == 10 and first.size == (40, 64) and first.path == str(file)
    assert (np.diff(first.scores) <= 0).all() and first.boxes.max() <= 64 and first.outlines[0].width == 64
    for other in answers[1:]:
        assert (other.boxes == first.boxes).all() and other.outlines == first.outlines
    middle = float(first.scores[4])
    assert len(predictor(file, score=middle)) == int((first.scores >= middle).sum()) < 10


def test_prediction_and_evaluation_find_the_same_in_every_image(folder, run, predictor):
    val = open_dense(recognise(folder), part="val", classes=predictor.classes)
    outcomes = predictor.outcomes(val)
    predicted = list(predictor.predict([folder / "val"], score=0))
    assert [found.image_id for found in predicted] == [1, 2, 3, 4]
    for one, other in zip(predicted, outcomes.found, strict=True):
        assert (one.boxes == other.boxes).all() and (one.scores == other.scores).all() and one.outlines == other.masks
    evaluated = json.loads((run / "evaluation.json").read_text())
    again = report(outcomes, val)
    assert {key: again[key] for key in again} == {key: evaluated[key] for key in again}
    with torch.inference_mode():
        assert evaluation(predictor.model, val, predictor.recipe) == Evaluation.of("detection", again)


def test_a_broken_image_is_noted_and_the_others_are_answered(folder, predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "b.png").write_bytes((folder / "val" / "000.png").read_bytes())
    skipped: dict[str, str] = {}
    (found,) = predictor.predict(tmp_path, skipped=skipped, score=0)
    assert Path(found.path).name == "b.png" and found.image_id == 2
    assert [Path(path).name for path in skipped] == ["a.png"]
    with pytest.raises(DataError):
        predictor(tmp_path / "a.png")


def test_detections_are_rows_of_coco_s_result_file(folder, predictor):
    found = predictor(folder / "val" / "000.png", score=0)
    rows = json.loads(json.dumps(found.to_dict()["predictions"]))
    assert len(rows) == len(found) > 0
    names = dict(zip(IDS, NAMES, strict=True))
    for row, box, mask in zip(rows, found.boxes, found.outlines, strict=True):
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=1e-4)
        assert row["category"] == names[row["category_id"]] and row["file_name"] == found.path
        assert (theirs.decode(row["segmentation"]) == decode_mask(mask)).all()


@pytest.mark.parametrize(("task", "kind"), [("classification", TrainedClassifier), ("segmentation", TrainedSegmenter)])
def test_a_checkpoint_loads_as_what_it_was_trained_for(task, kind, tmp_path):
    found = convnext.load(checkpoint_of(task, tmp_path), device="cpu")
    assert type(found) is kind and found.classes == ("a", "b")
    image = np.zeros((40, 50, 3), np.uint8)
    if isinstance(found, TrainedSegmenter):
        answer = found(image)
        assert answer.mask.shape == answer.scores.shape == (40, 50) and answer.scores.min() >= 0.5
        Image.fromarray(image).save(tmp_path / "x.png")
        (tmp_path / "y.png").write_bytes(b"none")
        skipped: dict[str, str] = {}
        (again,) = found.predict([tmp_path / "x.png", tmp_path / "y.png"], skipped=skipped)
        assert (again.mask == answer.mask).all() and list(skipped) == [str(tmp_path / "y.png")]


def test_a_detector_is_refused_where_a_classifier_is_needed(run, predictor, tmp_path):
    with pytest.raises(CheckpointError, match="is for detection, and classification is needed here"):
        load(run, task="classification")
    assert type(convnext.load(run, device="cpu")) is TrainedDetector
    with pytest.raises(CheckpointError, match="no run or checkpoint"):
        load(tmp_path / "nothing")


def test_an_image_without_annotations_has_no_targets_and_boxes_in_shares_are_counted_in_pixels(predictor, folder):
    none = targets_of(None)
    assert none.boxes.shape == (0, 4) and none.labels.dtype == torch.int64
    val = open_dense(recognise(folder), part="val")
    shares = objects_of([Row((0.25, 0.25, 0.5, 0.5), 0, id=1)], relative=True)
    val = replace(val, entries=(AnnotatedImage(val.entries[0].path, 1, None, shares),))
    sample = eval_dense(Sample(np.zeros((40, 56, 3), np.uint8), None, None, "x", 1, (40, 56)), predictor.recipe.input)
    with torch.inference_mode():
        (found,) = find(predictor.model, [sample], predictor.recipe)
    exact = replace(
        found.above(2),
        boxes=np.array([[14, 10, 28, 20]], np.float32),
        scores=np.ones(1, np.float32),
        labels=np.zeros(1, np.int64),
        masks=None,
    )
    assert report(Outcomes((0,), (exact,), (0.0,)), val)["working_point"]["f1"] == 1


def test_objects_are_drawn_where_they_are_and_the_rest_of_the_image_is_left():
    image = np.full((100, 120, 3), 90, np.uint8)
    mask = np.zeros((100, 120), np.uint8)
    mask[40:60, 30:50] = 1
    box = np.array([[30, 40, 50, 60]], np.float32)
    plain = draw_objects(image, box, [3])
    assert tuple(plain[40, 30]) == tuple(plain[59, 49]) == colour_of(3) and (image == 90).all()
    assert (plain[42:58, 32:48] == 90).all() and (plain[61:] == 90).all() and (plain[:, 51:] == 90).all()
    tinted = draw_objects(image, box, [3], masks=[encode(mask)])
    assert (tinted[42:58, 32:48] != 90).any() and (tinted[61:] == 90).all()
    named = draw_objects(image, box, [3], names=["dog 0.97"], masks=[None])
    assert (named[25:40, 30:60] != 90).any() and (named[70:] == 90).all()
    grey = draw_objects(image[:, :, :1], box, [3], names=[""])
    assert grey.shape == (100, 120, 3) and (grey == plain).all()
    assert draw_objects(image, np.zeros((0, 4)), []).shape == image.shape


def test_names_stay_inside_the_image_and_are_left_out_where_they_would_hide_it():
    box = np.array([[100, 40, 119, 60]], np.float32)
    image = np.full((100, 120, 3), 90, np.uint8)
    named, free = (draw_objects(image, place, [3], names=["dog 0.97"]) for place in (box, box - [[60, 0, 60, 0]]))
    at_edge, inside = ((each[20:40] == colour_of(3)).all(2).sum() for each in (named, free))
    assert at_edge == inside > 0  # the whole plate is there: it begins further left instead of being cut
    small = np.full((95, 120, 3), 90, np.uint8)
    assert (draw_objects(small, box, [3], names=["dog 0.97"]) == draw_objects(small, box, [3])).all()
    labels = np.zeros((95, 120), np.uint8)
    assert (draw_map(small, labels, ["dog"]) == draw_map(small, labels)).all()
    labels = np.zeros((100, 120), np.uint8)
    assert (draw_map(image, labels, ["dog"]) != draw_map(image, labels)).any()


def test_classes_have_colours_of_their_own_and_objects_where_there_is_one_class():
    assert len({colour_of(number) for number in range(80)}) == 80
    assert colours_of([1, 1, 0], ("cat", "dog")) == [1, 1, 0] and colours_of([0, 0, 0], ("cat",)) == [0, 1, 2]
    assert names_of([1], [0.973], ("cat", "dog")) == ["dog 0.97"]
