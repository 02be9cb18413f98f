"""Images that change between two starts of one run are noticed and named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import convnext, tiny


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images in two classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).save(file)
    return tmp_path / "set"


def refusal(words: list[object]) -> str:
    """The last line of a start that is refused; what was found in the data stands above it."""
    done = convnext(*words)
    assert done.status == 2 and "Training" not in done.err, done.err
    return done.err.strip().splitlines()[-1]


def changed(file: Path) -> None:
    """Another image under the same name."""
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(file)


def test_a_run_goes_on_with_a_copy_of_its_data_and_not_with_other_images_of_the_same_names(data, tmp_path):
    run, words = tmp_path / "run", tiny(data, tmp_path / "run")
    assert convnext(*words).status == 0
    digests = run / "images.digests"
    assert len(digests.read_bytes()) == 12 * 8
    moved = data.with_name("old")
    data.rename(moved)
    shutil.copytree(moved, data, copy_function=shutil.copyfile)  # new dates
    assert convnext(*words).status == 0
    changed(data / "a" / "4.png")
    before = (run / "last.safetensors").read_bytes()
    line = refusal(words)
    assert "holds a run on other data: 1 image changed since it began, 'a/4.png'" in line
    assert str(digests) in line and (run / "last.safetensors").read_bytes() == before
    digests.unlink()  # the way out
    assert convnext(*words).status == 0
    assert len(digests.read_bytes()) == 12 * 8


def test_a_change_before_anything_was_trained_is_no_matter(data, tmp_path):
    words = tiny(data, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images.digests").write_bytes(b"\1" * 96)
    assert convnext(*words).status == 0


def test_an_image_that_breaks_is_a_change_and_evaluation_does_not_ask(data, tmp_path):
    words = tiny(data, tmp_path / "run")
    assert convnext(*words).status == 0
    for number in range(0, 12, 2):
        (data / "a" / f"{number}.png").write_bytes(b"no image")
    line = refusal(words)
    assert "6 images changed" in line and ", ..." in line
    assert convnext("evaluate", tmp_path / "run", data).status == 0


def test_a_mask_that_changes_is_a_change(tmp_path):
    random = np.random.default_rng(0)
    for number in range(8):
        for folder, pixels in (
            ("images", random.integers(0, 256, (64, 64, 3), np.uint8)),
            ("masks", random.integers(0, 2, (64, 64), np.uint8).repeat(4, 0).repeat(4, 1)[:64, :64]),
        ):
            file = tmp_path / "set" / folder / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    words = ["train", tmp_path / "set", "--out", tmp_path / "run", "--batch", 2, "--epochs", 1, "--workers", 0]
    words += ["--model.depths", "1,1,1,1", "--model.widths", "8,8,8,8", "--size", 64, "--head.width", 8]
    done = convnext(*words)
    assert done.status == 0, done.err
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "set" / "masks" / "3.png")
    assert "1 image changed since it began, 'images/3.png'" in refusal(words)
