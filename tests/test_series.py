"""Series that were divided between the parts are told: frames of a video, copies of one image; single photos never are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext.data.annotated_preflight import preflight_dense
from convnext.data.opening import open_dense_splits, open_splits, recognise
from convnext.data.preflight import preflight

SAID = "look almost like the training image of the next number"


def scene(seed: int) -> np.ndarray:
    """(48, 64, 3) of soft shapes."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC))


def frame(file: Path, pixels: np.ndarray, number: int) -> None:
    """A little brighter and with other noise each time."""
    noise = np.random.default_rng(number).integers(-6, 7, pixels.shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels.astype(int) + noise + number, 0, 255).astype(np.uint8)).save(file)


def told(data: Path) -> list[str]:
    return [line for line in preflight(open_splits(recognise(data))).lines if SAID in line]


def test_frames_of_a_video_in_both_parts_are_told_with_the_way_out(tmp_path):
    for clip in range(4):
        for number in range(8):
            frame(tmp_path / ("walk", "run")[clip % 2] / f"clip{clip:02}_frame{number:04}.jpg", scene(clip), number)
    (line,) = told(tmp_path)
    assert line.startswith("6 of 6 held-out images look almost like") and "Put each series into one part" in line
    for file in sorted(tmp_path.rglob("*.jpg")):  # whole clips in one part
        part = "val" if "clip02" in file.name or "clip03" in file.name else "train"
        (tmp_path / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / part / file.parent.name / file.name)
    assert told(tmp_path) == []


def test_copies_that_roboflow_made_of_one_image_are_told(tmp_path):
    for number in range(12):
        for copy in range(2):
            part = "valid" if copy and number < 4 else "train"
            name = f"photo-{number * 37}_jpg.rf.{number:x}{copy}a.jpg"
            frame(tmp_path / part / "ab"[number % 2] / name, scene(number), copy)
    assert told(tmp_path)[0].startswith("4 of 4 held-out images")


@pytest.mark.parametrize("same", [False, True], ids=["photos", "one background"])
def test_numbered_images_that_are_no_series_are_not_told(tmp_path, same):
    for number in range(40):
        pixels = scene(7) if same else scene(100 + number)
        frame(tmp_path / "ab"[number % 2] / f"IMG_{number:04}.jpg", pixels, number)
    assert told(tmp_path) == []


def test_frames_with_masks_are_told_too(tmp_path):
    for part, numbers in (("train", range(0, 12, 2)), ("val", range(1, 9, 2))):
        for clip in range(2):
            for number in numbers:
                name = f"{clip:04}TP_{number:05}.png"
                frame(tmp_path / "images" / part / name, scene(clip), number)
                (tmp_path / "masks" / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(tmp_path / "masks" / part / name)
    lines = preflight_dense(open_dense_splits(recognise(tmp_path))).lines
    assert any(line.startswith("8 of 8 held-out images look almost like") for line in lines)
