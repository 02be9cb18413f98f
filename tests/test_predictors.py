"""Predictors of all tasks: one image in any form or many of them, and values that say, draw and save what was found."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import TASKS, checkpoint_of
from commands import convnext
from convnext.config import Statistics
from convnext.data.masks import decode_mask
from convnext.deploy.images import Given
from convnext.deploy.load import load
from convnext.deploy.prediction import (
    ClassificationPrediction,
    DetectionPrediction,
    Prediction,
    SegmentationPrediction,
)
from convnext.deploy.predictor import Predictor
from convnext.errors import CheckpointError, ConvNeXtError, DataError
from images import write_colours

KINDS = {
    "classification": ClassificationPrediction,
    "detection": DetectionPrediction,
    "segmentation": SegmentationPrediction,
}


@pytest.fixture(scope="module")
def predictors(tmp_path_factory) -> dict[str, Any]:
    files = {task: checkpoint_of(task, tmp_path_factory.mktemp(task)) for task in TASKS}
    return {task: load(file, device="cpu") for task, file in files.items()}


@pytest.fixture(params=TASKS)
def predictor(request, predictors) -> Any:
    found = predictors[request.param]
    if request.param != "detection":
        return found

    class Everything:
        """The detector with everything that it finds, as the other two have it."""

        def __call__(self, image, **how):
            return found(image, score=0, **how)

        def predict(self, images, **how):
            return found.predict(images, score=0, **how)

        def __getattr__(self, name):
            return getattr(found, name)

    return Everything()


@pytest.fixture(scope="module")
def classifier(predictors) -> Any:
    return predictors["classification"]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(48, 64, 3), different in every corner."""
    rng = np.random.default_rng(0)
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 64)[None]
    image[..., 1] = np.linspace(0, 255, 48)[:, None]
    image[:12, :20] = (0, 0, 255)
    return np.clip(image + rng.integers(-8, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(pixels, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for number, part in enumerate((pixels, pixels[::-1], pixels[:, ::-1])):
        Image.fromarray(part).save(place / f"{number}.png")
    return place


def said(prediction: Prediction) -> Any:
    """What a prediction says, without the name of its image."""
    found = prediction.to_dict()
    for row in (found, *found.get("predictions", ())):
        for name in ("path", "file_name", "image_id"):
            row.pop(name, None)
    return found


def encoded(image: Image.Image, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png", **how)
    return stream.getvalue()


# One image


def test_every_task_answers_with_a_prediction_of_its_own(predictor, folder):
    answer = predictor(folder / "0.png")
    assert type(answer) is KINDS[predictor.recipe.task] and isinstance(answer, Prediction)
    assert answer.path == str(folder / "0.png") and answer.size == (48, 64) and answer.image_id == 1
    assert answer.predictions and {name for name, _ in answer.predictions} <= set(predictor.classes)
    values = [value for _, value in answer.predictions]
    assert values == sorted(values, reverse=True) and 0 <= min(values) <= max(values) <= 1
    assert answer.text() and "\n" not in answer.text()
    assert len(predictor(folder / "0.png", top=1).predictions) == 1


def test_a_path_bytes_a_pil_image_and_an_array_get_the_same_answer(predictor, folder, pixels):
    file = folder / "0.png"
    expected = said(predictor(str(file)))
    with Image.open(file) as opened:
        opened.load()
        for form in (file, file.read_bytes(), opened, pixels, np.dstack([pixels, np.full((48, 64), 255, np.uint8)])):
            assert said(predictor(form)) == expected


def test_grey_pixels_are_taken_with_and_without_a_channel(predictor, pixels):
    grey = Image.fromarray(pixels).convert("L")
    expected = said(predictor(encoded(grey)))
    for form in (grey, np.asarray(grey), np.asarray(grey)[:, :, None]):
        assert said(predictor(form)) == expected


def test_a_frame_in_bgr_is_the_same_frame_where_the_caller_says_so(predictor, pixels):
    expected = said(predictor(pixels))
    assert said(predictor(pixels[..., ::-1], channel_order="bgr")) == expected
    assert said(next(predictor.predict(pixels[..., ::-1], channel_order="bgr"))) == expected
    assert said(predictor(pixels[..., ::-1])) != expected
    with pytest.raises(DataError, match=r"channel_order = 'brg' is refused"):
        predictor(pixels, channel_order="brg")


@pytest.mark.parametrize("turn", [2, 3, 6, 8])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_pil_image_is_turned_as_its_file_is(predictor, pixels, tmp_path, turn, ending):
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / f"turned.{ending}"
    Image.fromarray(pixels).save(file, exif=exif)
    expected = predictor(file)
    with Image.open(file) as opened:
        found = predictor(opened)
        assert said(found) == said(expected) == said(predictor(file.read_bytes()))
    assert found.size == expected.size == ((64, 48) if turn > 4 else (48, 64))


def test_a_pil_image_of_any_mode_gets_the_answer_of_its_file(classifier, pixels, tmp_path):
    image = Image.fromarray(pixels)
    wide = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    modes = [image.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA")] + [wide]
    for form in modes:
        assert said(classifier(form)) == said(classifier(encoded(form)))
    image.convert("CMYK").save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as opened:
        assert said(classifier(opened)) == said(classifier(tmp_path / "x.jpg"))
    for mode in ("HSV", "YCbCr"):
        assert classifier(image.convert(mode)).predictions


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (lambda x: [x], ["a list", ".predict"]),
        (lambda x: (x for _ in range(2)), ["a generator", ".predict"]),
        (lambda x: np.stack([x, x]), ["2 x 48 x 64 x 3", ".predict"]),
        (lambda x: torch.from_numpy(x), ["tensor", "x.permute(1, 2, 0)", "numpy()"]),
        (lambda x: x / 255, ["float64", "(255 * x)"]),
        (lambda x: x.astype(np.float32), ["float32", "uint8"]),
        (lambda x: x.astype(np.int64), ["int64", "astype('uint8')"]),
        (lambda x: x.transpose(2, 0, 1), ["3 x 48 x 64", "channels first", "x.transpose(1, 2, 0)"]),
        (lambda x: x[..., :2], ["48 x 64 x 2", "1, 3 or 4 channels"]),
        (lambda x: x[:0], ["no pixels"]),
        (lambda x: None, ["NoneType", "a path"]),
        (lambda x: 7, ["int", "a path"]),
        (lambda x: Image.new("RGB", (0, 0)), ["no pixels"]),
        (lambda x: b"", ["empty"]),
        (lambda x: b"\x89PNG no more", ["damaged"]),
        (lambda x: "nowhere.png", ["does not exist"]),
    ],
)
def test_what_is_not_one_image_is_refused_in_one_line_that_says_what_to_do(predictor, pixels, made, parts):
    with pytest.raises(DataError) as refused:
        predictor(made(pixels))
    assert all(part in str(refused.value) for part in parts) and "\n" not in str(refused.value)


def test_a_folder_a_glob_and_a_zip_are_not_one_image(predictor, folder, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    for path in (folder, folder / "*.png", tmp_path / "x.zip"):
        with pytest.raises(DataError, match=r"\.predict"):
            predictor(path)


# Many


def test_a_folder_is_answered_in_order_and_images_are_numbered(predictor, folder):
    found = list(predictor.predict(folder))
    assert [Path(each.path).name for each in found] == ["0.png", "1.png", "2.png"]
    assert [each.image_id for each in found] == [1, 2, 3]
    assert [said(each) for each in found] == [said(predictor(file)) for file in sorted(folder.iterdir())]
    assert [said(each) for each in predictor.predict(str(folder / "*.png"))] == [said(each) for each in found]


def test_images_of_every_form_may_come_together_in_a_list_or_a_generator(predictor, folder, pixels):
    with Image.open(folder / "1.png") as opened:
        opened.load()
        forms = [folder / "2.png", opened, pixels, str(folder), (folder / "1.png").read_bytes()]
        expected = [said(predictor(folder / f"{n}.png")) for n in (2, 1, 0, 0, 1, 2, 1)]
        for given in (forms, tuple(forms), iter(forms)):
            found = list(predictor.predict(given))
            assert [said(each) for each in found] == expected
            assert [each.image_id for each in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [Path(each.path).name for each in found] == [
        "2.png",
        "<image 2>",
        "<image 3>",
        *["0.png", "1.png", "2.png"],
        "<bytes 5>",
    ]


def test_an_image_that_is_given_three_times_is_answered_three_times(predictor, folder, pixels):
    for form in (folder / "0.png", str(folder / "0.png"), pixels, Image.fromarray(pixels)):
        one = said(predictor(form))
        assert [said(each) for each in predictor.predict([form, form, form])] == [one] * 3
    assert len(list(predictor.predict([folder, folder]))) == 6


def test_one_image_of_any_form_is_one_of_many(predictor, folder, pixels):
    for form in (folder / "0.png", (folder / "0.png").read_bytes(), Image.fromarray(pixels), pixels, pixels[None]):
        assert len(list(predictor.predict(form))) == 1
    assert list(predictor.predict([])) == []


def test_a_generator_is_asked_for_images_as_they_are_needed(predictors, pixels):
    asked: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(9):
            asked.append(number)
            yield pixels

    next(predictors["segmentation"].predict(frames()))
    assert asked == [0]
    asked.clear()
    answers = predictors["classification"].predict(frames(), batch=4)
    assert asked == []
    next(answers)
    assert asked == [0, 1, 2, 3]


def test_a_frame_that_is_overwritten_afterwards_is_answered_as_it_was(classifier, pixels):
    frame = np.empty_like(pixels)

    def camera() -> Iterator[np.ndarray]:
        for part in (pixels, 255 - pixels):
            frame[:] = part
            yield frame

    first, second = classifier.predict(camera())
    assert said(first) == said(classifier(pixels)) and said(second) == said(classifier(255 - pixels))
    assert (np.asarray(first.draw()) == np.asarray(classifier(pixels).draw())).all()


@pytest.mark.parametrize("workers", [1, 3, -1])
def test_files_that_are_read_ahead_get_the_same_answers_in_the_same_order(predictor, folder, workers):
    skipped: dict[str, str] = {}
    given = [folder, folder, folder]
    (expected,) = {str([said(each) for each in predictor.predict(given)])}
    assert str([said(each) for each in predictor.predict(given, workers=workers, skipped=skipped)]) == expected
    assert skipped == {}
    early = predictor.predict(given, workers=workers)
    assert next(early).image_id == 1
    early.close()


def test_broken_images_are_named_and_left_out(predictor, folder, pixels, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    skipped: dict[str, str] = {}
    given = [tmp_path / "broken.png", pixels, b"none", Image.new("RGB", (0, 0)), folder / "0.png"]
    found = list(predictor.predict(given, skipped=skipped))
    assert [each.image_id for each in found] == [2, 5]
    assert list(skipped) == [str(tmp_path / "broken.png"), "<bytes 3>", "<image 4>"] and all(skipped.values())
    assert [each.image_id for each in predictor.predict(given)] == [2, 5]
    with pytest.raises(DataError, match=r"broken\.png' cannot be read: not an image"):
        predictor(tmp_path / "broken.png")


def test_what_no_image_can_be_is_refused_before_anything_is_read(predictor, pixels):
    for given, part in (
        (torch.zeros(3, 4, 4), "tensor"),
        (7, "int"),
        ("nowhere/", "does not exist"),
        (pixels / 255, "float64"),
    ):
        with pytest.raises(DataError, match=part):
            predictor.predict(given)
    with pytest.raises(DataError, match="tensor"):
        list(predictor.predict([pixels, torch.zeros(3, 4, 4)]))


# Results


def test_a_dictionary_is_what_the_command_line_prints(predictor, predictors, folder):
    task = predictor.recipe.task
    more = ["--score", 0] if task == "detection" else []
    out = convnext("predict", predictors[task].source, folder, "--json", *more).out
    found = list(predictor.predict(folder))
    if task == "detection":
        assert json.loads(out) == [row for each in found for row in each.to_dict()["predictions"]]
    else:
        assert [json.loads(line) for line in out.splitlines()] == [each.to_dict() for each in found]
    printed = convnext("predict", predictors[task].source, folder, *more).out.splitlines()
    assert printed == [f"{each.path}: {each.text()}" for each in found]


def test_a_line_about_objects_has_their_names_scores_and_boxes(predictors, pixels):
    found = predictors["detection"](pixels, score=0, top=2)
    (name, score), box = found.predictions[0], found.boxes[0]
    assert found.text().split(", ")[0] == f"{name} {score:.2f} ({' '.join(str(round(edge)) for edge in box.tolist())})"
    assert predictors["detection"](pixels, score=1).text() == "nothing"


def test_masks_of_objects_are_arrays_in_the_size_of_the_image(predictors, pixels):
    found = predictors["detection"](pixels, score=0)
    assert found.masks.shape == (len(found), 48, 64) and found.masks.dtype == np.bool_
    for mask, outline in zip(found.masks, found.outlines, strict=True):
        assert (mask == decode_mask(outline).astype(bool)).all()
    assert len(found.boxes) == len(found.scores) == len(found.labels) == len(found.predictions) == 10


def test_a_mask_of_classes_has_the_size_of_the_image_and_becomes_an_image_of_numbers(predictors, pixels):
    found = predictors["segmentation"](pixels)
    assert found.mask.shape == found.scores.shape == (48, 64) and found.mask.dtype == np.uint8
    assert (np.asarray(found.mask_image()) == found.mask).all()
    assert sum(share for _, share in found.predictions) == pytest.approx(1)


def test_a_drawing_has_the_size_of_the_image_and_shows_something(predictor, folder):
    with Image.open(folder / "0.png") as image:
        for found in (predictor(folder / "0.png"), predictor(image), predictor((folder / "0.png").read_bytes())):
            drawn = found.draw()
            assert drawn.size == image.size and drawn.mode == "RGB"
            assert (np.asarray(drawn) != np.asarray(image)).any()


def test_a_drawing_of_a_file_that_is_gone_says_so(predictor, folder, tmp_path):
    file = tmp_path / "gone.png"
    file.write_bytes((folder / "0.png").read_bytes())
    found = predictor(file)
    file.unlink()
    with pytest.raises(DataError, match=r"gone\.png' cannot be drawn"):
        found.draw()
    assert found.to_dict()["path"] == str(file)


def test_predictions_are_saved_as_images_or_json_and_nothing_is_overwritten(predictor, folder, tmp_path):
    found = predictor(folder / "0.png")
    for name in ("a.jpg", "new/b.png", "c.json"):
        assert found.save(tmp_path / name) == tmp_path / name
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ConvNeXtError, match="nothing is overwritten"):
            found.save(str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == before
    assert json.loads((tmp_path / "c.json").read_text()) == found.to_dict()
    with Image.open(tmp_path / "new" / "b.png") as saved:
        assert (np.asarray(saved) == np.asarray(found.draw())).all()
    with pytest.raises(ConvNeXtError, match=r"Did you mean '\.png'"):
        found.save(tmp_path / "d.pgn")
    assert not (tmp_path / "d.pgn").exists()


def test_predictions_print_short(predictor, folder):
    assert len(repr(predictor(folder / "0.png", top=1))) < 1000


# Features


def test_an_image_is_embedded_as_one_vector_whatever_else_is_asked(predictor, folder, pixels):
    found = list(predictor.embed([folder, pixels]))
    assert len(found) == 4
    assert all(each.shape == (24,) and each.dtype == np.float32 and np.isfinite(each).all() for each in found)
    assert found[0] == pytest.approx(found[3], abs=1e-5) and np.abs(found[0] - found[1]).max() > 1e-4
    skipped: dict[str, str] = {}
    assert list(predictor.embed([b"none"], skipped=skipped)) == [] and list(skipped) == ["<bytes 1>"]


def test_features_of_a_classifier_are_what_its_head_sees(classifier, predictors, pixels):
    (found,) = classifier.embed(pixels)
    plain = load(classifier.source, device="cpu", plain=True)
    (other,) = plain.embed(pixels)
    assert found == pytest.approx(other, abs=1e-5)
    with torch.inference_mode():
        scores = plain.model.head(torch.from_numpy(other)).softmax(0)
    assert dict(plain(pixels).predictions) == pytest.approx(
        dict(zip(plain.classes, scores.tolist(), strict=True)), abs=1e-6
    )


# Evaluation


def test_a_predictor_scores_data_by_their_name(tmp_path):
    data = write_colours(tmp_path / "data", classes=2)
    predictor = load(
        checkpoint_of("classification", tmp_path, classes=("green", "red")), task="classification", device="cpu"
    )
    found = predictor.evaluate(str(data))
    assert found.to_dict() == json.loads(convnext("evaluate", tmp_path / "best.safetensors", data, "--json").out)
    assert found["n"] == 8 and found.scores["top1"] == found.to_dict()["top1"] and found.skipped == {}
    assert predictor.evaluate(data, "train")["n"] == predictor.evaluate(data, part="train")["n"] == 24
    with pytest.raises(DataError, match="part = 'tset'"):
        predictor.evaluate(data, "tset")
    with pytest.raises(DataError, match="does not exist"):
        predictor.evaluate("nowhere")


# Loading


def test_a_task_that_is_relied_on_is_checked(predictors):
    assert isinstance(predictors["detection"], Predictor)
    with pytest.raises(CheckpointError, match="is for detection, and classification is needed here"):
        load(predictors["detection"].source, task="classification")
    with pytest.raises(CheckpointError, match="Did you mean 'detection'"):
        load(predictors["detection"].source, task="detecton")


def test_a_classifier_is_loaded_without_detection_torchvision_and_timm(predictors):
    code = (
        "import sys, convnext; p = convnext.load(sys.argv[1], device='cpu'); import numpy as np\n"
        "assert p(np.zeros((9, 9, 3), np.uint8)).predictions\n"
        "heavy = {'torchvision', 'timm', 'convnext.deploy.detector', 'convnext.deploy.segmenter'} & set(sys.modules)\n"
        "heavy |= {name for name in sys.modules if name.startswith('convnext.tasks.detection')}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, predictors["classification"].source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_pixels_are_read_as_they_are(pixels):
    read, size, frames = Given("x", pixels).pixels(Statistics())
    assert (read == pixels).all() and size == (48, 64) and frames == 1
    assert Given("x", pixels[:, :, 0]).pixels(Statistics(mean=(0.5,), std=(0.5,)))[0].shape == (48, 64, 1)


def test_a_predictor_shows_itself_in_a_line(predictors):
    for task, predictor in predictors.items():
        assert task in repr(predictor).lower() and "2 classes" in repr(predictor) and len(repr(predictor)) < 400
