"""A JPEG with more pixels than the cap of memory allows is read at a part of its size, wherever a network is to see it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints import TASKS, checkpoint_of
from commands import trained
from convnext.data import jpeg, limits
from convnext.data.dataset import read_sample
from convnext.data.decode import decode, read_size
from convnext.data.opening import open_dense, recognise
from convnext.deploy.load import load
from convnext.errors import DataError
from images import write_colours

SIZE = (120, 200)  # more than the cap of the tests, which its half is not


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([rows * 2, columns, 255 - rows], -1).astype(np.uint8)


@pytest.fixture
def capped(monkeypatch) -> None:
    """10,000 pixels in place of 178,956,970; Pillow's own limit is half of where it refuses."""
    for module in (jpeg, limits):
        monkeypatch.setattr(module, "MAX_MEMORY", 10_000 * limits.USUAL_COST)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)


def saved(pixels: np.ndarray, form: str = "JPEG", **how: object) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, form, **how)
    return held.getvalue()


def halved(data: bytes) -> np.ndarray:
    """By Pillow alone."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE[1] // 2, SIZE[0] // 2))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "how", [{}, {"progressive": True, "subsampling": 0}, {"comment": b"x" * 70}, {"exif": b"Exif\0\0"}]
)
def test_its_pixels_are_those_of_the_reduced_decode_and_its_size_is_its_own(pixels, how, monkeypatch, request):
    data = saved(pixels, **how)
    wanted = halved(data)
    request.getfixturevalue("capped")
    if "progressive" in how:  # of these libjpeg keeps all coefficients
        with pytest.raises(
            DataError, match="200 x 120 is more than is read of a progressive JPEG; `jpegtran -copy all` makes a plain"
        ):
            decode(data)
        monkeypatch.setattr(jpeg, "MAX_MEMORY", 220_000)  # its 6 bytes a pixel, and 12 of a quarter of them
    assert np.array_equal(decode(data), wanted)
    assert read_size(data) == SIZE


def test_what_has_no_smaller_form_is_refused_as_before(pixels, capped):
    with pytest.raises(DataError, match="more than 178,956,970 pixels; make it smaller"):
        decode(saved(pixels, "PNG"))


@pytest.mark.parametrize("least_px", [None, 1, 14, 15, 30, 60, 120])
def test_a_smaller_decode_stays_as_it_is_and_a_larger_one_is_cut(least_px, capped):
    whole = 15 if least_px == 1 else least_px  # 120 / 8 is the smallest
    found = SIZE[0] / jpeg.reduction(*SIZE, least_px)
    assert found == (min(60, max(15, next(side for side in (15, 30, 60, 120) if side >= whole))) if least_px else 60)


def test_a_file_that_only_says_that_it_is_large_is_one_line(pixels):
    data = bytearray(saved(pixels))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = (60_000).to_bytes(2) + (60_000).to_bytes(2)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(bytes(data[: len(data) // 2]))


@pytest.mark.parametrize("task", TASKS)
def test_a_predictor_answers_as_for_the_reduced_image_with_boxes_in_pixels_of_the_whole(
    task, pixels, tmp_path, request
):
    predictor = load(checkpoint_of(task, tmp_path), device="cpu")
    data = saved(pixels)
    how = {"score": 0} if task == "detection" else {}
    small = predictor(halved(data), **how)
    request.getfixturevalue("capped")
    large = predictor(data, **how)
    if task == "detection":
        assert large.size == SIZE and len(large) == len(small) > 0
        np.testing.assert_allclose(large.boxes, 2 * small.boxes, rtol=1e-5, atol=1e-3)
        assert np.array_equal(large.scores, small.scores)
    elif task == "segmentation":
        assert large.size == (60, 100) and np.array_equal(large.mask, small.mask)
    else:
        assert large.size == SIZE and large.predictions == small.predictions
    assert large.draw().size == (100, 60)


def annotated(folder: Path, pixels: np.ndarray, segmentation: object) -> Path:
    folder.mkdir()
    (folder / "large.jpg").write_bytes(saved(pixels))
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 20, 80, 60], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "large.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [row | {"segmentation": segmentation}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def test_annotations_are_in_pixels_of_the_whole_image(pixels, tmp_path, request):
    file = annotated(tmp_path / "d", pixels, [[40, 20, 120, 20, 120, 80, 40, 80]])
    dataset = open_dense(recognise(file))
    whole = read_sample(dataset, 0)
    request.getfixturevalue("capped")
    sample = read_sample(dataset, 0)
    assert sample.image.shape == (60, 100, 3) and sample.size == SIZE and sample.instances and whole.instances
    assert sample.instances.boxes.tolist() == [[20, 10, 60, 40]]
    assert sample.frame.back(sample.instances.boxes).tolist() == whole.instances.boxes.tolist() == [[40, 20, 120, 80]]
    assert sample.instances.area.tolist() == [40 * 30]
    assert sample.instances.masks is not None and whole.instances.masks is not None
    assert np.array_equal(sample.instances.masks, whole.instances.masks[:, ::2, ::2])
    assert sample.content == (0, 0, 100, 60)


def test_masks_that_have_one_size_alone_are_named(pixels, tmp_path, request):
    counts = [SIZE[0] * 40, SIZE[0] * 20, SIZE[0] * 140]
    dataset = open_dense(recognise(annotated(tmp_path / "d", pixels, {"size": list(SIZE), "counts": counts})))
    request.getfixturevalue("capped")
    with pytest.raises(DataError, match="its masks are run lengths of more pixels than are read"):
        read_sample(dataset, 0)


def test_training_and_evaluation_leave_none_out(pixels, tmp_path, capped):
    data = write_colours(tmp_path / "data", train=6, val=2)
    for part in ("train", "val"):
        for colour in ("red", "blue"):
            (data / part / colour / "large.jpg").write_bytes(saved(pixels))
    trained(data, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "data.json").read_text())
    assert found["skipped"] == {}
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["n"] == 8
