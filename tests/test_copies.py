"""Images that a run has learnt from are known again when they are scored under other names, in other folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import convnext, trained
from convnext.data.opening import open_labelled, recognise
from convnext.tasks.contents import learnt_line
from images import write_colours, zipped


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, a run of it, and `other`: three of its training images, two of those held out, and four new ones."""
    folder = tmp_path_factory.mktemp("copies")
    data = write_colours(folder / "data", train=6, val=3)
    trained(data, folder / "run", "--epochs", 1)
    for number, (part, name) in enumerate([("train", "red")] * 3 + [("val", "red")] * 2):
        (folder / "other" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(data / part / name / f"{number % 3:03d}.png", folder / "other" / name / f"new_{number}.png")
    rng = np.random.default_rng(5)
    for number in range(4):
        (folder / "other" / "blue").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "other" / "blue" / f"{number}.png")
    return folder


LINE = "3 of 9 images are copies of those that the run was trained on: the figures say less about others."


def test_copies_of_training_images_are_counted_whatever_they_are_called(place):
    done = convnext("evaluate", place / "run", place / "other", "--device", "cpu")
    assert done.status == 0 and LINE in done.err
    pack = zipped(place / "other", place / "other.zip")
    assert LINE in convnext("evaluate", place / "run", pack, "--device", "cpu").err


def test_held_out_images_and_those_that_are_named_already_are_not_counted(place):
    assert "copies" not in convnext("evaluate", place / "run", place / "data", "--device", "cpu").err
    said = convnext("evaluate", place / "run", place / "data", "--part", "train", "--device", "cpu").err
    assert "trained on these very images" in said and "copies" not in said


def test_a_run_that_learnt_from_all_its_images_has_learnt_from_the_held_out_ones(place):
    dataset = open_labelled(recognise(place / "other"), classes=("blue", "green", "red"), split=None)
    assert learnt_line(place / "run", dataset, everything=False) == LINE
    assert learnt_line(place / "run", dataset, everything=True) == LINE.replace("3 of", "5 of")


def test_weights_without_their_run_or_with_a_damaged_one_say_nothing(place, tmp_path):
    shutil.copy(place / "run" / "best.safetensors", tmp_path / "best.safetensors")
    assert "copies" not in convnext("evaluate", tmp_path / "best.safetensors", place / "other", "--device", "cpu").err
    shutil.copy(place / "run" / "images.digests", tmp_path)
    for content in ("{", "[]", '{"train": {"n": "x"}, "val": {"n": 1}}'):
        (tmp_path / "data.json").write_text(content)
        done = convnext("evaluate", tmp_path / "best.safetensors", place / "other", "--device", "cpu")
        assert done.status == 0 and "copies" not in done.err
